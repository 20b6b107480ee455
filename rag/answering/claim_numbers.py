"""The numbers in a text, compared by value: 1,000 is 1000, and "two" is 2."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from math import prod

# Longer runs of digits are keys and not quantities.
_LONGEST_SCALED = 18
_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
_SHORT_SCALES = {"k": 10**3, "K": 10**3, "M": 10**6, "mn": 10**6, "bn": 10**9}
_ORDINALS = {
    "first": 1,
    "second": 2,
    "third": 3,
    "fifth": 5,
    "eighth": 8,
    "ninth": 9,
    "twelfth": 12,
    "hundredth": 100,
    "thousandth": 1000,
    **{f"{word}th": at for at, word in enumerate(_UNITS) if at in (4, 6, 7, 10, 11, *range(13, 20))},
    **{f"{word[:-1]}ieth": 20 + 10 * at for at, word in enumerate(_TENS)},
}
_SMALL = {
    **{word: at for at, word in enumerate(_UNITS)},
    **{word: 20 + 10 * at for at, word in enumerate(_TENS)},
    **_ORDINALS,
    "twice": 2,
    "thrice": 3,
}
_SCALE = "|".join(_SCALES)
_NAMED = "|".join(sorted((*_SMALL, *_SCALES), key=len, reverse=True))
_WORDS = re.compile(
    rf"\b(?:{_NAMED})\b(?:(?:[ -]|(?<=hundred) and |(?<=thousand) and )(?:{_NAMED})\b)*", re.IGNORECASE
)
_DIGITS = re.compile(
    r"(?P<sign>(?<![\w.)%-])-|\bminus )?"
    # Digits after a letter or a capital letter and a hyphen belong to a name: mp3, GPT-4.
    r"(?<!\w)(?<!(?-i:[A-Z])-)"
    r"(?:(?P<time>\d{1,2}:\d\d(?::\d\d)?(?!\d))"
    r"|(?P<grouped>\d{1,3}(?:,\d{3})+(?!,?\d)(?:\.\d+)?)"
    r"|(?P<spaced>\d{1,3}(?:[ ']\d{3})+(?!\d)(?:[.,]\d+)?)"
    r"|(?P<dotted>\d+(?:\.\d+){2,})"
    r"|(?P<decimal>\d+[.,]\d+)"
    r"|(?P<whole>\d+))"
    rf"(?P<suffix>[^\W\d_]+)?(?P<scale>(?: (?:{_SCALE})s?\b){{0,2}})",
    re.IGNORECASE,
)
_PERCENT = re.compile(r"[ -]?(?:%|per ?cent(?:age points?)?\b)", re.IGNORECASE)
_JOINED = re.compile(r" ?%? ?(?:-|to|and|or|,) ?", re.IGNORECASE)
_VAGUE = re.compile(r"\b(?:dozens|hundreds|thousands|millions|billions|trillions)\b", re.IGNORECASE)
_PRONOUN = re.compile(
    r"one(?='s\b|,| (?:of|another|or|and|such|can|could|may|might|must|should|is|was|has|who|that|which)\b|\W*$)"
    r"|(?<=\bno )one|(?<=\bthe )one|(?<=\bth[ia][st] )one|(?<=\beach )one|(?<=\bany )one|(?<=\bwhich )one",
    re.IGNORECASE,
)
_OF_ONE = re.compile(r"\b(?:an?|one|single|sole|only|once|each|every|per)\b", re.IGNORECASE)
_OF_ZERO = re.compile(r"\b(?:no|none|nothing|never|not)\b", re.IGNORECASE)
# Units with more than one name.
_UNIT_NAMES = (
    "metre metres meter meters m",
    "kilometre kilometres kilometer kilometers km",
    "centimetre centimetres centimeter centimeters cm",
    "millimetre millimetres millimeter millimeters mm",
    "mile miles mi",
    "foot feet ft",
    "inch inches",
    "gram grams g",
    "kilogram kilograms kg",
    "ton tons tonne tonnes",
    "pound pounds lb lbs £",
    "second seconds sec secs",
    "millisecond milliseconds ms",
    "minute minutes min mins",
    "hour hours h hr hrs",
    "day days",
    "week weeks",
    "month months",
    "year years yr yrs",
    "decade decades",
    "century centuries",
    "euro euros eur €",
    "dollar dollars usd $",
    "yen jpy ¥",
    "crown crowns",
    "cent cents",
    "degree degrees °",
    "litre litres liter liters l",
    "kilobyte kilobytes kb",
    "megabyte megabytes mb",
    "gigabyte gigabytes gb",
    "terabyte terabytes tb",
    "byte bytes",
    "watt watts w",
    "volt volts v",
)
_UNIT_OF = {name: group.split()[0] for group in _UNIT_NAMES for name in group.split()}
_AFTER = re.compile(r"[ -]?([^\W\d_]+\b|[€$£¥°])")
_UNIT_WORD = re.compile(r"[^\W\d_]+|[€$£¥°]")


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a folded text.

    Attributes:
        values: Its possible readings, in a form in which equal values are equal; a percentage ends in ``%``.
        parts: The values of the numbers that it may consist of: ``5,13`` may be a list.
        unit: Name of the unit of measure that it counts; empty without one.
    """

    text: str
    start: int
    end: int
    values: frozenset[str]
    parts: frozenset[str] = frozenset()
    unit: str = ""


