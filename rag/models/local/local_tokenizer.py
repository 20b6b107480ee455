"""The tokenizer of a local model: that of transformers, or a light one of a converted model."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

from rag.encoders.own_code import FIX, needs_own_code, refusal_of
from rag.errors import ModelUnavailable, first_line
from rag.models.local.light_tokenizer import FACTS, LightTokenizer
from rag.models.local.local_files import LocalFiles

# transformers replaces itself while it is imported: a second thread would be told that it lacks the names.
_IMPORTING = Lock()


def open_tokenizer(files: LocalFiles, converted: Path | None) -> Any:
    """Return the tokenizer of a model.

    Args:
        files: The model.
        converted: The folder of the converted model, if it is used.

    Raises:
        ModelUnavailable: The files are missing or damaged.
    """
    if converted is not None and (converted / FACTS).is_file():
        return LightTokenizer(converted)
    return load_tokenizer(files)


def load_tokenizer(files: LocalFiles) -> Any:
    """Load the tokenizer of a model.

    Raises:
        ModelUnavailable: The files are missing or damaged.
    """
    with _IMPORTING:
        from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        if needs_own_code(error):
            raise ModelUnavailable(refusal_of(files.folder), fix=FIX) from error
        raise ModelUnavailable(
            f"The tokenizer of the model {files.name} cannot be loaded: {first_line(error)}.",
            fix="Copy the tokenizer's files into the model's folder, or download the model again.",
        ) from error
