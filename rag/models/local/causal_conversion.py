"""One-time conversion of a causal language model to OpenVINO.

It runs in a process of its own (see ``rag.encoders.network_conversion``):
``python -m rag.models.local.causal_conversion FOLDER TARGET``.

The converted graph has the inputs and the state that OpenVINO GenAI expects of a language model. The conversion
compares it with the original on a few tokens. A model that cannot be converted exactly leaves its reason in the
target folder, so that it is tried only once.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rag.encoders.network_conversion import convert_once, file_key
from rag.errors import first_line
from rag.models.local.local_files import LocalFiles, weight_files

# OpenVINO GenAI finds the graph by this name.
GRAPH = "openvino_model.xml"
LAYERS = "layers.json"
REASON = "reason.txt"
# Increment when the converted graph changes, so that workspaces convert again.
FORMAT = 1
# Maximum relative difference of the scores: weights are stored in 16 bits.
TOLERANCE = 0.02
# Peak memory of the conversion, as a multiple of the weights in 32 bits.
CONVERSION_SHARE = 2.5
_COPIED = ("config.json", "generation_config.json")


class Inconvertible(Exception):
    """The model cannot be converted; its message is the reason."""


def converted_causal(files: LocalFiles, models: Path) -> Path:
    """Return the folder of a converted model; the first call on a machine converts it, in up to a minute.

    Args:
        files: The model.
        models: The workspace's folder of models.

    Raises:
        EncoderError: The conversion failed unexpectedly.
        StorageFull: The disk is full.
    """
    target = models / f"causal-{FORMAT}-{file_key(*weight_files(files.folder))}"
    if not target.is_dir():
        module = "rag.models.local.causal_conversion"
        fix = "Set local.runtime to torch."
        convert_once(target, f"the model {files.name}", module, [str(files.folder)], fix)
    return target


def refusal_reason(folder: Path) -> str:
    """Return why the model of a converted folder runs on torch; empty if it was converted."""
    path = folder / REASON
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def read_layers(folder: Path) -> dict[str, tuple[int, int]]:
    """Return input and output size of the linear layers that an adapter may change, by their path."""
    stored = json.loads((folder / LAYERS).read_text(encoding="utf-8"))
    return {path: (int(inputs), int(outputs)) for path, (inputs, outputs) in stored.items()}


def _convert_here(folder: Path, target: Path) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import openvino
    import torch

    from rag.models.local.torch_backend import load_causal

    try:
        model = load_causal(LocalFiles(folder.name, folder, "folder"), "f32").eval()
        _check_kind(model.config.get_text_config())
        graph = _traced(model)
        _compare(model, graph)
    except Exception as error:  # noqa: BLE001 - any model that transformers knows may come here
        (target / REASON).write_text(f"{first_line(error)}\n", encoding="utf-8")
        return
    openvino.save_model(graph, target / GRAPH, compress_to_fp16=True)
    layers = {
        name: (layer.in_features, layer.out_features)
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer is not model.get_output_embeddings()
    }
    (target / LAYERS).write_text(json.dumps(layers), encoding="utf-8")
    for name in _COPIED:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)


def _check_kind(config: Any) -> None:
    """Refuse models whose attention is limited to a window, which a short comparison does not show."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or (
        getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    ):
        raise Inconvertible("its attention is not full in all layers")


def _cache_shape(config: Any) -> tuple[int, int, int]:
    """Return the number of layers, of key-value heads, and their size."""
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, size


