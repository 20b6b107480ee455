"""From the generator's lower-case tokens to text: words are written as the prompt writes them."""

from __future__ import annotations

from collections.abc import Sequence

from rag.models.generator.generator_input import Rendered

GOES_ON = "##"
# Where the prompt does not show it: what no white space goes before, and behind.
_CLOSING = frozenset(".,;:!?%)]}'’-–/")
_OPENING = frozenset("([{$£€#'’-–/")
_BEFORE_SENTENCES = frozenset(("", ".", "?", "!", ":", "]", '"', "“"))
# Words that are no names, also where they are only seen at the beginning of a sentence.
_SMALL = frozenset(
    "a an the and but or if in on at by for from with of to as it its he she his her they their we you your this "
    "that these those there is was were are be has had have do does did no not what when where who why how which "
    "after before during since while although however because many most some all both each one two".split()
)
_ENDINGS = frozenset(("s", "t", "re", "ve", "ll", "d", "m"))


class Restorer:
    """Turns tokens into text, a word behind: the next word tells which place of the prompt a word was taken from.

    Args:
        prompt: What the words are looked up in.
        pieces: The prompt's tokens as the vocabulary writes them.
    """

    def __init__(self, prompt: Rendered, pieces: Sequence[str]) -> None:
        self._prompt = prompt
        self._pieces = pieces
        self._places: dict[str, list[int]] = {}
        for at, piece in enumerate(pieces):
            self._places.setdefault(piece, []).append(at)
        self._held: list[list[str]] = []
        # Where in the prompt the last word that was given out ends, for each place it may have been taken from.
        self._ends: list[int] = []
        self._last = ""

    def add(self, piece: str) -> str:
        """What a further token lets out; often nothing."""
        if piece.startswith(GOES_ON) and self._held:
            self._held[-1].append(piece)
            return ""
        self._held.append([piece])
        return self._word() if len(self._held) > 2 else ""

    def rest(self) -> str:
        """What was held back, when no further token comes."""
        told = ""
        while self._held:
            told += self._word()
        return told

    def _word(self) -> str:
        word = self._held.pop(0)
        found = self._found(word)
        along = [at for at in found if at in self._ends]
        if self._held and len(self._held[0]):
            ahead = set(self._found(self._held[0]))
            along = [at for at in along if at + len(word) in ahead] or along
            found = [at for at in found if at + len(word) in ahead] or found
        if along:
            text, spaced = self._as_written(along[0], len(word)), self._prompt.spaced[along[0]]
        else:
            text = self._cased(word, found)
            spaced = self._is_spaced(text)
        self._ends = [at + len(word) for at in along or found]
        if not self._last:
            text, spaced = text[:1].upper() + text[1:], False
        self._last = text
        return f" {text}" if spaced else text

    def _cased(self, word: Sequence[str], found: Sequence[int]) -> str:
        """A word that the reply does not share with the word before it, as the prompt writes it."""
        if not found:
            return _plain(word)
        # What begins a sentence is written large there, and may be small elsewhere.
        inside = [at for at in found if not self._begins(at)]
        written = [self._as_written(at, len(word)) for at in inside or self._found(word)]
        small = [each for each in written if each == each.lower()]
        if not inside and not small and written[0].lower() in _SMALL:
            return written[0].lower()
        return (small or written)[0]

    def _begins(self, at: int) -> bool:
        before = self._prompt.words[at - 1] if at else ""
        return before in _BEFORE_SENTENCES

    def _found(self, word: Sequence[str]) -> list[int]:
        """Where the prompt has a word, whole."""
        count = len(word)
        return [
            at
            for at in self._places.get(word[0], ())
            if list(self._pieces[at : at + count]) == list(word)
            and not "".join(self._pieces[at + count : at + count + 1]).startswith(GOES_ON)
        ]

    def _as_written(self, at: int, count: int) -> str:
        words = self._prompt.words[at : at + count]
        return "".join(words)

    def _is_spaced(self, text: str) -> bool:
        if text in _CLOSING or self._last in _OPENING:
            return False
        return not (self._last in ("'", "’") and text in _ENDINGS)


def _plain(word: Sequence[str]) -> str:
    text = "".join(piece.removeprefix(GOES_ON) for piece in word)
    return "I" if text == "i" else text
