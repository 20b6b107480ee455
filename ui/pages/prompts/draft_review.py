"""The checks of a draft: whether it can be saved, what it changes, and what others saved in the meantime."""

from __future__ import annotations

from prompts import PromptTemplate
from prompts.diff import diff
from prompts.files import SKELETON, as_draft, parse_draft
from rag.errors import PromptError, RagsmithError, prompt_errors
from ui.app.prompt_labels import PromptLabels
from ui.pages.prompts.prompt_listing import PromptListing
from ui.pages.prompts.prompts_view import changes_html, moment, template_html
from ui.pages.safe_markup import fragment, note


class DraftReview:
    """Compares drafts with the versions of a library. A draft of a new prompt has an empty ``base``."""

    def __init__(self, listing: PromptListing, labels: PromptLabels) -> None:
        self._listing = listing
        self._labels = labels

    def parse(self, base: str | None, name: str | None, text: str) -> PromptTemplate:
        """Parse a draft and resolve its includes.

        Raises:
            PromptError: The draft cannot be saved as it is.
        """
        called = (base or "").partition("@")[0] or (name or "").strip()
        if not called:
            raise PromptError("The prompt must have a name.")
        with prompt_errors():
            draft = parse_draft(text, called, 1)
            draft.resolved(self._listing.library.load)
        return draft

    def is_changed(self, base: str, text: str | None) -> bool:
        """Whether a draft differs from the text that it began with."""
        if not text or (not base and text == SKELETON):
            return False
        try:
            return not base or text != as_draft(self._listing.load(base))
        except PromptError:
            # Its base was deleted; the draft is still worth keeping.
            return True

    def verdict_html(self, base: str | None, name: str | None, text: str) -> str:
        """Render whether a draft can be saved."""
        try:
            draft = self.parse(base, name, text)
        except RagsmithError as error:
            return problem_html(str(error))
        variables = ", ".join(draft.variables) or "none"
        text = f"This can be saved. Variables: {variables}."
        if not base and self._exists(draft):
            text += f" {draft.name} exists: this becomes its next version."
        return _verdict(text, good=True) + "".join(map(warning_html, self._labels.warnings(draft)))

    def changes_html(self, draft: PromptTemplate, base: str, newest: str) -> str:
        """Render what a draft changes, below the versions that were saved since it was begun.

        Args:
            newest: The newest version at that time, in digits.

        Returns:
            Empty where nothing differs from the base; the template where there is no base.
        """
        origin = self._origin(draft, base)
        if origin is None:
            return note(f"The first version of {draft.name}", "rs-head") + template_html(draft, ())
        changes = diff(origin, draft)
        if not changes:
            return ""
        return self._saved_since(origin.name, newest) + changes_html(changes, origin.label, "the draft")

    def next_version(self, draft: PromptTemplate) -> str:
        """Return the label that a draft is saved under, unless others save first."""
        number = self._listing.versions(draft.name)[0] + 1 if self._exists(draft) else 1
        return f"{draft.name}@{number}"

    def _exists(self, draft: PromptTemplate) -> bool:
        return draft.name in self._listing.library.names()

    def _origin(self, draft: PromptTemplate, base: str) -> PromptTemplate | None:
        if base:
            return self._listing.load(base)
        if self._exists(draft):
            return self._listing.load(f"{draft.name}@{self._listing.versions(draft.name)[0]}")
        return None

    def _saved_since(self, name: str, newest: str) -> str:
        if not newest.isdecimal():
            return ""
        later = [version for version in self._listing.versions(name) if version > int(newest)]
        if not later:
            return ""
        saved = [(version, self._listing.load(f"{name}@{version}").saved) for version in later]
        versions = ", ".join(f"v{version}{f' ({by.by}, {moment(by.at)})' if by else ''}" for version, by in saved)
        return note(
            f"Saved since you began: {versions}. Both are kept; your draft does not contain their changes.",
            "rs-warn",
        )


def warning_html(warning: str) -> str:
    """Render what a person should know of a draft that can be saved all the same."""
    return note(warning, "rs-warn")


def problem_html(error: str) -> str:
    """Render why a draft cannot be saved."""
    return _verdict(error, good=False)


def _verdict(text: str, *, good: bool) -> str:
    return fragment("prompts_verdict.html.jinja", text=text, good=good)
