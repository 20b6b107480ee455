"""How prompts and completions become the text that a model reads and learns, in training and afterwards.

In the form ``chat``, the base's chat template renders the conversation. In the form ``plain``, a prompt is
followed by a separator, and a completion by an end: the form of base models without chat. A plain rendering is
itself a chat template, so an adapter brings it along, and serving renders the same bytes as training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from finetune.prepared.examples import Example
from prompts import Message
from rag.errors import TuningError
from rag.models.local.local_adapters import RENDERING

Form = Literal["chat", "plain"]
SEPARATOR = "\n\n###\n\n"


class Rendering(BaseModel):
    """A rendering; it is stored with the data version and with the adapter.

    Attributes:
        system: A message of the system before every conversation that has none; empty for none.
        separator: Text after the prompt, in the form ``plain``.
        end: Text after the completion, in the form ``plain``; the model's end token follows in any case.
        space: Whether completions begin with a space, in the form ``plain``, as words inside a text do.
        mask: Whether only the completion is learnt; otherwise the prompt is, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Form = "chat"
    system: str = ""
    separator: str = ""
    end: str = ""
    space: bool = False
    mask: bool = True

    @property
    def chat_template(self) -> str | None:
        """The chat template of the form ``plain``; None for that of the base."""
        if self.form == "chat":
            return None
        turn = "{{ message.content }}{% if not loop.last %}{{ '\\n\\n' }}{% endif %}"
        start = (
            f"{{% if add_generation_prompt %}}{_literal(self.separator)}{{% endif %}}" if self.separator else ""
        )
        return f"{{% for message in messages %}}{turn}{{% endfor %}}{start}"

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end a generated completion, in addition to the model's end token."""
        return (self.end,) if self.end else ()

    def turns(self, turns: tuple[Message, ...]) -> tuple[Message, ...]:
        """Return a conversation with the message of the system."""
        if not self.system or any(turn.role == "system" for turn in turns):
            return turns
        return (Message(role="system", content=self.system), *turns)

    def completion(self, text: str) -> str:
        """Return a completion as it is learnt, without the end token."""
        if self.form == "chat":
            return text
        space = " " if self.space and not text[:1].isspace() else ""
        return f"{space}{text}{self.end}"

    def preview(self, example: Example) -> tuple[str, str]:
        """Return the prompt and the completion of an example for people; in the form ``chat``, by role."""
        turns = self.turns(example.turns)
        if self.form == "plain":
            prompt = "\n\n".join(turn.content for turn in turns) + self.separator
        else:
            prompt = "".join(f"[{turn.role}] {turn.content}\n" for turn in turns) + "[assistant] "
        return prompt, self.completion(example.completion)


def read_rendering(data: Path) -> Rendering | None:
    """Return the rendering of a folder of prepared data, or of an adapter; None if it has none.

    Raises:
        TuningError: The file is damaged.
    """
    path = data / RENDERING
    try:
        return Rendering.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, ValidationError) as error:
        raise TuningError(f"The file {path} is damaged.", fix="Prepare the data again.") from error


def _literal(text: str) -> str:
    # Escapes of JSON are those of Jinja's string literals.
    return "{{ " + json.dumps(text, ensure_ascii=False) + " }}"
