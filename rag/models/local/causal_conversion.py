"""One-time conversion of a causal language model to OpenVINO.

It runs in a process of its own (see ``rag.encoders.network_conversion``):
``python -m rag.models.local.causal_conversion FOLDER TARGET``.

The converted graph has the inputs and the state that OpenVINO GenAI expects of a language model. The conversion
serves it and compares its probabilities with the original's. A model that cannot be served exactly leaves its
reason in the target folder, so that it is tried only once.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rag.encoders.network_conversion import convert_once, file_key
from rag.errors import ModelUnavailable, first_line
from rag.models.local.converted_card import CARD
from rag.models.local.local_files import LocalFiles, weight_files

# OpenVINO GenAI finds the graph by this name.
GRAPH = "openvino_model.xml"
REASON = "reason.txt"
# What is read beside the weights.
_READ = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
# Increment when the converted folder changes, so that workspaces convert again.
FORMAT = 2
# Tokens that are compared with the original: more than the pipeline reads in a step, and some that it writes.
COMPARED_PROMPT, COMPARED_ANSWER = 600, 16
# Maximum difference of the logarithm of a token's probability: weights are stored in 16 bits. Models of random
# weights, whose scores are the widest, differ by up to 0.1, and a wrong conversion by 8.
TOLERANCE = 0.5
# Peak memory of the conversion, as a multiple of the weights in 32 bits.
CONVERSION_SHARE = 2.5
# Frequencies of the positions that change when a text becomes long: the graph has those of a short text.
_ROPES_BY_LENGTH = frozenset({"dynamic", "longrope"})


class Inconvertible(Exception):
    """The model cannot be converted; its message is the reason."""


def converted_folder(files: LocalFiles, models: Path) -> Path:
    """Return the folder of the converted model, which may not exist yet."""
    texts = [path for name in _READ if (path := files.folder / name).is_file()]
    return models / f"causal-{FORMAT}-{file_key(*texts, *weight_files(files.folder))}"


def converted_causal(files: LocalFiles, models: Path) -> Path:
    """Return the folder of a converted model; the first call on a machine converts it, in up to a minute.

    Args:
        files: The model.
        models: The workspace's folder of models.

    Raises:
        EncoderError: The conversion failed unexpectedly.
        StorageFull: The disk is full.
    """
    target = converted_folder(files, models)
    if not target.is_dir():
        module = "rag.models.local.causal_conversion"
        fix = "Set local.runtime to torch."
        convert_once(target, f"the model {files.name}", module, [str(files.folder)], fix)
    return target


def refusal_reason(folder: Path) -> str:
    """Return why the model of a converted folder runs on torch; empty if it was converted."""
    path = folder / REASON
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _convert_here(folder: Path, target: Path) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import openvino

    from rag.models.local.light_tokenizer import store_tokenizer
    from rag.models.local.local_tokenizer import load_tokenizer
    from rag.models.local.torch_backend import load_causal

    files = LocalFiles(folder.name, folder, "folder")
    try:
        model = load_causal(files, "f32").eval()
        _check_kind(model.config.get_text_config())
        openvino.save_model(_traced(model), target / GRAPH, compress_to_fp16=True)
        _compare(model, target)
    except Exception as error:
        if isinstance(error, (MemoryError, OSError)) or "memory" in str(error):
            # Another attempt may succeed.
            raise
        for left in target.iterdir():
            left.unlink()
        (target / REASON).write_text(f"{first_line(error)}\n", encoding="utf-8")
        return
    (target / CARD).write_text(json.dumps(_card(model)), encoding="utf-8")
    # An unusable tokenizer is reported where the model is opened.
    with suppress(ModelUnavailable):
        store_tokenizer(load_tokenizer(files), target)


def _card(model: Any) -> dict[str, Any]:
    import torch

    from rag.models.local.torch_backend import layer_sizes, window_of

    # OpenVINO GenAI changes linear layers only, and not the last one.
    fixed = {
        path
        for path, layer in model.named_modules()
        if not isinstance(layer, torch.nn.Linear) or layer is model.get_output_embeddings()
    }
    layers = {path: None if path in fixed else size for path, size in layer_sizes(model).items()}
    return {"window": window_of(model.config), "layers": layers}


def _check_kind(config: Any) -> None:
    """Refuse models that read long texts in another way, which a short comparison does not show."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or (
        getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    ):
        raise Inconvertible("its attention is not full in all layers")
    ropes = getattr(config, "rope_parameters", None) or {}
    parts = [ropes, *(part for part in ropes.values() if isinstance(part, dict))]
    if _ROPES_BY_LENGTH & {part.get("rope_type") for part in parts}:
        raise Inconvertible("its positions depend on the length of the text")


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


def _compare(model: Any, folder: Path) -> None:
    """Let the converted model answer, and compare the probabilities of its tokens with the original's.

    Raises:
        Inconvertible: They differ.
    """
    import torch

    config = model.config.get_text_config()
    room = (
        getattr(config, "max_position_embeddings", None) or COMPARED_PROMPT + COMPARED_ANSWER
    ) - COMPARED_ANSWER
    rng = torch.Generator().manual_seed(0)
    prompt = torch.randint(config.vocab_size, (1, max(1, min(COMPARED_PROMPT, room))), generator=rng)
    answer, found = _served(folder, prompt.numpy())
    ids = torch.cat([prompt, torch.tensor([answer])], 1)
    with torch.no_grad():
        scores = model(input_ids=ids[:, :-1]).logits[0, -len(answer) :].float().log_softmax(-1)
    expected = scores.gather(1, torch.tensor(answer)[:, None])[:, 0]
    difference = float((torch.tensor(found) - expected).abs().max())
    if not difference < TOLERANCE:
        raise Inconvertible(
            f"the probabilities of the converted model are wrong by a factor of e^{difference:.1f}"
        )


def _served(folder: Path, prompt: Any) -> tuple[list[int], list[float]]:
    """Return the tokens of an answer of the converted model, and the logarithms of their probabilities."""
    import openvino

    from rag.models.local.genai_pipeline import endless_config, open_pipeline

    pipeline = open_pipeline(folder, None, {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"})
    config = endless_config(COMPARED_ANSWER)
    config.logprobs = 1
    handle = pipeline.add_request(0, openvino.Tensor(prompt), config)
    while pipeline.has_non_finished_requests():
        pipeline.step()
    ids: list[int] = []
    logarithms: list[float] = []
    while handle.can_read():
        for part in handle.read().values():
            ids += part.generated_ids
            logarithms += part.generated_log_probs
    return ids, logarithms


if __name__ == "__main__":
    _convert_here(Path(sys.argv[1]), Path(sys.argv[2]))
