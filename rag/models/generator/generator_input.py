"""Messages as the generator sees them: the same for training and for answering.

``[CLS] message [SEP] message [SEP] … reply [SEP]``, the reply as the second segment. A prompt that is too long
loses passages from the end of the list, since the best stand first; where that is not enough, the longest
messages lose their beginnings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

# What the base reads, and the part of it that is kept for the reply.
POSITIONS = 512
MOST_REPLY = 96


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt in numbers.

    Attributes:
        ids: Token numbers, special ones included.
        words: What each token stands for in the text, in its own case; empty for special tokens.
        spaced: Whether white space goes before it.
        dropped: Passages that did not fit.
        cut: Whether a message lost its beginning.
    """

    ids: tuple[int, ...]
    words: tuple[str, ...]
    spaced: tuple[bool, ...]
    dropped: int = 0
    cut: bool = False


class PromptRenderer:
    """Renders with one tokenizer.

    Args:
        tokenizer: A BERT tokenizer; its own truncation and padding are switched off.
        most: Tokens of a prompt at most.
    """

    def __init__(self, tokenizer: Tokenizer, most: int = POSITIONS - MOST_REPLY) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.most = most
        self._tokenizer = tokenizer
        self._cls, self.end = tokenizer.encode("", add_special_tokens=True).ids

    def prompt(self, texts: Sequence[str], passages: Sequence[str] = ()) -> Rendered:
        """A prompt within the window.

        Args:
            texts: Of the messages, in order; at least one.
            passages: What of the last message are passages, best first, numbered from 1.
        """
        texts = list(texts)
        found = [self._encode(text) for text in texts]
        kept = len(passages)
        while _length(found) > self.most and kept > 1:
            kept -= 1
            texts[-1] = without_passage(texts[-1], kept + 1, passages[kept])
            found[-1] = self._encode(texts[-1])
        firsts = self._firsts([len(each.ids) for each in found])
        ids, words, spaced = [self._cls], [""], [False]
        for text, each, first in zip(texts, found, firsts, strict=True):
            ends = [0, *(end for _, end in each.offsets)]
            ids += [*each.ids[first:], self.end]
            words += [*(text[start:end] for start, end in each.offsets[first:]), ""]
            spaced += [*(start > ends[at] for at, (start, _) in enumerate(each.offsets) if at >= first), False]
        return Rendered(tuple(ids), tuple(words), tuple(spaced), len(passages) - kept, any(firsts))

    def _firsts(self, lengths: Sequence[int]) -> list[int]:
        """Where each message begins to be read: the longest ones later, as far as it is needed."""
        firsts = [0] * len(lengths)
        over = 1 + sum(lengths) + len(lengths) - self.most
        for at in sorted(range(len(lengths)), key=lambda at: -lengths[at]):
            firsts[at] = min(max(over, 0), lengths[at])
            over -= firsts[at]
        return firsts

    def reply(self, text: str) -> tuple[int, ...]:
        """The tokens of a reply, with the one that ends it; for training."""
        return (*self._encode(text).ids[: MOST_REPLY - 1], self.end)

    def word(self, token: int) -> str:
        """A token as the vocabulary writes it: lower case, ``##`` before what goes on a word."""
        return str(self._tokenizer.id_to_token(token))

    def _encode(self, text: str) -> Encoding:
        return self._tokenizer.encode(text, add_special_tokens=False)


def without_passage(text: str, number: int, passage: str) -> str:
    """A prompt without one passage and the line above it; the prompt itself where it is not found."""
    at = text.rfind(passage)
    head = text.rfind(f"[{number}]", 0, at) if at >= 0 else -1
    if head < 0:
        return text
    return re.sub(r"\n\s*\n\s*\n", "\n\n", text[:head] + text[at + len(passage) :])


def _length(found: Sequence[Encoding]) -> int:
    return 1 + sum(len(each.ids) + 1 for each in found)
