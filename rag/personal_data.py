"""Recognition of personal data in text: e-mail addresses, phone numbers, payment cards, IBANs and IP addresses.

Forms are matched by regular expressions that take linear time, and check digits are verified. What has no check
digits and no typical form, such as ``467 3395``, is a phone number only near a word such as ``phone`` or ``call``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from rag.types import MaskedKind

_SHORTEST_IBAN = 15
_GROUPED_CARD = len("0000 0000 0000 0000")
_IPV6_COLONS = 7
_BLANK = "\ufffc"

REACH = 40
"""Maximum characters between a word such as ``call`` and a number that is a phone number because of it."""

_ANY = re.compile(r"[@\d]")
# Every repetition is bounded, or possessive and tried at one place of a run only. A mark prevents what the value
# in its place has prevented, so that masking twice changes nothing more. A look-ahead and a reference to it stand
# for a possessive group, which Python 3.11.2 matches wrongly.
_ADDRESS = re.compile(r"[\w.+%-]++(?:'[\w.+%-]++){0,2}@([\w-]++(?:\.[\w-]++)*)")
_EMAIL = re.compile(rf"(?<![\w.+%-]){_ADDRESS.pattern}")
_TOP_LEVEL = re.compile(r"[^\W\d_]{2,63}|xn--[\w-]{2,59}", re.IGNORECASE)
_IBAN = re.compile(
    r"(?<!\w)[a-z]{2}\d{2}(?:[a-z0-9]{11,30}+"
    r"|(?=(?P<blocks>(?:[ \u00a0-][a-z0-9]{4}){2,7}(?:[ \u00a0-][a-z0-9]{1,3})?))(?P=blocks))(?!\w)",
    re.IGNORECASE | re.ASCII,
)
_CARD = re.compile(
    r"(?<![\w.])(?<![\w\]]-)"
    r"(?:[2-6]\d{11,18}+|1800\d{11}|3\d{3}([ \u00a0-])\d{6}\1\d{4,5}"
    r"|[2-6]\d{3}([ \u00a0-])\d{4}\2\d{4}\2\d{4}(?:\2\d{3}(?!\d))?)"
    r"(?!\d)(?!-?[a-z_])",
    re.IGNORECASE | re.ASCII,
)
# The ranges of the networks by their first digits; numbers of 12 digits exist only for Maestro.
_CARD_NETWORK = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[0678]\d{10,17}|5[1-5]\d{14}|6\d{11,18}|2[2-7]\d{14}|3[04-9]\d{12,17}|(?:1800|2131)\d{11}"
)
_IPV4 = re.compile(r"(?<![\w.])(?<!::)\d{1,3}(?:\.\d{1,3}){3}(?![\w])(?!\.\d)", re.ASCII)
_VERSION_BEFORE = re.compile(r"(?:\b(?:versions?|release|section|chapter|build)[ :=v]{0,3}|\bv)$", re.IGNORECASE)
_IPV6 = re.compile(
    r"(?<![\w:.])(?<!\[ip\])(?:[0-9a-f]{0,4}:){2,8}(?:[0-9a-f]{0,4}+|(?:\d{1,3}\.){3}\d{1,3})"
    r"(?!\w|[.:]\w|:?\[ip\])",
    re.IGNORECASE | re.ASCII,
)
_IPV6_START = re.compile(r"[0-9a-f]{4}:|::ffff:", re.IGNORECASE)

_EXTENSION = r"(?:[ ]?(?:x|ext\.?)[ ]?\d{1,6})"
_PHONE = re.compile(
    r"(?<![\w.:/@#$€£%=+-])(?<!\d[ \u00a0(])(?<!\[phone\])(?<!\[phone\].)"
    r"(?P<number>\+?(?:\(\d{1,5}\)|\d)"
    r"(?=(?P<digits>(?:(?:[ ]-[ ]|[ \u00a0./-])?(?:\(\d{1,5}\)|\d)){6,15}))(?P=digits))"
    rf"(?P<extension>{_EXTENSION}?)(?![\w@%])(?![ \u00a0.:/-]?(?:\d|\[phone\]))",
    re.ASCII,
)
_PHONE_FORM = re.compile(
    # International.
    r"\+[1-9]\d{0,2}.*|00\d{1,3}[ .-].*"
    # North American: 541-714-1388, (541) 714-1388, 1-541-714-1388.
    r"|(?:1[ .-])?(?:\d{3}[ .-]|\(\d{3}\)[ ]?)\d{3}[ .-]\d{4}"
    # With a trunk prefix: 0494 92 82 32, (08) 8747 6301.
    r"|(?=(?:\D*\d){9})(?:0\d{1,5}[ ./-]|\(0\d{0,4}\)[ ]?|0\d{1,4}/)\d[\d .-]*"
)
_LOOSE_FORM = re.compile(r"\(?\d[\d\u00a0 ()]*(?:-[\d\u00a0 ()]+)*|\d{2,4}(?:\.\d{2,4}){2,4}")
# Dates, and the social security numbers of the United States.
_NO_PHONE = re.compile(
    r"\d{4}([-./])\d{1,2}\1\d{1,2}(?!\d).*|\d{1,2}([-./])\d{1,2}\2\d{4}(?!\d).*|\d{3}-\d{2}-\d{4}"
)
_PHONE_WORD = re.compile(
    r"(?<![\w\[])(?:(?:tele|cell|mobile[ -]?)?phones?|tel|mobile|cell|(?:tele)?fax|sms|whatsapp|hotline"
    r"|contact|ring|call(?:ed|ing|s)?|dial(?:led|ing)?|reach(?:ed)?|answering"
    r"|messages?[ ]to|(?:desk|office|home|work)(?=:)"
    r"|text(?:ed)?(?=[ ](?:me|us|him|her|them)\b))(?!\w)",
    re.IGNORECASE,
)
_PHONE_WORD_AFTER = re.compile(
    r"[ ,(-]{1,3}(?:(?:tele)?phone|tel|mobile|cell|(?:tele)?fax|office|home|work)(?!\w)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Found:
    """Personal data in a text.

    Attributes:
        start: Offset of the first character.
        end: Offset past the last character.
        near: Whether it is a phone number only if a word such as ``call`` is at most ``REACH`` characters before.
    """

    start: int
    end: int
    kind: MaskedKind
    near: bool = False


def personal_data(text: str) -> tuple[list[Found], list[int]]:
    """Find personal data, whose parts do not overlap.

    Returns:
        What was found, in order, with every number that may be a phone number because of a word before it; and the
        ends of those words, in order. Which of these numbers are near a word depends on what is masked between.
    """
    if not _ANY.search(text):
        return [], []
    found: list[Found] = []
    rest = text
    for finder in (_ibans, _cards, _emails, _ipv6, _ipv4, _phones):
        if here := sorted(finder(rest), key=_start):
            found += here
            rest = _blanked(rest, here)
    found.sort(key=_start)
    words = [match.end() for match in _PHONE_WORD.finditer(rest)] if any(one.near for one in found) else []
    return found, words


def _start(one: Found) -> int:
    return one.start


def _blanked(text: str, found: Sequence[Found]) -> str:
    """Replace what was found by characters that no pattern matches, like the mark that it may become."""
    parts, at = [], 0
    for one in found:
        parts += [text[at : one.start], _BLANK * (one.end - one.start)]
        at = one.end
    return "".join([*parts, text[at:]])


def _emails(text: str) -> Iterator[Found]:
    if "@" not in text:
        return
    at = 0
    # After an address, another one may follow without a space.
    while match := _ADDRESS.match(text, at) or _EMAIL.search(text, at):
        labels = match[1].split(".")
        if len(labels) > 1 and _TOP_LEVEL.fullmatch(labels[-1]):
            yield Found(match.start(), match.end(), "email")
            at = match.end()
        else:
            # What follows the sign may be the beginning of an address.
            at = match.start(1)


def _ibans(text: str) -> Iterator[Found]:
    from stdnum import iban

    at = 0
    while match := _IBAN.search(text, at):
        at, end = match.start() + 1, match.end()
        # A word after a number in groups of four looks like a group of it.
        while end - match.start() >= _SHORTEST_IBAN:
            if iban.is_valid(text[match.start() : end]):
                yield Found(match.start(), end, "iban")
                at = end
                break
            end = max(text.rfind(mark, match.start(), end) for mark in " \u00a0-")


def _cards(text: str) -> Iterator[Found]:
    from stdnum import luhn

    at = 0
    while match := _CARD.search(text, at):
        at = match.end()
        # Three digits after a number in groups are part of the number, or the code beside it.
        for length in dict.fromkeys((len(match[0]), min(len(match[0]), _GROUPED_CARD))):
            digits = "".join(filter(str.isdigit, match[0][:length]))
            if _CARD_NETWORK.fullmatch(digits) and luhn.is_valid(digits):
                at = match.start() + length
                yield Found(match.start(), at, "card")
                break


def _ipv6(text: str) -> Iterator[Found]:
    if "::" in text or text.count(":") >= _IPV6_COLONS:
        for match in _IPV6.finditer(text):
            # The colons at the end are those of the sentence, or of a network such as ``2001:db8::/32``.
            is_network = match[0].endswith("::") and text.startswith("/", match.end())
            address = match[0] if is_network else match[0].rstrip(":")
            is_typical = _IPV6_START.match(address) or address.count(":") == _IPV6_COLONS
            if is_typical and _is_of_one_machine(address):
                yield Found(match.start(), match.start() + len(address), "ip")


def _ipv4(text: str) -> Iterator[Found]:
    for match in _IPV4.finditer(text):
        before = text[max(match.start() - 12, 0) : match.start()]
        if _is_of_one_machine(match[0]) and not _VERSION_BEFORE.search(before):
            yield Found(match.start(), match.end(), "ip")


def _is_of_one_machine(address: str) -> bool:
    """Whether this is an address of one machine, and not the same on all of them."""
    try:
        read = IPv6Address(address) if ":" in address else IPv4Address(address)
    except AddressValueError:
        return False
    return not (read.is_loopback or read.is_unspecified)


def _phones(text: str) -> Iterator[Found]:
    for match in _PHONE.finditer(text):
        number, extension = match["number"], match["extension"]
        digits = sum(letter.isdigit() for letter in number)
        if _NO_PHONE.fullmatch(number) or not 7 <= digits <= 15:
            continue
        follows = _PHONE_WORD_AFTER.match(text, match.end())
        if _PHONE_FORM.fullmatch(number) or extension or (follows and _LOOSE_FORM.fullmatch(number)):
            yield Found(match.start(), match.end(), "phone")
        elif _LOOSE_FORM.fullmatch(number):
            yield Found(match.start(), match.end(), "phone", near=True)
