"""What is found in raw training data: lengths, duplicates, placeholders, languages, personal data, matches."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from finetune.prepared.base_tokens import BaseTokens
from finetune.prepared.examples import Example, Examples, of_group
from finetune.prepared.near_texts import near_groups
from finetune.prepared.placeholder_texts import placeholder_reasons
from finetune.prepared.preparation import duplicate_reasons, empty_reason
from finetune.prepared.text_languages import language_of
from finetune.prepared.text_rendering import Rendering
from rag.errors import TuningError
from rag.masking import EVERY_KIND, MARKS, Masker
from rag.tracing.figures import counted

# Rows of a list in a report; the counts are of all.
LISTED = 20
EXTREMES = 3
BARS = 12
EXCERPT = 120


class Found(BaseModel):
    """A part of the report."""

    model_config = ConfigDict(frozen=True)


class RowExcerpt(Found):
    """A row with the beginning of its texts, and why it is listed."""

    number: int
    prompt: str
    completion: str
    reason: str = ""


class Lengths(Found):
    """The distribution of a length.

    Attributes:
        what: ``prompt characters`` and the like.
        bars: Upper limits of classes of equal width, with their counts.
    """

    what: str
    shortest: int
    median: int
    mean: float
    p95: int
    longest: int
    total: int
    bars: tuple[tuple[int, int], ...]


class Listed(Found):
    """Rows with something in common: how many, and the first of them."""

    count: int = 0
    rows: tuple[RowExcerpt, ...] = ()


class Exploration(Found):
    """The report.

    Attributes:
        prompt, completion: The columns that were read; ``prompt`` is that of the conversations, if there are any.
        problems: Rows that cannot be used: number and reason.
        base: The model whose tokens are counted; empty for none, and ``no_tokens`` says why.
        window: Its context in tokens; None for no limit, or without a base.
        near_duplicates: Rows that are nearly the same as an earlier one, without the exact duplicates.
        too_long: Rows with more tokens than ``max_tokens``.
        matches: Rows that match what was searched for; None if nothing was.
        groups: Counts by the value of the column ``grouped_by``.
    """

    file: str
    unit: str
    rows: int
    columns: tuple[str, ...]
    prompt: str
    completion: str
    problems: tuple[tuple[int, str], ...]
    lengths: tuple[Lengths, ...]
    base: str = ""
    no_tokens: str = ""
    window: int | None = None
    max_tokens: int
    longest: tuple[RowExcerpt, ...]
    shortest: tuple[RowExcerpt, ...]
    empty: Listed
    placeholders: Listed
    placeholder_texts: tuple[tuple[str, int], ...]
    duplicates: Listed
    near_duplicates: Listed
    too_long: Listed
    personal: Listed
    languages: tuple[tuple[str, int], ...]
    matches: Listed | None = None
    grouped_by: str = ""
    groups: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Questions:
    """What to look for.

    Attributes:
        contains: A text, in any case.
        regex: A regular expression.
        group_by: A column; ``completion`` and ``prompt`` are columns, too.
        max_tokens: Tokens that a row may have.
    """

    contains: str = ""
    regex: str = ""
    group_by: str = ""
    max_tokens: int = 1024


def explore(found: Examples, questions: Questions, tokens: BaseTokens | None, no_tokens: str = "") -> Exploration:
    """Look at the examples of a file.

    Args:
        found: The examples.
        questions: What to look for.
        tokens: Counts tokens; None to count none.
        no_tokens: Why none are counted.

    Raises:
        TuningError: The regular expression is malformed, or there is no such column.
    """
    examples = found.examples
    matches = _matching(examples, questions)
    _check_group(found, questions.group_by)
    placeholders = placeholder_reasons([example.completion for example in examples])
    duplicates = duplicate_reasons(examples)
    parts = [tokens.parts(example, Rendering()) for example in examples] if tokens else []
    limit = min(questions.max_tokens, tokens.window) if tokens else questions.max_tokens
    tokens_of = [sum(part) for part in parts] or [0] * len(examples)
    long_reasons = [counted(size, "token") if size > limit else "" for size in tokens_of]
    ordered = sorted((example for example in examples if example.completion.strip()), key=_size)
    window = tokens.window if tokens else None
    return Exploration(
        file=str(found.table.path),
        unit=found.table.unit,
        rows=len(examples),
        columns=found.table.columns,
        prompt=found.columns.chat or found.columns.prompt,
        completion=found.columns.completion or found.columns.chat,
        problems=tuple((problem.number, problem.reason) for problem in found.problems),
        lengths=_lengths(examples, parts),
        base=tokens.base.name if tokens else "",
        no_tokens=no_tokens,
        window=window if isinstance(window, int) else None,
        max_tokens=int(limit),
        longest=tuple(
            _excerpt(example, counted(_size(example), "character")) for example in ordered[: -EXTREMES - 1 : -1]
        ),
        shortest=tuple(_excerpt(example, counted(_size(example), "character")) for example in ordered[:EXTREMES]),
        empty=_listed(examples, [empty_reason(example) for example in examples]),
        placeholders=_listed(examples, placeholders),
        placeholder_texts=tuple(
            Counter(
                example.completion.strip()[:EXCERPT]
                for example, reason in zip(examples, placeholders, strict=True)
                if reason
            ).most_common(LISTED)
        ),
        duplicates=_listed(examples, duplicates),
        near_duplicates=_listed(examples, _near_reasons(examples, duplicates, placeholders)),
        too_long=_listed(examples, long_reasons),
        personal=_listed(examples, [_personal_reason(example) for example in examples]),
        languages=tuple(Counter(language_of(example.completion) for example in examples).most_common()),
        matches=matches,
        grouped_by=questions.group_by,
        groups=_groups(found, questions.group_by),
    )


def _size(example: Example) -> int:
    return len(example.completion)


def _lengths(examples: Sequence[Example], parts: Sequence[tuple[int, int]]) -> tuple[Lengths, ...]:
    sizes = {
        "prompt characters": [len(example.prompt) for example in examples],
        "completion characters": [len(example.completion) for example in examples],
    }
    if parts:
        sizes["prompt tokens"] = [prompt for prompt, _ in parts]
        sizes["completion tokens"] = [completion for _, completion in parts]
    return tuple(lengths_of(what, values) for what, values in sizes.items())


def lengths_of(what: str, values: Sequence[int]) -> Lengths:
    """Return the distribution of at least one length."""
    ordered = sorted(values)
    width = max(-(-(ordered[-1] + 1) // BARS), 1)
    counts = Counter(value // width for value in ordered)
    return Lengths(
        what=what,
        shortest=ordered[0],
        median=ordered[len(ordered) // 2],
        mean=sum(ordered) / len(ordered),
        p95=ordered[min(int(0.95 * len(ordered)), len(ordered) - 1)],
        longest=ordered[-1],
        total=sum(ordered),
        bars=tuple(((number + 1) * width, counts[number]) for number in range(ordered[-1] // width + 1)),
    )


def _near_reasons(
    examples: Sequence[Example], duplicates: Sequence[str], placeholders: Sequence[str]
) -> list[str]:
    """Return for every row which earlier one is nearly the same in prompt or completion; empty for none."""
    reasons = [""] * len(examples)
    for what, texts in (
        ("prompt", [example.prompt for example in examples]),
        ("completion", [example.completion for example in examples]),
    ):
        for group in near_groups(texts):
            for other in group[1:]:
                if not (reasons[other] or duplicates[other] or placeholders[other]):
                    reasons[other] = f"{what} nearly that of row {examples[group[0]].number}"
    return reasons


def _personal_reason(example: Example) -> str:
    """Return the kinds of personal data and secrets in an example; empty without any."""
    texts = (*(turn.content for turn in example.turns), example.completion)
    masker = Masker(EVERY_KIND)
    masked = [(text, masker.text(text)) for text in texts]

    def found(mark: str) -> bool:
        return any(after.count(mark) > before.count(mark) for before, after in masked)

    return ", ".join(kind for kind, mark in MARKS.items() if found(mark))


def _listed(examples: Iterable[Example], reasons: Iterable[str]) -> Listed:
    found = [(example, reason) for example, reason in zip(examples, reasons, strict=True) if reason]
    return Listed(count=len(found), rows=tuple(_excerpt(example, reason) for example, reason in found[:LISTED]))


def _excerpt(example: Example, reason: str) -> RowExcerpt:
    return RowExcerpt(
        number=example.number, prompt=_short(example.prompt), completion=_short(example.completion), reason=reason
    )


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= EXCERPT else f"{plain[:EXCERPT]}…"


def _matching(examples: Sequence[Example], questions: Questions) -> Listed | None:
    tests: list[Callable[[str], bool]] = []
    if questions.contains:
        wanted = questions.contains.casefold()
        tests.append(lambda text: wanted in text.casefold())
    if questions.regex:
        try:
            pattern = re.compile(questions.regex)
        except re.error as error:
            raise TuningError(f"The regular expression {questions.regex} is malformed: {error}.") from error
        tests.append(lambda text: pattern.search(text) is not None)
    if not tests:
        return None
    reasons = []
    for example in examples:
        texts = {"prompt": example.prompt, "completion": example.completion}
        where = [name for name, text in texts.items() if all(test(text) for test in tests)]
        reasons.append(f"in the {' and the '.join(where)}" if where else "")
    return _listed(examples, reasons)


def _check_group(found: Examples, column: str) -> None:
    known = (*found.table.columns, "prompt", "completion")
    if column and column not in known:
        raise TuningError(
            f"{found.table.path} has no column {column} to group by; its columns are "
            f"{', '.join(found.table.columns[:20])}."
        )


def _groups(found: Examples, column: str) -> tuple[tuple[str, int], ...]:
    if not column:
        return ()
    if column in ("prompt", found.columns.prompt):
        counts = Counter(_short(example.prompt) for example in found.examples)
    elif column in ("completion", found.columns.completion):
        counts = Counter(_short(example.completion) for example in found.examples)
    else:
        counts = Counter(of_group(found.examples, column))
    return tuple(counts.most_common(LISTED))
