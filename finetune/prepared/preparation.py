"""Preparing examples: the steps of a plan, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from finetune.prepared.examples import Example
from finetune.prepared.near_texts import near_groups
from finetune.prepared.placeholder_texts import placeholder_reasons
from finetune.prepared.preparation_plan import Plan, StepName, StepReport
from finetune.prepared.text_rendering import Rendering
from rag.errors import TuningError
from rag.masking import EVERY_KIND, Masker

# Counts the tokens of an example as it is trained on.
TokenCounter = Callable[[Example, Rendering], int]
# Characters of an example in a report.
SHOWN = 240


@dataclass(frozen=True, slots=True)
class Prepared:
    """Prepared examples, not yet rendered, and what each step did."""

    examples: tuple[Example, ...]
    steps: tuple[StepReport, ...]


def prepare_examples(examples: Sequence[Example], plan: Plan, count_tokens: TokenCounter | None) -> Prepared:
    """Apply the steps of a plan.

    Args:
        examples: The examples.
        plan: Names the steps.
        count_tokens: Counts tokens for the step ``drop-long``; None if there is no model.

    Raises:
        TuningError: The steps drop every row, or ``drop-long`` has no model to count tokens with.
    """
    kept = tuple(examples)
    reports: list[StepReport] = []
    # A prompt and a completion one after the other, all of it learnt; the steps that render add to it.
    shown = Rendering(form="plain", mask=False)
    for name in plan.steps:
        if name in _CHANGES:
            kept, report = _changed(name, kept)
        elif name.startswith("drop-"):
            reasons = _reasons_to_drop(name, kept, plan, count_tokens)
            kept, report = _dropped(name, kept, reasons)
        else:
            shown, report = _rendered(name, kept, plan, shown)
        reports.append(report)
        if not kept:
            raise TuningError(
                f"The step {name} drops the last of the rows: {report.after}.",
                fix=f"Leave it out with --without {name}, or look at the data with `ragsmith data explore`.",
            )
    return Prepared(kept, tuple(reports))


def _changed(name: StepName, examples: tuple[Example, ...]) -> tuple[tuple[Example, ...], StepReport]:
    change = _CHANGES[name]
    after = tuple(
        replace(
            example,
            turns=tuple(turn.model_copy(update={"content": change(turn.content)}) for turn in example.turns),
            completion=change(example.completion),
        )
        for example in examples
    )
    pairs = [(one, other) for one, other in zip(examples, after, strict=True) if one != other]
    report = StepReport(name=name, touched=len(pairs), left=len(after))
    if pairs:
        before, changed = pairs[0]
        texts = next(
            (one, other)
            for one, other in (
                *((one.content, other.content) for one, other in zip(before.turns, changed.turns, strict=True)),
                (before.completion, changed.completion),
            )
            if one != other
        )
        report = report.model_copy(
            update={"row": before.number, "before": shortened(texts[0]), "after": shortened(texts[1])}
        )
    return after, report


_CHANGES: dict[StepName, Callable[[str], str]] = {"trim": str.strip, "redact": Masker(EVERY_KIND).text}


def _reasons_to_drop(
    name: StepName, examples: Sequence[Example], plan: Plan, count_tokens: TokenCounter | None
) -> list[str]:
    """Return for every example why the step drops it; empty for those that stay."""
    if name == "drop-empty":
        return [empty_reason(example) for example in examples]
    if name == "drop-placeholders":
        return placeholder_reasons([example.completion for example in examples])
    if name == "drop-duplicates":
        return duplicate_reasons(examples)
    if name == "drop-near-duplicates":
        reasons = [""] * len(examples)
        for group in near_groups([f"{example.prompt}\n{example.completion}" for example in examples]):
            for other in group[1:]:
                reasons[other] = f"nearly the same as row {examples[group[0]].number}"
        return reasons
    if count_tokens is None:
        raise TuningError(
            "The step drop-long needs a base model to count tokens with.",
            fix="Name one with --base, or leave the step out with --without drop-long.",
        )
    counts = (count_tokens(example, plan.rendering) for example in examples)
    return [f"{count:,} tokens, and {plan.max_tokens:,} are allowed" if count > plan.max_tokens else ""
            for count in counts]  # fmt: skip


def empty_reason(example: Example) -> str:
    """Return what is missing in an example; empty if nothing is."""
    if not example.completion.strip():
        return "the completion is empty"
    return "" if all(turn.content.strip() for turn in example.turns) else "the prompt is empty"


def duplicate_reasons(examples: Sequence[Example]) -> list[str]:
    """Return for every example which earlier one it repeats, apart from case and white space; empty for none."""
    first: dict[tuple[str, ...], int] = {}
    reasons = []
    for example in examples:
        key = tuple(" ".join(text.casefold().split()) for text in _texts(example))
        number = first.setdefault(key, example.number)
        reasons.append("" if number == example.number else f"the same as row {number}")
    return reasons


def _texts(example: Example) -> tuple[str, ...]:
    return (*(f"{turn.role}: {turn.content}" for turn in example.turns), example.completion)


def _dropped(
    name: StepName, examples: tuple[Example, ...], reasons: Sequence[str]
) -> tuple[tuple[Example, ...], StepReport]:
    kept = tuple(example for example, reason in zip(examples, reasons, strict=True) if not reason)
    found = [(example, reason) for example, reason in zip(examples, reasons, strict=True) if reason]
    report = StepReport(
        name=name,
        touched=len(found),
        left=len(kept),
        drops=True,
        dropped=tuple(example.number for example, _ in found),
    )
    if found:
        example, reason = found[0]
        before = f"{shortened(example.prompt, SHOWN // 2)} → {shortened(example.completion, SHOWN // 2)}"
        report = report.model_copy(update={"row": example.number, "before": before, "after": reason})
    return kept, report


def _rendered(
    name: StepName, examples: tuple[Example, ...], plan: Plan, before: Rendering
) -> tuple[Rendering, StepReport]:
    """Return the rendering with one more step, and its effect on the first example."""
    fields = {
        "chat": ("form", "system"),
        "separator": ("separator",),
        "end": ("end",),
        "space": ("space",),
        "mask": ("mask",),
    }
    wanted = {field: getattr(plan.rendering, field) for field in fields[name]}
    after = before.model_copy(update=wanted)
    one, other = (_shown(rendering, examples[0], brackets=name == "mask") for rendering in (before, after))
    report = StepReport(
        name=name, touched=len(examples), left=len(examples), row=examples[0].number, before=one, after=other
    )
    return after, report


def _shown(rendering: Rendering, example: Example, *, brackets: bool) -> str:
    """Return an example as text, with what is not learnt in brackets if they are wanted."""
    prompt, completion = (shortened(text, SHOWN // 2) for text in rendering.preview(example))
    return f"⟦{prompt}⟧{completion}" if brackets and rendering.mask else prompt + completion


def shortened(text: str, most: int = SHOWN) -> str:
    """Return a text without its middle if it is long; both ends matter to separators and spaces."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} … {text[-most // 2 :]}"
