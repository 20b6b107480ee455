"""From a file to a stored data version: what `ragsmith data prepare` and the page do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finetune.prepared.base_tokens import BaseTokens
from finetune.prepared.data_versions import DataVersion, DataVersions, Source, check_name, source_of
from finetune.prepared.examples import Examples, read_examples
from finetune.prepared.exploration import Exploration, Questions, explore
from finetune.prepared.leakless_split import Split, split_examples
from finetune.prepared.preparation import Prepared, prepare_examples
from finetune.prepared.preparation_plan import Plan
from finetune.prepared.raw_tables import read_table_file
from rag.errors import ModelUnavailable, TuningError
from rag.workspace import Workspace


@dataclass(frozen=True, slots=True)
class RawFile:
    """A file and how to read it; empty names are recognized."""

    path: Path
    prompt: str = ""
    completion: str = ""
    encoding: str = ""

    def read(self) -> Examples:
        """Read the examples.

        Raises:
            TuningError: The file cannot be read, or has no example.
        """
        return read_examples(read_table_file(self.path, self.encoding), self.prompt, self.completion)


def explore_file(file: RawFile, questions: Questions, base: str, models: Path) -> Exploration:
    """Look at a file; without its base, tokens are not counted, and the report says why.

    Raises:
        TuningError: The file cannot be read, or a question is malformed.
    """
    found = file.read()
    tokens, reason = None, ""
    if base:
        try:
            tokens = BaseTokens(base, models)
        except (ModelUnavailable, TuningError) as error:
            reason = str(error)
    return explore(found, questions, tokens, reason)


def try_plan(file: RawFile, plan: Plan, models: Path) -> tuple[Examples, Prepared, Split]:
    """Apply a plan to a file, and store nothing.

    Raises:
        TuningError: The file cannot be read, no rows are left, or there are no validation rows.
        ModelUnavailable: There is no such base.
    """
    found = file.read()
    count = BaseTokens(plan.base, models).of_example if plan.base and "drop-long" in plan.steps else None
    prepared = prepare_examples(found.examples, plan, count)
    return found, prepared, split_examples(prepared.examples, plan.validation, plan.seed)


def prepare_file(file: RawFile, plan: Plan, name: str, workspace: Workspace) -> DataVersion:
    """Prepare a file and store the version; errors as for ``try_plan``, and those of the disk."""
    check_name(name)
    found, prepared, split = try_plan(file, plan, workspace.models)
    return DataVersions(workspace.data).save(name, split, plan, prepared.steps, source_of(found))


def split_again(versions: DataVersions, version: DataVersion, validation: float, seed: int) -> DataVersion:
    """Split the rows of a version anew, and store the result as a version of the same name."""
    plan = version.plan.model_copy(update={"validation": validation, "seed": seed})
    split = split_examples(versions.examples(version), validation, seed)
    source = Source(version.source, version.source_sha256, version.raw_rows, version.unit)
    return versions.save(version.name, split, plan, version.steps, source)
