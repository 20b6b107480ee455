"""Artifacts of W&B runs, which show what was made of what: data, the training, its adapter, evaluations of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def folder_artifact(kind: str, name: str, folder: Path, metadata: Mapping[str, Any]) -> Any:
    """Return an artifact of all files of a folder.

    W&B takes artifacts with the same name and files as one version, whichever run they come from. So a run that
    uses an adapter leads to the training that made it.

    Args:
        kind: Type of the artifact.
        name: Its name; what W&B does not accept in a name is replaced.
        folder: The folder.
        metadata: What W&B shows beside the files.
    """
    artifact = _artifact(kind, name, metadata)
    artifact.add_dir(str(folder))
    return artifact


def manifest_artifact(kind: str, name: str, content: Mapping[str, Any]) -> Any:
    """Return an artifact whose one file says in JSON what is used, for data that are not to be copied."""
    artifact = _artifact(kind, name, {})
    with artifact.new_file("manifest.json", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=1, sort_keys=True) + "\n")
    return artifact


def log_input(run: Any, artifact: Any, aliases: Sequence[str] = ()) -> None:
    """Log an artifact as an input of a run.

    ``run.use_artifact`` does the same, but waits for the server and refuses a run that is offline, although the
    record has a place for it and ``wandb sync`` declares the use when it has sent the artifact.
    """
    run._log_artifact(artifact, aliases=list(aliases) or None, is_user_created=True, use_after_commit=True)


def _artifact(kind: str, name: str, metadata: Mapping[str, Any]) -> Any:
    import wandb

    return wandb.Artifact(re.sub(r"[^\w.-]+", "-", name)[:128], type=kind, metadata=dict(metadata))
