"""Follow-up questions and their standalone rewrites by people (CANARD format)."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.rows import ChatRow
from prompts import PromptTemplate, find_prompt
from rag.answering.steps import HISTORY
from rag.errors import TuningError
from rag.types import Turn

CANARD = Path("conversational/canard/dev.json")
# Share of the rows that use the shipped prompt, and of the follow-ups that also give a standalone question.
SHIPPED, STANDALONE = 0.7, 0.15
WORDINGS = (
    "Rewrite the last question so that it can be understood without the conversation.",
    "Turn the last question into one that stands alone. Reply with the question only.",
    "Make the follow-up question complete: put names in the place of pronouns.",
)
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

    @property
    def conversation(self) -> tuple[Turn, ...]:
        """What the prompt shows: the opening, and the newest turns."""
        return (opening(self), *self.history[1 - HISTORY :])


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


def condense_rows(follow_ups: Sequence[FollowUp], seed: int) -> Iterator[ChatRow]:
    """Yield a row for each follow-up, and rows whose question already stands alone.

    Args:
        follow_ups: The follow-ups.
        seed: Decides the wordings and the conversations before standalone questions.
    """
    rng = random.Random(f"{seed} follow-ups")
    for follow_up in follow_ups:
        yield condense_row(follow_up.conversation, follow_up.question, follow_up.rewrite, worded_prompt(rng))
        if rng.random() < STANDALONE:
            other = rng.choice(follow_ups).rewrite
            yield condense_row(follow_up.conversation, other, other, worded_prompt(rng))


def condense_row(history: Sequence[Turn], question: str, rewrite: str, prompt: PromptTemplate) -> ChatRow:
    """Return a prompt as the chain fills it, and the question to learn."""
    turns = (prompt.fragment("turn", {"question": turn.question, "answer": turn.answer}) for turn in history)
    values = {"history": "\n".join(turns), "question": question}
    return ChatRow(prompt.render(values), rewrite)


def worded_prompt(rng: random.Random) -> PromptTemplate:
    """Return the shipped prompt, or the prompt in other words: who learns one wording follows no other."""
    prompt = find_prompt("condense")
    if rng.random() < SHIPPED:
        return prompt
    system = prompt.messages[0].model_copy(update={"content": rng.choice(WORDINGS)})
    return prompt.model_copy(update={"messages": (system, *prompt.messages[1:])})


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
