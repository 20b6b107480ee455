"""Follow-up questions and their standalone rewrites by people (CANARD format)."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune.data import wordings
from finetune.rows import WritingRow
from prompts import find_prompt
from rag.answering.steps import HISTORY
from rag.errors import TuningError
from rag.types import Turn

CANARD = Path("conversational/canard/dev.json")
# Dialogs are split by a hash of their id: two parts in sixteen for testing, one for model selection.
PARTS, MEASURED, CHOOSING = 16, (0, 1), (2,)


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A question of a dialog.

    Attributes:
        about: Topic of the dialog, outermost first.
        rewrite: The standalone form of the question, written by a person.
    """

    about: tuple[str, ...]
    history: tuple[Turn, ...]
    question: str
    rewrite: str


def read_follow_ups(path: Path, part: str) -> list[FollowUp]:
    """Read the questions of one split: ``training``, ``choosing`` or ``measured``.

    Raises:
        TuningError: The file is missing or malformed.
    """
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return [_follow_up(record) for record in records if _part_of(record["QuAC_dialog_id"]) == part]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise TuningError(f"{path} cannot be read as follow-up questions: {error}.") from error


def writing_rows(follow_ups: list[FollowUp], seed: int, *, shipped: bool = False) -> Iterator[WritingRow]:
    """Yield a training row per follow-up, some with the shipped prompt and some with another wording."""
    rng = random.Random(f"{seed} follow-ups")
    for follow_up in follow_ups:
        yield writing_row(follow_up, rng, shipped=shipped or rng.random() < wordings.SHIPPED)


def writing_row(follow_up: FollowUp, rng: random.Random, *, shipped: bool) -> WritingRow:
    """Return the training row of one follow-up."""
    prompt = find_prompt("condense")
    turns = [
        prompt.fragment("turn", {"question": turn.question, "answer": turn.answer})
        for turn in (opening(follow_up), *follow_up.history[1 - HISTORY :])
    ]
    history = "\n".join(turns)
    if shipped:
        texts = wordings.shipped_texts("condense", history=history, question=follow_up.question)
    else:
        texts = (
            rng.choice(wordings.CONDENSE),
            f"Conversation:\n\n{history}\n\nLast question: {follow_up.question}",
        )
    return WritingRow("condense", texts, follow_up.rewrite)


def opening(follow_up: FollowUp) -> Turn:
    """Return an opening turn that names the topic, as a question would in a real conversation."""
    title, *rest = follow_up.about
    return Turn(f"What about {title}?", " › ".join((title, *rest)))


def _follow_up(record: dict[str, object]) -> FollowUp:
    history = [str(text) for text in record["History"]]  # type: ignore[attr-defined]
    pairs = zip(history[2::2], history[3::2], strict=True)
    return FollowUp(
        (history[0], history[1]),
        tuple(Turn(question, answer) for question, answer in pairs),
        str(record["Question"]),
        str(record["Rewrite"]),
    )


def _part_of(dialog: str) -> str:
    at = zlib.crc32(dialog.encode()) % PARTS
    return "measured" if at in MEASURED else "choosing" if at in CHOOSING else "training"