def _traced(model: Any) -> Any:
    """Return the OpenVINO model with the key-value cache as its state."""
    import openvino
    import torch
    from openvino._offline_transformations import apply_make_stateful_transformation

    layers, heads, size = _cache_shape(model.config.get_text_config())
    sides = [f"{layer}.{side}" for layer in range(layers) for side in ("key", "value")]
    example = (
        torch.ones(2, 2, dtype=torch.long),
        torch.ones(2, 5, dtype=torch.long),
        torch.tensor([[3, 4]] * 2),
        torch.tensor([0, 1], dtype=torch.int32),
        *(torch.randn(2, heads, 3, size) for _ in sides),
    )
    with torch.no_grad():
        graph = openvino.convert_model(_with_cache(model), example_input=example)
    past = [f"past_key_values.{side}" for side in sides]
    shapes: Mapping[str, Sequence[int]] = {
        "input_ids": (-1, -1),
        "attention_mask": (-1, -1),
        "position_ids": (-1, -1),
        "beam_idx": (-1,),
        **dict.fromkeys(past, (-1, heads, -1, size)),
    }
    for given, (name, shape) in zip(graph.inputs, shapes.items(), strict=True):
        given.get_tensor().set_names({name})
        given.get_node().set_friendly_name(name)
        given.get_node().set_partial_shape(openvino.PartialShape(list(shape)))
    present = [f"present.{side}" for side in sides]
    for result, name in zip(graph.outputs, ["logits", *present], strict=True):
        result.get_tensor().set_names({name})
    graph.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(graph, dict(zip(past, present, strict=True)))
    _start_empty(graph, heads, size)
    return graph


def _with_cache(model: Any) -> Any:
    """Return a module that takes and returns the key-value cache as plain tensors."""
    import torch
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    lowest = torch.finfo(torch.float32).min

    class WithCache(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(
            self, input_ids: Any, attention_mask: Any, position_ids: Any, beam_idx: Any, *past: Any
        ) -> tuple[Any, ...]:
            cache = DynamicCache()
            for at in range(0, len(past), 2):
                layer = DynamicLayer()
                # The cache would ask the shapes of its tensors, which a trace makes constants.
                layer.keys, layer.values = (tensor.index_select(0, beam_idx) for tensor in past[at : at + 2])
                layer.dtype, layer.device, layer.is_initialized = layer.keys.dtype, layer.keys.device, True
                cache.layers.append(layer)
            total, new = attention_mask.shape[1], input_ids.shape[1]
            causal = torch.arange(total)[None, :] <= (torch.arange(new) + (total - new))[:, None]
            allowed = causal[None, None] & (attention_mask[:, None, None, :] > 0)
            found = self.model(
                input_ids=input_ids,
                attention_mask=torch.where(allowed, 0.0, lowest),
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=True,
            )
            return found.logits, *(side for layer in cache.layers for side in (layer.keys, layer.values))

    return WithCache()


def _start_empty(graph: Any, heads: int, size: int) -> None:
    """Let every state begin as an empty cache of the batch's size."""
    from openvino import opset13 as ops

    zero = ops.constant(0, dtype="int64")
    batch = ops.unsqueeze(ops.gather(ops.shape_of(graph.input("input_ids")), zero, zero), zero)
    shape = ops.concat([batch, ops.constant([heads, 0, size], dtype="int64")], 0)
    for node in graph.get_ops():
        if node.get_type_name() == "ReadValue":
            node.set_arguments([ops.broadcast(ops.constant(0.0, dtype="float32"), shape)])
    graph.validate_nodes_and_infer_types()


def _compare(model: Any, graph: Any) -> None:
    """Compare the scores of both models for a prompt of nine tokens and for two more.

    Raises:
        Inconvertible: They differ.
    """
    import numpy as np
    import openvino
    import torch

    ids = torch.arange(11)[None] % model.config.get_text_config().vocab_size
    with torch.no_grad():
        expected = model(input_ids=ids).logits[0].numpy()
    compiled = openvino.compile_model(
        graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
    )
    request = compiled.create_infer_request()
    found = []
    for start, end in ((0, 9), (9, 10), (10, 11)):
        result = request.infer(
            {
                "input_ids": ids[:, start:end].numpy(),
                "attention_mask": np.ones((1, end), np.int64),
                "position_ids": np.arange(start, end)[None],
                "beam_idx": np.zeros(1, np.int32),
            }
        )
        found.append(result["logits"][0])
    difference = np.abs(np.concatenate(found) - expected).max() / max(float(np.abs(expected).max()), 1e-6)
    if not difference < TOLERANCE:
        raise Inconvertible(f"the converted model differs from the original by {difference:.1%}")


if __name__ == "__main__":
    _convert_here(Path(sys.argv[1]), Path(sys.argv[2]))
