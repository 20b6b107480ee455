"""One-time conversion of a sentence-transformers model to OpenVINO.

It runs in a process of its own (see ``network_conversion``):
``python -m rag.encoders.encoder_conversion NAME FOLDER SHA256 TARGET``.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rag.encoders.encoder import EncoderCard
from rag.encoders.encoder_files import ModelFiles
from rag.encoders.network_conversion import GRAPH, TOKENIZER, convert_once, file_key
from rag.encoders.own_code import needs_own_code, refusal_of
from rag.errors import EncoderError

CARD = "card.json"
PASSAGES_GRAPH = "passages.xml"
# Increment when the converted graph changes, so that workspaces convert again.
FORMAT = 2


def converted_folder(files: ModelFiles, models: Path) -> Path:
    """Return the folder of the conversion of these files, without reading the weights."""
    return models / f"encoder-{FORMAT}-{file_key(files.weights)}"


def read_card(folder: Path) -> EncoderCard:
    """Read the card of a converted encoder.

    Raises:
        EncoderError: The card is damaged.
    """
    try:
        return EncoderCard(**json.loads((folder / CARD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise EncoderError(
            f"The converted encoder in {folder} is damaged: {error}.",
            fix="Delete that folder; it is created again at the next start.",
        ) from error


def convert(files: ModelFiles, target: Path) -> None:
    """Check the weights and convert the model into the folder ``target``, atomically.

    Raises:
        EncoderError: The weights are not the expected ones, or the model cannot be converted.
        StorageFull: The disk is full.
    """
    arguments = [files.name, str(files.folder), files.sha256()]
    fix = "Choose another encoder.model."
    convert_once(target, f"the encoder {files.name}", "rag.encoders.encoder_conversion", arguments, fix)


def _convert_here(name: str, folder: str, sha256: str, target: Path) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import openvino
    import torch
    from sentence_transformers import SentenceTransformer

    from rag.encoders.quantization import quantize

    try:
        model = SentenceTransformer(folder, device="cpu", local_files_only=True, trust_remote_code=False).eval()
    except ValueError as error:
        if needs_own_code(error):
            # The parent shows the last line to the user.
            sys.exit(refusal_of(folder).rstrip("."))
        raise

    class Sentences(torch.nn.Module):  # type: ignore[misc]
        """The model with pooling and normalization, so that the graph returns final vectors."""

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
