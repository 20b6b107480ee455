"""Redaction of secrets in text before it is stored or shown.

The rules match the form of secrets rather than their names, so that ordinary prose about passwords, tokens and
keys is not changed. A secret without a typical form or name is not recognized.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

MASK = "[redacted]"
# Characters of a text whose redaction is remembered, so that a thousand of them take some megabytes.
_SHORT = 4_000

_NAME = (
    r"(?:pass(?:word|wd|phrase)|pwd|secret|api[_ -]?key|access[_-]?key|private[_-]?key|signing[_-]?key"
    r"|(?:access|auth|refresh|bearer|api)[_-]?token|client[_-]?secret|credentials?)"
)
_WORD_AFTER_EQUALS = (
    r"(?!(?:none|null|true|false|str|bytes|self|string|secretstr)\b)[^\s\"',;&<>(){}\[\]]{4,}+(?![(\[])"
)
_WORD_AFTER_COLON = r"(?!https?:)(?=\S{0,60}\d)[^\s\"',;<>(){}\[\]]{6,}+(?![(\[])"


@dataclass(frozen=True, slots=True)
class _Rule:
    """A pattern and its replacement; every match contains one of the lower-case ``hints``."""

    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    replacement: str = MASK


def _rule(hints: str, pattern: str, replacement: str = MASK, *, any_case: bool = False) -> _Rule:
    return _Rule(tuple(hints.split()), re.compile(pattern, re.IGNORECASE if any_case else 0), replacement)


_NAME_HINTS = "passw passphrase pwd secret key token credential"

# Every repetition is bounded or possessive, so that hostile lines take linear time.
_RULES = (
    _rule(
        "-----begin",
        r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:\s|\\n)*+(?:[A-Za-z-]{1,30}: [^\n\\]{0,200}(?:\n|\\n))*+(?:\s|\\n)*+"
        r"[A-Za-z0-9+/]{16,}+[A-Za-z0-9+/=\s\\]*+"
        r"(?:-----END (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----)?",
    ),
    _rule("sk- sk_ pk- pk_ rk- rk_", r"\b(?:sk|pk|rk)[-_](?=[\w-]{0,200}\d)[\w-]{16,}+"),
    _rule("bearer", r"\b(bearer\s{1,3})(?=\S{0,200}\d)[A-Za-z0-9._~+/=-]{16,}+", rf"\1{MASK}", any_case=True),
    _rule("authorization", r"\b(authorization[\"']?\s?[:=]\s?[\"']?basic\s)\S{6,}+", rf"\1{MASK}", any_case=True),
    _rule("akia asia", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    _rule("gh github_pat_ glpat-", r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}+|github_pat_\w{20,}+|glpat-[\w-]{20,}+)"),
    _rule("hf_", r"\bhf_[A-Za-z0-9]{30,}+"),
    _rule("wandb_v", r"\bwandb_v\d_\w{20,}+"),
    # A W&B key is forty hexadecimal digits, like a Git commit: only a word before it distinguishes them.
    _rule(
        "wandb key token login secret password",
        r"((?:wandb|key|token|login|secret|password)(?:\sis)?[\"']?\s{0,3}[:=]?\s{0,3}[\"']?)"
        r"(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])",
        rf"\1{MASK}",
        any_case=True,
    ),
    _rule("xox", r"\bxox[abeprs]-(?=[\w-]{0,60}\d)[\w-]{10,}+"),
    _rule("aiza", r"\bAIza[\w-]{35}"),
    _rule("eyj", r"\beyJ[\w-]{10,}+\.[\w-]{10,}+\.[\w-]{5,}+"),
    # A password may contain a slash or an @. A port, unlike a password, is followed by a delimiter.
    _rule(
        "://",
        r"(?i)\b([a-z][a-z0-9+.-]{1,20}://[^\s/:@\[\"'<>]{0,100}:)(?!\d{1,5}(?:[\s/?#,;:\"'<>()\[\]{}|\\]|$))"
        r"[^\s\"'<>]{1,200}(?=@)",
        rf"\1{MASK}",
    ),
    _rule(
        _NAME_HINTS,
        rf"({_NAME}[\w-]{{0,30}}[\"']?\s{{0,3}}[:=]\s{{0,3}}([\"']))[^\"'\n]{{4,400}}(?=\2)",
        rf"\1{MASK}",
        any_case=True,
    ),
    _rule(
        _NAME_HINTS,
        rf"({_NAME}[\w-]{{0,30}}\s{{0,3}}=\s{{0,3}}){_WORD_AFTER_EQUALS}",
        rf"\1{MASK}",
        any_case=True,
    ),
    _rule(
        _NAME_HINTS,
        rf"({_NAME}[\w-]{{0,30}}\s{{0,3}}:\s{{0,3}}){_WORD_AFTER_COLON}",
        rf"\1{MASK}",
        any_case=True,
    ),
)

_SECRET_KEY = re.compile(rf"(?:.*[_-])?(?:{_NAME}|authorization)", re.IGNORECASE)


# Distinguishes a real password from an ordinary word after ``password=``.
_LIKE_A_PASSWORD = re.compile(r"(?=.*\d).{6,}|.{12,}", re.DOTALL)
_QUERY_SECRET = re.compile(
    r"([?&;#][^=&;#]*(?:key|token|secret|pass|pwd|auth|sig|credential)[^=&;#]*=)[^&;#]*", re.IGNORECASE
)


def without_password(url: str) -> str:
    """Return a URL that is safe to show: user, password and values of key-like parameters are masked.

    Args:
        url: A URL and nothing else; use ``redact`` for running text.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    user, at, host = rest.rpartition("@")
    # An @ after a slash may belong to a path, unless a colon before it indicates a password.
    if at and (":" in user or not any(sign in user for sign in "/?#")):
        rest = f"{MASK}@{host}"
    return redact(scheme + separator + _QUERY_SECRET.sub(rf"\1{MASK}", rest))


