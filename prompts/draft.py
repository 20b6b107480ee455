"""Unsaved drafts of prompts, which can be tried out before they become versions."""

from __future__ import annotations

from prompts.files import as_draft, parse_draft
from prompts.template import PromptTemplate

MARK = "draft-"
"""What is in place of the version in the label of a draft; the hash of its content follows."""


class PromptDraft(PromptTemplate):
    """A prompt that was not saved: its label has a hash in place of a version, and no library finds it."""

    @property
    def label(self) -> str:
        """``NAME@draft-HASH``, with eight hexadecimal digits."""
        return f"{self.name}@{MARK}{self.sha256[:8]}"

    @property
    def text(self) -> str:
        """The editable YAML."""
        return as_draft(self)


def read_draft(text: str, name: str) -> PromptDraft:
    """Parse a draft; a name or version in the text is ignored.

    Raises:
        PromptTemplateError: The text is not a prompt.
    """
    return PromptDraft.model_validate(parse_draft(text, name, 1).model_dump())


def is_draft(label: str) -> bool:
    """Whether a label in a trace is that of a draft."""
    return label.partition("@")[2].startswith(MARK)
