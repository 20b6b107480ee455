"""Raw and prepared data as HTML. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from finetune.prepared.data_versions import DataVersion
from finetune.prepared.exploration import Exploration
from finetune.prepared.preparation_plan import DESCRIPTIONS, STEPS, StepReport
from rag.tracing.figures import counted
from ui.pages.safe_markup import fragment

# Steps of the other form.
_OTHERS = {"chat": ("separator", "end", "space"), "plain": ("chat",)}
BAR_HEIGHT = 34


def step_choices(form: str) -> list[tuple[str, str]]:
    """Return the steps of a form with their descriptions; the end has a field of its own."""
    return [(DESCRIPTIONS[name], name) for name in STEPS if name not in _OTHERS[form] and name != "end"]


def exploration_html(found: Exploration, name: str) -> str:
    """Render what is in a file, with what is conspicuous first."""
    groups = (
        (
            "Cannot be used",
            len(found.problems),
            tuple((number, reason, "", "") for number, reason in found.problems[:20]),
        ),
        *(
            (
                title,
                listed.count,
                tuple((row.number, row.reason, row.prompt, row.completion) for row in listed.rows),
            )
            for title, listed in (
                ("Empty", found.empty),
                ("Placeholders", found.placeholders),
                ("Exact duplicates", found.duplicates),
                ("Near duplicates", found.near_duplicates),
                (f"Over {found.max_tokens:,} tokens", found.too_long),
                ("With personal data or secrets", found.personal),
            )
        ),
    )
    return fragment(
        "tune_exploration.html.jinja",
        found=found,
        name=name,
        groups=groups,
        lengths=[(lengths, _bars([count for _, count in lengths.bars])) for lengths in found.lengths],
        height=BAR_HEIGHT,
    )


def _bars(counts: Sequence[int]) -> list[float]:
    most = max(counts)
    return [BAR_HEIGHT * count / most if count else 0.0 for count in counts]


def steps_html(head: str, first: int, steps: Sequence[StepReport], unit: str) -> str:
    """Render what each step did, with one row before and after it.

    Args:
        head: What came of it.
        first: Rows before the first step.
        steps: The steps.
        unit: What the numbers of the rows count.
    """
    return fragment(
        "tune_steps.html.jinja",
        head=head,
        first=first,
        steps=[(step, DESCRIPTIONS[step.name], _without_signs(step)) for step in steps],
        unit=unit,
    )


def _without_signs(step: StepReport) -> tuple[str, str]:
    """Return the texts before and after a step with visible line ends."""
    return step.before.replace("\n", "⏎"), step.after.replace("\n", "⏎")


def version_html(version: DataVersion) -> str:
    """Render a stored version with its steps."""
    head = (
        f"{version.label}: {counted(version.rows, 'row')} + {version.validation_rows:,} for validation, "
        f"from {version.source}"
    )
    first = version.steps[0] if version.steps else None
    before = first.left + (first.touched if first.drops else 0) if first else version.rows
    return steps_html(head, before, version.steps, version.unit)


def versions_html(versions: Sequence[DataVersion], chosen: str = "") -> str:
    """Render the newest versions of all prepared data as a table."""
    rows = [
        (version, datetime.fromtimestamp(version.created).astimezone().strftime("%Y-%m-%d %H:%M"))
        for version in versions
    ]
    return fragment("tune_versions.html.jinja", rows=rows, chosen=chosen)
