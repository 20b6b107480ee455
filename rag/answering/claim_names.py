"""The names in a text: capitalised words, acronyms, and identifiers such as paths, addresses and flags."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rag.answering.claim_text import CONNECTING, FRAME, STOP_WORDS

_AROUND = "\"'()[]{},;:!?.*<>|`…"
_LETTER = re.compile(r"[^\W\d_]")
_PARTS = re.compile(r"[^\W_]+")
_OPENS = tuple("\"'([")
_ENDS_SENTENCE = re.compile(r"[.:!?|;]['\")\]]*$|^[-*•|]+$")
_IDENTIFIER = re.compile(
    r"[/\\@_=#~$+]|::|^--?[a-z]|^\.[a-z]|[^\W_]\.[^\W_]|[^\W\d_]\d|\d[^\W\d_]{4,}", re.IGNORECASE
)
_QUANTITY = re.compile(r"[$€£¥~+-]?\d[\d.,:]*(?:st|nd|rd|th|s|[^\W\d_]{1,3})?", re.IGNORECASE)
_ABBREVIATION = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]?")
_LOWER_CASE_ABBREVIATIONS = frozenset("eg ie am pm".split())
# At the beginning of a sentence, these are ordinary words; "Visitors must pay" does not name anybody.
_ORDINARY = re.compile(r".{2,}(?:ing|tions?|sions?|ness|ers|ors|ists|ities)")
_OPENERS = frozenset(
    "people everyone everybody someone somebody anyone anybody users visitors answers first "
    "second third next last originally initially eventually generally usually typically often sometimes "
    "today currently recently later earlier afterwards soon perhaps maybe please note both".split()
)
# Capitalised inside a sentence, these words are a month and a name, and not auxiliary verbs.
_ALSO_NAMES = frozenset(("may", "will"))


@dataclass(frozen=True, slots=True)
class _Word:
    """A word of a sentence without the punctuation around it.

    Attributes:
        first: Whether a sentence may begin with it.
        code: Whether it is in backticks.
    """

    text: str
    first: bool
    next_is_capitalised: bool
    code: bool


class KnownNames:
    """The words and identifiers that folded texts contain."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._text = "\n".join(texts).casefold()
        self._forms: set[str] = set()
        for piece in self._text.split():
            for part in (*_PARTS.findall(piece), _squashed(piece)):
                self._forms |= _forms(part)

    def missing_from(self, sentence: str, is_known_word: Callable[[str], bool]) -> list[str]:
        """Return the names of a folded sentence that the texts do not contain.

        Args:
            sentence: The sentence.
            is_known_word: Whether an ordinary word, in lower case, is supported in some inflection.
        """
        return list(
            dict.fromkeys(word.text for word in _words(sentence) if not self._supports(word, is_known_word))
        )

    def _supports(self, word: _Word, is_known_word: Callable[[str], bool]) -> bool:
        text = word.text
        if not _LETTER.search(text) or _QUANTITY.fullmatch(text):
            # Numbers have a check of their own.
            return True
        if _ABBREVIATION.fullmatch(text):
            bare = text.replace(".", "").casefold()
            return bare in _LOWER_CASE_ABBREVIATIONS or bare in self._forms
        if word.code or _IDENTIFIER.search(text):
            return self._has_identifier(text)
        capitalised = any(letter.isupper() for letter in text)
        if not capitalised or self._has_name(text):
            return True
        lower = _without_possessive(text.casefold())
        if word.first and text[1:].islower():
            ordinary = lower in STOP_WORDS | CONNECTING | FRAME | _OPENERS or is_known_word(lower)
            return ordinary or (not word.next_is_capitalised and bool(_ORDINARY.fullmatch(lower)))
        return lower in STOP_WORDS and lower not in _ALSO_NAMES

    def _has_name(self, text: str) -> bool:
        """Whether a name is known as one word, or each of its capitalised parts is."""
        if _forms(_squashed(text)) & self._forms:
            return True
        parts = [part for part in _PARTS.findall(_without_possessive(text)) if not part.islower()]
        if any(part[0].isdigit() for part in parts):
            # GPT-5 is not made of a known GPT and a known 5.
            joined = r"[\s-]?".join(re.escape(part.casefold()) for part in _PARTS.findall(text))
            return bool(re.search(rf"(?<!\w){joined}(?!\w)", self._text))
        return all(_forms(part) & self._forms or part.casefold() in STOP_WORDS - _ALSO_NAMES for part in parts)

    def _has_identifier(self, text: str) -> bool:
        token = _without_possessive(text.casefold())
        if re.search(rf"(?<![\w-]){re.escape(token)}(?![\w-])", self._text):
            return True
        parts = token.split("/")
        if len(parts) == 2 and all(part.isalpha() for part in parts):
            # "and/or": alternatives and no path.
            return all(part in STOP_WORDS or part in self._forms for part in parts)
        return token.isalnum() and bool(_forms(token) & self._forms)


def _words(sentence: str) -> Iterator[_Word]:
    pieces = sentence.split()
    first, inside_code = True, False
    for at, piece in enumerate(pieces):
        code = inside_code or "`" in piece
        inside_code ^= piece.count("`") % 2 == 1
        bare = _bare(piece)
        if bare:
            following = _bare(pieces[at + 1]) if at + 1 < len(pieces) else ""
            named = following[:1].isupper() and following.casefold() not in STOP_WORDS
            yield _Word(bare, first or piece.startswith(_OPENS), named, code)
            first = False
        first = first or bool(_ENDS_SENTENCE.search(piece))


def _bare(piece: str) -> str:
    """Return a piece of text without the punctuation around it; the full stops of U.S. and .env stay."""
    bare = piece.strip(_AROUND)
    if _ABBREVIATION.fullmatch(bare) and f"{bare}." in piece:
        return f"{bare}."
    return f".{bare}" if re.search(rf"(?<![^\W_.])(?<!\.)\.{re.escape(bare)}", piece) and bare.isalpha() else bare


def _without_possessive(word: str) -> str:
    return re.sub(r"'s?$", "", word)


def _squashed(word: str) -> str:
    """Return a word in lower case without the signs in it."""
    return "".join(_PARTS.findall(_without_possessive(word.casefold())))


def _forms(word: str) -> set[str]:
    """Return a word in lower case, and without the ending of a plural."""
    word = word.casefold()
    forms = {word}
    if len(word) > 3 and word.endswith("s"):
        forms.add(word[:-1])
        if word.endswith("ies"):
            forms.add(f"{word[:-3]}y")
        elif word.endswith("es"):
            forms.add(word[:-2])
    return forms
