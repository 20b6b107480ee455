"""From bytes to the characters that are stored, and what every loader shares about them."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from rag.errors import LoadError
from rag.types import Document

OnProblem = Callable[[str], None]
Loader = Callable[[Path, bytes, OnProblem], Iterator[Document]]

REPLACEMENT = "\ufffd"

# UTF-32 stands before UTF-16 because its little-endian mark begins with that of UTF-16.
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_HIGH = bytes(range(128, 256))
# What text does not hold: control characters but for tab, line ends, form feed and escape (terminal colours).
_CONTROLS = bytes([*range(9), *range(14, 27), *range(28, 32), 127])
_BINARY_SAMPLE = 1_000_000
# charset_normalizer grows slow on long input, and 64 KiB tell a language as well as a megabyte does.
_CHARSET_SAMPLE = 65_536
_TELLING = 64  # Bytes outside ASCII that a guess needs at least.

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# A Windows-1252 character with a reason to stand in Western text: a letter beside a letter, or a usual sign.
_WESTERN = re.compile(
    "(?<=[A-Za-zÀ-ÖØ-öø-ÿ])[À-ÖØ-öø-ÿŒœŠšŽžŸ]|[À-ÖØ-öø-ÿŒœŠšŽžŸ](?=[A-Za-zÀ-ÖØ-öø-ÿ])"
    "|[€‚„…†‡‰‹›‘’“”•–—™©®«»°±²³·¼½¾¿¡¢£¥§¶×÷ªº\xa0]"
)


def clean(text: str) -> str:
    r"""The text as it may be stored: ``\n`` line ends; NUL and lone surrogates become U+FFFD."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _UNSTORABLE.sub(REPLACEMENT, text)


def refused(path: Path, problem: str, fix: str = "") -> LoadError:
    """The error for a file: ``NAME problem.``, and what to do about it."""
    return LoadError(f"{clean(path.name)} {problem}.", fix=fix)


def decode(path: Path, data: bytes, on_problem: OnProblem, declared: str | None = None) -> str:
    r"""Decode a text file, without its byte order mark and with ``\n`` line ends.

    The order of trust: a byte order mark; UTF-8; ``declared``; UTF-8 with a few damaged bytes; an encoding
    that the bytes suggest. Anything but clean UTF-8, UTF-16 and UTF-32 is told to ``on_problem``.

    Args:
        declared: The encoding that the file itself names, if any.

    Raises:
        LoadError: The bytes are binary.
    """
    for mark, codec in _BOMS:
        if data.startswith(mark):
            text = data[len(mark) :].decode(codec, "replace")
            return _checked(path, text, data, codec, on_problem)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        _refuse_binary(path, data, valid=False)
        text, codec = _decode_legacy(data, declared)
        return _checked(path, text, data, codec, on_problem)
    _refuse_binary(path, data, valid=True)
    return clean(text)


def _checked(path: Path, text: str, data: bytes, codec: str, on_problem: OnProblem) -> str:
    """Report what decoding could not read; refuse what it could hardly read at all."""
    bad = text.count(REPLACEMENT)
    if codec == "utf-8":
        bad -= data.count(REPLACEMENT.encode())
    if bad * 5 > len(text):
        raise _binary(path)
    if bad > 0:
        on_problem(f"{bad} invalid {codec} byte sequences were replaced by {REPLACEMENT}")
    elif not codec.startswith("utf"):
        on_problem(f"the text is not valid UTF-8; it was read as {codec}")
    return clean(text)


def _refuse_binary(path: Path, data: bytes, *, valid: bool) -> None:
    """Raise for bytes with more control characters than text has."""
    sample = data[:_BINARY_SAMPLE]
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    share = controls / len(sample) if sample else 0.0
    # A stray NUL or two in a short note is damage, not a sign of a binary.
    if share > 0.3 or (share > 0.02 and (controls > 4 or not valid)):
        raise _binary(path)


def _binary(path: Path) -> LoadError:
    return refused(path, "is binary, not text", "Convert it to PDF, HTML or text first, or leave it out.")


def _decode_legacy(data: bytes, declared: str | None) -> tuple[str, str]:
    """Text and encoding of bytes that are not UTF-8."""
    if declared:
        # A name that Python does not know says nothing about the bytes.
        with suppress(LookupError):
            return data.decode(declared, "replace"), declared
    text = data.decode("utf-8", "replace")
    bad = text.count(REPLACEMENT)
    high = len(data) - len(data.translate(None, _HIGH))
    if bad * 4 <= high:
        return text, "utf-8"
    # Short or mostly ASCII text gives a guesser nothing to go by: there Windows-1252 is the best bet.
    telling = high >= _TELLING and high * 5 > len(data)
    guess = _guess(data[:_CHARSET_SAMPLE]) if telling else None
    if guess:
        return data.decode(guess, "replace"), guess
    try:
        western = data.decode("cp1252")
    except UnicodeDecodeError:
        return text, "utf-8"
    plausible = sum(1 for _ in _WESTERN.finditer(western)) * 10 >= high * 9
    return (western, "cp1252") if plausible else (text, "utf-8")


def _guess(sample: bytes) -> str | None:
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    return best.encoding if best else None
