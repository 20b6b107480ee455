"""The labels of prompts: no label that ragsmith runs moves to a version that it cannot fill."""

from __future__ import annotations

from dataclasses import dataclass

from prompts import PRODUCTION, PromptLibrary, PromptTemplate
from prompts.lookalikes import lookalikes, warning_of
from rag.answering.prompt_filling import check_fillable, is_filled
from rag.errors import PromptError, prompt_errors


@dataclass(frozen=True, slots=True)
class PromptLabels:
    """Moves the labels of a library.

    Attributes:
        answer_prompt: Reference of the prompt for answers.
    """

    library: PromptLibrary
    answer_prompt: str

    def move(self, name: str, label: str, version: int | None, *, by: str, message: str) -> None:
        """Move a label to a version, or remove it; see ``PromptLibrary.move``.

        Raises:
            PromptError: There is no such version, the label is invalid, or ragsmith runs the label and cannot
                fill the version.
        """
        self.check(name, label, version)
        with prompt_errors():
            self.library.move(name, label, version, by=by, message=message)

    def check(self, name: str, label: str, version: int | None) -> None:
        """Check that ragsmith can fill a version if it runs this label.

        Args:
            version: None if the label is removed, which resets ``production`` to its default.

        Raises:
            PromptError: It cannot, or there is no such version.
        """
        if not is_filled(f"{name}@{label}", self.answer_prompt):
            return
        with prompt_errors():
            if version is None and label == PRODUCTION:
                version = self.library.default(name)
            if version is not None:
                check_fillable(self.library.find(f"{name}@{version}"))

    def warnings(self, prompt: PromptTemplate) -> list[str]:
        """Return what a person should know of a version that can be saved all the same, a sentence each."""
        found = warning_of(lookalikes(prompt))
        try:
            if is_filled(prompt.name, self.answer_prompt):
                with prompt_errors():
                    check_fillable(prompt.resolved(self.library.load))
        except PromptError as error:
            return [*filter(None, [found]), str(error)]
        return [found] if found else []