def secrets_in(text: str) -> frozenset[str]:
    """Return the secrets that ``redact`` masks in a text, but no ordinary words after ``password=``."""
    found: set[str] = set()
    lowered = text.lower()
    for rule in _RULES:
        if any(hint in lowered for hint in rule.hints):
            for match in rule.pattern.finditer(text):
                kept = match.expand(rule.replacement.removesuffix(MASK))
                # Punctuation at the end of a sentence is not part of the secret.
                found.add(match[0][len(kept) :].rstrip(".,;:!?)"))
    return frozenset(secret for secret in found if _LIKE_A_PASSWORD.fullmatch(secret) and MASK not in secret)


def without_secrets(value: JSON, secrets: Collection[str]) -> JSON:
    """Return ``value`` with these secrets masked in its strings, wherever they occur as whole words."""
    if not secrets:
        return value
    longest_first = sorted(secrets, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
    return _without(value, pattern)


def _without(value: JSON, pattern: re.Pattern[str]) -> JSON:
    if isinstance(value, str):
        return pattern.sub(MASK, value)
    if isinstance(value, list):
        return [_without(item, pattern) for item in value]
    if isinstance(value, dict):
        return {pattern.sub(MASK, key): _without(item, pattern) for key, item in value.items()}
    return value


def redact(text: str) -> str:
    """Replace every recognized secret in a text by ``[redacted]``."""
    return _redacted_short(text) if len(text) <= _SHORT else _redacted(text)


@lru_cache(maxsize=1_024)
def _redacted_short(text: str) -> str:
    # The steps of an answer repeat the same passages many times.
    return _redacted(text)


def _redacted(text: str) -> str:
    lowered = text.lower()
    for rule in _RULES:
        # Searching for a plain word is a hundred times cheaper than the pattern, and most texts contain none.
        if any(hint in lowered for hint in rule.hints):
            text = rule.pattern.sub(rule.replacement, text)
    return text


def redact_json(value: JSON) -> JSON:
    """Redact all strings in a JSON value; values of keys such as ``password`` are masked completely."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [redact_json(item) for item in value]
    if isinstance(value, dict):
        return {
            key: MASK if is_secret_key(key) and isinstance(item, str) and item else redact_json(item)
            for key, item in value.items()
        }
    return value


def is_secret_key(name: str) -> bool:
    """Whether a field of this name contains a secret: ``password``, ``OPENAI_API_KEY``, ``authorization``."""
    return _SECRET_KEY.fullmatch(name) is not None
