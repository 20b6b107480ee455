"""Is personal data recognised, and nothing else? Sentences with marked data, and technical documentation.

The recogniser was written with the sentences of even numbers in view; those of odd numbers are reported.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rag.masking import MARKS, Edit, Masker
from rag.types import MaskedKind
from tests.benchmarks.bench_report import Group, Row
from tests.benchmarks.plan import Plan

SENTENCES = "pii/presidio-synth_dataset_v2.json"
DOCUMENTS = ("docs/fastapi", "docs/peft", "docs/trl")
LABELS: dict[str, MaskedKind] = {
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "CREDIT_CARD": "card",
    "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip",
}
KINDS = tuple(LABELS.values())


@dataclass(frozen=True, slots=True)
class Counts:
    """Marked values, those that were masked as a whole, and what was masked beside them, by kind."""

    marked: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)


def run(plan: Plan) -> Iterator[Group]:
    """Measure; one group."""
    records = json.loads((plan.data / SENTENCES).read_text(encoding="utf-8"))
    counts = count(records[1::2])
    rows = [
        Row(
            f"{kind}: masked of {counts.marked[kind]}",
            f"{counts.masked[kind] / counts.marked[kind]:.1%}",
            compared=f"{counts.wrong[kind]} others masked",
        )
        for kind in KINDS
    ]
    started = time.perf_counter()
    size, masked = in_documents(plan.data)
    seconds = time.perf_counter() - started
    rows.append(
        Row(
            f"documentation of {size / 1e6:.1f} million characters: masked",
            ", ".join(f"{masked[kind]} {kind}" for kind in KINDS),
        )
    )
    rows.append(Row("million characters a second", f"{size / 1e6 / seconds:.1f}"))
    raw = {"marked": counts.marked, "masked": counts.masked, "wrong": counts.wrong, "documentation": masked}
    how = (
        f"{len(records[1::2]):,} sentences of odd numbers. Others are values that are not marked as that kind. "
        "The documentation has e-mail addresses and IP addresses, and no phone numbers, cards or IBANs."
    )
    yield Group("Masking of personal data", tuple(rows), how, {name: dict(value) for name, value in raw.items()})


def count(records: list[dict[str, object]]) -> Counts:
    """Compare what is masked in sentences with what is marked in them."""
    counts, masker = Counts(), Masker(KINDS)
    for record in records:
        edits = masker.edits(str(record["full_text"]))
        spans = [span for span in record["spans"] if span["entity_type"] in LABELS]  # type: ignore[attr-defined]
        wanted = [(LABELS[s["entity_type"]], s["start_position"], s["end_position"]) for s in spans]
        for kind, start, end in wanted:
            counts.marked[kind] += 1
            counts.masked[kind] += any(
                _is(edit, kind) and edit.start <= start and end <= edit.end for edit in edits
            )
        for kind in KINDS:
            places = [(start, end) for label, start, end in wanted if label == kind]
            own = [edit for edit in edits if _is(edit, kind)]
            counts.wrong[kind] += sum(
                not any(e.start < end and start < e.end for start, end in places) for e in own
            )
    return counts


def in_documents(data: Path) -> tuple[int, Counter[str]]:
    """Return the number of characters of the documentation, and what is masked in it by kind."""
    size, masked, masker = 0, Counter[str](), Masker(KINDS)
    for path in sorted(path for folder in DOCUMENTS for path in (data / folder).rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        size += len(text)
        edits = masker.edits(text)
        masked.update(kind for kind in KINDS for edit in edits if _is(edit, kind))
    return size, masked


def _is(edit: Edit, kind: MaskedKind) -> bool:
    return edit.mark == MARKS[kind]
