"""Archiving of prompts and datasets: nothing is archived that something else still needs.

A finished evaluation run needs neither: it keeps its answers, and finds its cases by their hash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prompts import PromptLibrary
from prompts.archive import PromptArchive
from rag.errors import DatasetError, PromptError, prompt_errors

if TYPE_CHECKING:
    from rag.evaluation.dataset_archive import DatasetArchive
    from rag.evaluation.run_store import Run, RunStore

_FIX = "Change that first."
# Runs in these states ask no more questions, unless a person resumes a failed one.
_ENDED = ("finished", "failed")


@dataclass(frozen=True, slots=True)
class PromptArchiving:
    """Archives and restores prompts.

    Attributes:
        archive: The archive of the library.
        answer_prompt: Reference of the prompt for answers.
        runs: Opens the evaluation runs: one that is not finished needs its prompts.
    """

    library: PromptLibrary
    archive: PromptArchive
    answer_prompt: str
    runs: Callable[[], RunStore]

    def put_away(self, reference: str) -> list[str]:
        """Archive ``NAME@VERSION``, or all versions of ``NAME``, and return the archived versions.

        Raises:
            PromptError: Something depends on a version, or there is none to archive.
        """
        name, versions = self._meant(reference)
        for version in versions:
            use = next(self._uses(name, version, versions), "")
            if use:
                raise PromptError(f"The prompt {name}@{version} cannot be archived: {use}.", fix=_FIX)
        with prompt_errors():
            self.archive.archive(name, versions)
        return [f"{name}@{version}" for version in versions]

    def bring_back(self, reference: str) -> list[str]:
        """Restore ``NAME@VERSION``, or all versions of ``NAME``, and return the restored versions.

        Raises:
            PromptError: It is not archived.
        """
        found = [one for one in self.archive.archived() if reference in (one, one.partition("@")[0])]
        if not found:
            raise PromptError(
                f"The prompt {reference} is not archived.", fix="`ragsmith prompts list --archived` lists them."
            )
        with prompt_errors():
            self.archive.restore(reference.partition("@")[0], [int(one.partition("@")[2]) for one in found])
        return found

    def _meant(self, reference: str) -> tuple[str, list[int]]:
        name, at, version = reference.partition("@")
        with prompt_errors():
            known = self.library.versions(name)
            own = self.archive.own_versions(name)
            if at:
                # By number only: what a label names may have changed since it was looked up.
                if not version.isdecimal() or int(version) not in known:
                    raise PromptError(
                        f"There is no version {reference}.", fix="Name it by its number: NAME@VERSION."
                    )
                own = [one for one in own if one == int(version)]
        if not own:
            raise PromptError(f"The prompt {reference} ships with ragsmith, so it cannot be archived.")
        return name, own

    def _uses(self, name: str, version: int, together: Sequence[int]) -> Iterator[str]:
        """Yield what depends on a version, as clauses.

        Args:
            together: The versions that are archived with it.
        """
        label = f"{name}@{version}"
        goes = set(self.library.versions(name)) == set(together)
        for named, target in self.library.labels(name).items():
            # The labels of a whole prompt go with it.
            if target == version and not goes:
                yield f"the label {named} names it"
        if self._resolved(self.answer_prompt) == label:
            yield f"it answers the questions: the setting prompt is {self.answer_prompt}"
        for other in self._others(name, together):
            for include in self.library.load(other).includes:
                if self._resolved(include) == label:
                    yield f"{other} includes it"
        for run in self.runs().list():
            if run.status not in _ENDED and label in self._prompts_of(run):
                yield f"the evaluation run {run.id[:8]} is not finished and asks with it"

    def _others(self, name: str, together: Sequence[int]) -> Iterator[str]:
        for other in self.library.names():
            for version in self.library.versions(other):
                if other != name or version not in together:
                    yield f"{other}@{version}"

    def _resolved(self, reference: str) -> str:
        try:
            with prompt_errors():
                return self.library.load(reference).label
        except PromptError:
            return ""

    def _prompts_of(self, run: Run) -> set[str]:
        wanted = (str(variant.changes.get("prompt", self.answer_prompt)) for variant in run.plan.variants)
        return {self._resolved(reference) for reference in wanted}


def archive_dataset(archive: DatasetArchive, runs: RunStore, name: str) -> None:
    """Archive a dataset.

    Raises:
        DatasetError: There is no such dataset, or an unfinished evaluation run needs it.
    """
    run = next((run for run in runs.list() if run.dataset == name and run.status not in _ENDED), None)
    if run:
        raise DatasetError(
            f"The dataset {name} cannot be archived: the evaluation run {run.id[:8]} is not finished and asks its "
            "cases.",
            fix=f"Finish it with `ragsmith eval resume {run.id[:8]}`, or remove it with `ragsmith eval delete "
            f"{run.id[:8]}`.",
        )
    archive.archive(name)
