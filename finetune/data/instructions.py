"""General instructions with replies (Dolly), so that a model keeps following them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rag.errors import TuningError

DOLLY = Path("instruct/dolly_hhrlhf_train_small.jsonl")
LONGEST_INSTRUCTION, LONGEST_REPLY = 300, 500
# One in this many instructions is never trained on, to measure what a model has forgotten.
HELD_OUT = 3
_BEFORE, _AFTER = "### Instruction:", "### Response:"


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction and the reply to it."""

    text: str
    reply: str

    @property
    def held_out(self) -> bool:
        """Whether it must not be trained on."""
        return int(hashlib.sha256(self.text.encode()).hexdigest(), 16) % HELD_OUT == 0


def read_instructions(path: Path) -> Iterator[Instruction]:
    """Yield the short instructions of a file; those of this selection have no context.

    Raises:
        TuningError: The file is missing or malformed.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                text = record["prompt"].split(_BEFORE)[1].split(_AFTER)[0].strip()
                reply = record["response"].strip()
                if reply and len(text) <= LONGEST_INSTRUCTION and len(reply) <= LONGEST_REPLY:
                    yield Instruction(text, reply)
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise TuningError(f"{path} cannot be read as instructions with replies: {error}.") from error
