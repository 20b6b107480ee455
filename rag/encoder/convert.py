"""Convert a sentence-transformers model to OpenVINO, once.

Runs as ``python -m rag.encoder.convert NAME FOLDER SHA256 TARGET`` in a process of its own: it needs torch,
and the process that answers must not carry torch's memory and start-up time.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rag.encoder.base import EncoderCard
from rag.encoder.locate import ModelFiles
from rag.errors import EncoderError
from rag.workspace import disk_errors

CARD = "card.json"
GRAPH = "model.xml"
PASSAGES_GRAPH = "passages.xml"
TOKENIZER = "tokenizer.json"
# Raise when the converted graph changes, so that workspaces convert anew.
FORMAT = 2


def converted_folder(files: ModelFiles, models: Path) -> Path:
    """Where the conversion of these files belongs, known without reading the weights."""
    import hashlib

    stat = files.weights.stat()
    key = f"{FORMAT} {files.weights.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    return models / f"encoder-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def read_card(folder: Path) -> EncoderCard:
    """The card of a converted encoder.

    Raises:
        EncoderError: It is damaged.
    """
    try:
        return EncoderCard(**json.loads((folder / CARD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise EncoderError(
            f"The converted encoder in {folder} is damaged: {error}.",
            fix="Delete that folder; it is made again at the next start.",
        ) from error


def convert(files: ModelFiles, target: Path) -> None:
    """Check the weights and convert them into ``target``: whole, or not at all.

    Raises:
        EncoderError: The weights are not the expected ones, or the model cannot be converted.
        StorageFull: The disk has no room left.
    """
    from filelock import FileLock

    sha256 = files.sha256()
    with disk_errors(f"convert the encoder into {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
    # The lock dies with its process: whoever holds it may clear away what a killed conversion left.
    with FileLock(target.parent.with_name("converting.lock")):
        if target.is_dir():
            return
        for left_over in target.parent.glob(".converting-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        _convert_into(files, sha256, target)


def _convert_into(files: ModelFiles, sha256: str, target: Path) -> None:
    with disk_errors(f"convert the encoder into {target}"):
        work = Path(tempfile.mkdtemp(prefix=".converting-", dir=target.parent))
    try:
        done = subprocess.run(  # noqa: S603 - our own module and paths
            [sys.executable, "-m", "rag.encoder.convert", files.name, str(files.folder), sha256, str(work)],
            capture_output=True,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"},
            check=False,
        )
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise EncoderError(
                f"The encoder {files.name} cannot be converted to OpenVINO: {reason}.",
                fix="Choose another encoder.model.",
            )
        with disk_errors(f"convert the encoder into {target}"):
            work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _convert_here(name: str, folder: str, sha256: str, target: Path) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import openvino
    import torch
    from sentence_transformers import SentenceTransformer

    from rag.encoder.quantize import quantize

    model = SentenceTransformer(folder, device="cpu").eval()

    class Sentences(torch.nn.Module):  # type: ignore[misc]
        """Pooling and normalising included, so that the graph gives finished vectors."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            features = self.model({"input_ids": input_ids, "attention_mask": attention_mask})
            return torch.nn.functional.normalize(features["sentence_embedding"], dim=-1)

    example = torch.ones(2, 7, dtype=torch.long)
    graph = openvino.convert_model(Sentences(), example_input={"input_ids": example, "attention_mask": example})
    openvino.save_model(graph, target / GRAPH, compress_to_fp16=False)
    quantize(graph)
    openvino.save_model(graph, target / PASSAGES_GRAPH, compress_to_fp16=False)
    model.tokenizer.save_pretrained(target / "tokenizer")
    (target / "tokenizer" / TOKENIZER).rename(target / TOKENIZER)
    shutil.rmtree(target / "tokenizer")
    dimensions = model.get_embedding_dimension()
    card = EncoderCard(name, sha256, int(dimensions), int(model.max_seq_length))
    (target / CARD).write_text(json.dumps(asdict(card), indent=2), encoding="utf-8")


if __name__ == "__main__":
    _convert_here(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))
