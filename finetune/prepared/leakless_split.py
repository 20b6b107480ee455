"""A split into training and validation rows that share no near-duplicates."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.prepared.examples import Example
from finetune.prepared.near_texts import Groups, join_near
from finetune.prepared.placeholder_texts import normalized
from rag.errors import TuningError


@dataclass(frozen=True, slots=True)
class Split:
    """Training and validation rows, each in the order of the file.

    Attributes:
        together: Rows that a near-duplicate in another row keeps on the same side.
    """

    training: tuple[Example, ...]
    validation: tuple[Example, ...]
    together: int = 0


def split_examples(examples: Sequence[Example], share: float, seed: int) -> Split:
    """Hold out a share of the rows for validation.

    Rows whose prompts or completions are the same, or nearly the same, are on the same side. The groups are drawn
    by a hash of the seed and their texts, so that neither the order of the rows nor new rows move the others.

    Args:
        examples: The rows.
        share: Share of the rows for validation, from 0 to 1.
        seed: Equal seeds give equal splits.

    Raises:
        TuningError: One of the sides would have no rows.
    """
    groups = _groups(examples)
    together = sum(len(group) for group in groups if len(group) > 1)
    wanted = round(share * len(examples)) if share else 0
    if share:
        wanted = max(wanted, 1)
    order = sorted(groups, key=lambda group: min(_draw(seed, examples[number]) for number in group))
    held_out: set[int] = set()
    for group in order:
        # A group that is larger than the rest of the share stays in training.
        if len(held_out) + len(group) <= wanted:
            held_out.update(group)
    if wanted and not held_out and len(groups) > 1:
        held_out.update(min((len(group), group) for group in groups)[1])
    if wanted and len(groups) == 1:
        count = len(examples)
        reason = f"all {count} rows are nearly the same" if count > 1 else "there is only one row"
        raise TuningError(
            f"There are no validation rows: {reason}.",
            fix="Add rows that differ, or prepare without validation rows with --validation 0.",
        )
    if len(held_out) == len(examples) > 0:
        raise TuningError(
            f"There are no training rows: the share {share:g} puts all {len(examples)} rows into validation.",
            fix="Lower --validation.",
        )
    return Split(
        tuple(example for number, example in enumerate(examples) if number not in held_out),
        tuple(example for number, example in enumerate(examples) if number in held_out),
        together,
    )


def _groups(examples: Sequence[Example]) -> list[list[int]]:
    groups = Groups(len(examples))
    first: dict[str, int] = {}
    for number, example in enumerate(examples):
        asked = normalized("\n".join(turn.content for turn in example.turns if turn.role != "system"))
        groups.join(first.setdefault(asked, number), number)
    join_near(groups, [example.prompt for example in examples])
    join_near(groups, [example.completion for example in examples])
    return groups.all()


def _draw(seed: int, example: Example) -> str:
    return hashlib.sha256(f"{seed}\n{example.prompt}\n{example.completion}".encode()).hexdigest()
