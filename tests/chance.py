"""Tuned models of chance: they say something about everything, and nothing that is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune import lora
from finetune.adapter_card import write_result
from rag.encoders.adapters import Adapter, AdapterCard, read_adapter
from rag.encoders.encoder_files import locate_model
from rag.encoders.tuned_architectures import network_for, open_base
from rag.settings import EncoderSettings

BASE = locate_model(EncoderSettings())
RANK = 4


def network_of_chance(task: str) -> Any:
    """The base with an adapter and a head of chance."""
    import torch

    torch.manual_seed(5)
    made: Any = network_for(task, open_base(BASE.folder))
    made.base = lora.wrap(made.base, RANK)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.08)
            elif name.startswith("head.") and parameter.dim() > 1:
                parameter.normal_(0, 0.5 if parameter.shape[0] < RANK else 0.2)
    return made.eval()


def adapter_of_chance(network: Any, task: str, folder: Path, **told: Any) -> Adapter:
    """The network as an adapter's folder, named after its last part; ``told`` is what its card says besides."""
    card = AdapterCard(
        name=folder.name, task=task, base=BASE.name, base_sha256=BASE.sha256(), rank=RANK, recipe={}, **told
    )
    write_result(network, card, folder)
    return read_adapter(folder)