class KnownNumbers:
    """The numbers that folded texts contain."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._values: set[str] = set()
        self._words: set[str] = set()
        self._units: set[str] = set()
        self._one = any(_OF_ONE.search(text) for text in texts)
        self._zero = any(_OF_ZERO.search(text) for text in texts)
        for text in texts:
            for number in numbers_in(text):
                self._values |= number.values | number.parts
            self._words |= {word.casefold() for word in re.findall(r"[^\W_]+", text)}
            self._units |= {_UNIT_OF.get(word.casefold(), "") for word in _UNIT_WORD.findall(text)}

    def missing_from(self, sentence: str) -> list[str]:
        """Return the numbers of a folded sentence that the texts do not contain."""
        missing = [number.text for number in numbers_in(sentence) if not self._has(number)]
        vague = (found[0] for found in _VAGUE.finditer(sentence))
        return missing + [word for word in vague if not {word.casefold(), word.casefold()[:-1]} & self._words]

    def _has(self, number: Number) -> bool:
        word = number.text.casefold()
        if (
            (word in _ORDINALS and word in self._words)
            or (word == "one" and self._one)
            or (word == "zero" and self._zero)
        ):
            return True
        known = bool(number.values & self._values) or bool(number.parts and number.parts <= self._values)
        return known and (not number.unit or number.unit in self._units)


def numbers_in(text: str) -> list[Number]:
    """Return the numbers of a folded text in order, except for those inside identifiers such as ``mp3``."""
    found = sorted((*_written_in_digits(text), *_written_in_words(text)), key=lambda number: number.start)
    numbers = [_with_unit(number, text) for number in found]
    for at in range(len(numbers) - 2, -1, -1):
        one, following = numbers[at], numbers[at + 1]
        between = text[one.end : following.start]
        if len(between) > _LONGEST_SCALED:
            continue
        percent = any(value.endswith("%") for value in following.values)
        if percent and _JOINED.fullmatch(between):
            # "Between 10 and 20 %": the first one is a percentage, too.
            values = frozenset(f"{value.rstrip('%')}%" for value in one.values)
            numbers[at] = replace(one, values=one.values | values)
        if between in ("-", "/") and len(one.text) == 4 and len(following.text) == 2:
            year = frozenset(one.text[:2] + value for value in following.values)
            numbers[at + 1] = replace(following, values=following.values | year)
    return numbers


def without_numbers(text: str) -> str:
    """Return a folded text without its numbers."""
    ends = [(number.start, number.end) for number in numbers_in(text)]
    starts = [0, *(end for _, end in ends)]
    return " ".join(text[at:start] for at, (start, _) in zip(starts, [*ends, (len(text), 0)], strict=True))


def _written_in_digits(text: str) -> Iterator[Number]:
    for found in _DIGITS.finditer(text):
        values, parts = _readings(found)
        end = found.start("suffix") if found["suffix"] else found.start("scale")
        if scales := found["scale"].casefold().split():
            factor = prod(_SCALES[scale.removesuffix("s")] for scale in scales)
            values, parts = {_scaled(value, factor) for value in values}, set()
            end = found.end()
        elif found["suffix"] in _SHORT_SCALES:
            values |= {_scaled(value, _SHORT_SCALES[found["suffix"]]) for value in values}
        sign = "-" if found["sign"] else ""
        yield Number(found[0], found.start(), end, frozenset(sign + value for value in values), frozenset(parts))


def _readings(found: re.Match[str]) -> tuple[set[str], set[str]]:
    """Return the values of digits, and those of their parts if they may be several numbers."""
    if found["time"]:
        hours, minutes, *_ = found["time"].split(":")
        values = {":".join((_plain(hours), *found["time"].split(":")[1:]))}
        return values | ({_plain(hours)} if minutes == "00" else set()), set()
    if found["grouped"]:
        return {_plain(found["grouped"].replace(",", ""))}, set()
    if found["spaced"]:
        groups = re.split(r"[ ']", found["spaced"])
        return {_plain("".join(groups).replace(",", "."))}, {_plain(group.replace(",", ".")) for group in groups}
    if found["dotted"]:
        parts = found["dotted"].split(".")
        values = {found["dotted"]}
        if len(parts[0]) <= 3 and all(len(part) == 3 for part in parts[1:]):
            values.add(_plain("".join(parts)))
        return values, {_plain(part) for part in parts} if len(parts[-1]) == 4 else set()
    if found["decimal"]:
        before, after = re.split(r"[.,]", found["decimal"])
        values = {_plain(f"{before}.{after}")}
        if "." in found["decimal"]:
            return values | ({_plain(before + after)} if len(after) == 3 and len(before) <= 3 else set()), set()
        return values, {_plain(before), _plain(after)}
    return {_plain(found["whole"])}, set()


def _plain(digits: str) -> str:
    """Return digits without leading zeros and an empty fraction; 3.10 stays, because it may be a version."""
    before, _, after = digits.partition(".")
    return (before.lstrip("0") or "0") + (f".{after}" if after.strip("0") else "")


def _scaled(value: str, factor: int) -> str:
    if len(value) > _LONGEST_SCALED or value.count(".") > 1 or ":" in value:
        return value
    text = format(Decimal(value) * factor, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _written_in_words(text: str) -> Iterator[Number]:
    for found in _WORDS.finditer(text):
        if found[0].casefold() == "one" and _PRONOUN.match(text, found.start()):
            continue
        if found[0].casefold() in _SCALES and re.search(r"\d *$", text[max(0, found.start() - 4) : found.start()]):
            # It belongs to the digits before it.
            continue
        for value in _values_of(found[0]):
            yield Number(found[0], found.start(), found.end(), frozenset({str(value)}))


def _values_of(words: str) -> Iterator[int]:
    """Yield the values of number words; those that do not combine are numbers of their own."""
    total, current = 0, 0
    last, smallest_scale = 0, 0
    for word in re.findall(r"[a-z]+", words.casefold().replace(" and ", " ")):
        value = _SCALES.get(word, 0) or _SMALL[word]
        if word not in _SCALES:
            combines = not last or last >= 100 or (20 <= last < 100 and 0 < value < 10)
        elif value < 1000:
            combines = current < value
        else:
            combines = not smallest_scale or value < smallest_scale
        if not combines:
            yield total + current
            total, current, smallest_scale = 0, 0, 0
        if word not in _SCALES:
            current += value
        elif value < 1000:
            current = max(current, 1) * value
        else:
            total, current, smallest_scale = total + max(current, 1) * value, 0, value
        last = value
    yield total + current


def _with_unit(number: Number, text: str) -> Number:
    """Add a percent sign and a unit to a number."""
    if percent := _PERCENT.match(text, number.end):
        values = frozenset(f"{value}%" for value in number.values)
        text = text[number.start : percent.end()]
        return replace(number, text=text, end=percent.end(), values=values, parts=frozenset())
    after = _AFTER.match(text, number.end)
    unit = _UNIT_OF.get(after[1].casefold(), "") if after and after[0] not in _SHORT_SCALES else ""
    before = text[number.start - 1 : number.start] if number.start else ""
    return replace(number, unit=unit or (_UNIT_OF.get(before, "") if before in "€$£¥" else ""))
