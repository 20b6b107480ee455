"""Follow-up questions and what people made of them so that they stand alone (CANARD's format)."""

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
# Dialogs are parted by their names: one in eight is only measured, another one in sixteen chooses.
PARTS, MEASURED, CHOOSING = 16, (0, 1), (2,)


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A question of a dialog.

    Attributes:
        about: What the dialog is about, outermost first.
        rewrite: The same question, as somebody made it stand alone.
    """

    about: tuple[str, ...]
    history: tuple[Turn, ...]
    question: str
    rewrite: str


def read_follow_ups(path: Path, part: str) -> list[FollowUp]:
    """The questions of a part of the dialogs: ``training``, ``choosing`` or ``measured``.

    Raises:
        TuningError: The file is missing or malformed.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return [_follow_up(each) for each in held if _part_of(each["QuAC_dialog_id"]) == part]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise TuningError(f"{path} cannot be read as follow-up questions: {error}.") from error


def writing_rows(follow_ups: list[FollowUp], seed: int, *, shipped: bool = False) -> Iterator[WritingRow]:
    """A prompt for each, worded as the one that ships or otherwise."""
    chance = random.Random(f"{seed} follow-ups")
    for each in follow_ups:
        yield writing_row(each, chance, shipped=shipped or chance.random() < wordings.SHIPPED)


def writing_row(follow_up: FollowUp, chance: random.Random, *, shipped: bool) -> WritingRow:
    """The prompt of one follow-up."""
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
            chance.choice(wordings.CONDENSE),
            f"Conversation:\n\n{history}\n\nLast question: {follow_up.question}",
        )
    return WritingRow("condense", texts, follow_up.rewrite)


def opening(follow_up: FollowUp) -> Turn:
    """A turn that names what the dialog is about: our own conversations have named it in a question."""
    title, *rest = follow_up.about
    return Turn(f"What about {title}?", " › ".join((title, *rest)))


def _follow_up(held: dict[str, object]) -> FollowUp:
    told = [str(each) for each in held["History"]]  # type: ignore[attr-defined]
    pairs = zip(told[2::2], told[3::2], strict=True)
    return FollowUp(
        (told[0], told[1]),
        tuple(Turn(question, answer) for question, answer in pairs),
        str(held["Question"]),
        str(held["Rewrite"]),
    )


def _part_of(dialog: str) -> str:
    at = zlib.crc32(dialog.encode()) % PARTS
    return "measured" if at in MEASURED else "choosing" if at in CHOOSING else "training"
