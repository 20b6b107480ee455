"""Decoding of bytes to stored text, shared by all loaders."""

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

# UTF-32 precedes UTF-16, because its little-endian mark starts with that of UTF-16.
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_HIGH = bytes(range(128, 256))
# Control characters that text does not contain: all but tab, line ends, form feed and escape (terminal colours).
_CONTROLS = bytes([*range(9), *range(14, 27), *range(28, 32), 127])
_BINARY_SAMPLE = 1_000_000
# charset_normalizer is slow on long input, and 64 KiB identify a language as well as a megabyte.
_CHARSET_SAMPLE = 65_536
_ENOUGH = 64  # Minimum bytes outside ASCII for a guess.

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# Windows-1252 characters that are plausible in Western text: a letter next to a letter, or a common symbol.
_WESTERN = re.compile(
    "(?<=[A-Za-zÀ-ÖØ-öø-ÿ])[À-ÖØ-öø-ÿŒœŠšŽžŸ]|[À-ÖØ-öø-ÿŒœŠšŽžŸ](?=[A-Za-zÀ-ÖØ-öø-ÿ])"
    "|[€‚„…†‡‰‹›‘’“”•–—™©®«»°±²³·¼½¾¿¡¢£¥§¶×÷ªº\xa0]"
)


def clean(text: str) -> str:
    r"""Normalize text for storage: ``\n`` line ends, U+FFFD for NUL and lone surrogates."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _UNSTORABLE.sub(REPLACEMENT, text)


def refused(path: Path, problem: str, fix: str = "") -> LoadError:
    """Return the error for a file: ``NAME problem.``, and the fix."""
    return LoadError(f"{clean(path.name)} {problem}.", fix=fix)


def decode(path: Path, data: bytes, on_problem: OnProblem, declared: str | None = None) -> str:
    r"""Decode a text file, without its byte order mark and with ``\n`` line ends.

    Candidates in order: a byte order mark; UTF-8; ``declared``; UTF-8 with a few damaged bytes; a guessed
    encoding. Anything but clean UTF-8, UTF-16 and UTF-32 is reported to ``on_problem``.

    Args:
        path: Path of the file, for messages.
        data: Bytes of the file.
        on_problem: Called with a description of what was repaired or guessed.
        declared: The encoding that the file itself declares, if any.

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
    """Report invalid bytes, and refuse the file if there are too many."""
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
    """Raise LoadError for bytes with more control characters than text has."""
    sample = data[:_BINARY_SAMPLE]
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    share = controls / len(sample) if sample else 0.0
    # A stray NUL or two in a short text is damage, not a sign of a binary file.
    if share > 0.3 or (share > 0.02 and (controls > 4 or not valid)):
        raise _binary(path)


def _binary(path: Path) -> LoadError:
    return refused(path, "is binary, not text", "Convert it to PDF, HTML or text first, or leave it out.")


def _decode_legacy(data: bytes, declared: str | None) -> tuple[str, str]:
    """Decode bytes that are not UTF-8, and return text and encoding."""
    if declared:
        # Ignore an encoding that Python does not know.
        with suppress(LookupError):
            return data.decode(declared, "replace"), declared
    text = data.decode("utf-8", "replace")
    bad = text.count(REPLACEMENT)
    high = len(data) - len(data.translate(None, _HIGH))
    if bad * 4 <= high:
        return text, "utf-8"
    # Short or mostly ASCII text is too little for a guess: there, Windows-1252 is the best bet.
    enough = high >= _ENOUGH and high * 5 > len(data)
    guess = _guess(data[:_CHARSET_SAMPLE]) if enough else None
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
