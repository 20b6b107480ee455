"""What a training is about to do: its rows, the first batch as the model reads it, and what it will cost.

Time and memory come from three steps and some texts that are really computed, and thrown away.
"""

from __future__ import annotations

import gc
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from finetune.batches import padded, stage_batches
from finetune.completion_batches import LENGTH_STEP, Batches
from finetune.features import Features
from finetune.language_model import open_trainable
from finetune.predictions import PREDICTION_TOKENS, SAMPLE_TOKENS
from finetune.recipe import VALIDATION
from finetune.tasks.sft_task import SftTask
from prompts.files import atomic_write
from rag.workspace import disk_errors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILE = "preview.json"
# Steps that are measured, after one that compiles kernels.
MEASURED = 3
# Rows of the first batch that are shown.
SHOWN = 4
# A forward pass is about a third of a step (Kaplan and others, arXiv 2001.08361).
FORWARD_SHARE = 1 / 3


class PreviewedRow(BaseModel):
    """A row as the model reads it: the text that is masked, and the text that is learnt."""

    model_config = ConfigDict(frozen=True)

    masked: str
    learnt: str
    tokens: int
    learnt_tokens: int


class TrainingPreview(BaseModel):
    """What a training is about to do.

    Attributes:
        tokens: Tokens of the training rows, without padding.
        longest: Tokens of the longest row.
        batch_rows: Rows of the first batch, of which ``first_batch`` has some.
        step_s: Seconds of the measured steps.
        step_tokens: Tokens of the measured steps, with padding.
        estimated_s: Estimated seconds of all steps, and of all validations with their texts.
        memory_bytes: Highest memory of the process, or of the accelerator.
        usd: Cost of the estimated time at the configured rate of this machine.
    """

    model_config = ConfigDict(frozen=True)

    base: str
    device: str
    rows: int
    validation_rows: int
    tokens: int
    longest: int
    steps: int
    batch_rows: int
    first_batch: tuple[PreviewedRow, ...]
    step_s: tuple[float, ...]
    step_tokens: int
    estimated_s: float
    memory_bytes: int
    usd: float


def preview_training(task: SftTask, features: Mapping[str, Features], usd_per_s: float) -> TrainingPreview:
    """Measure some steps of the first stage, and estimate the training from them.

    Args:
        task: The task.
        features: Features by stage, and of the validation rows.
        usd_per_s: Cost of a second of this machine.

    Raises:
        ModelUnavailable: The model cannot be loaded or is too large.
    """
    recipe = task.recipe
    first = recipe.stages[0]
    batches = {
        stage.name: stage_batches(features[stage.name], stage, recipe.seed, LENGTH_STEP) for stage in recipe.stages
    }
    rows = features[first.name]
    measured = _measured(task, rows, batches[first.name], features[VALIDATION])
    step_tokens = sum(tokens for _, tokens in measured.steps)
    per_token = sum(seconds for seconds, _ in measured.steps) / step_tokens
    total = sum(_padded_tokens(features[name], batch) for name, planned in batches.items() for batch in planned)
    # One before the first step has texts, too.
    written = sum(math.ceil(len(batches[stage.name]) / stage.validate_every) for stage in recipe.stages) + 1
    # The metrics of the card and the losses of the predictions are two more passes over these rows.
    checked = int(features[VALIDATION].lengths.sum()) * (written + 2) * FORWARD_SHARE
    # The texts of a validation are written together, and so are the longer ones of the predictions.
    estimated = per_token * (total + checked) + measured.texts_s * (written + PREDICTION_TOKENS / SAMPLE_TOKENS)
    start = batches[first.name][0]
    return TrainingPreview(
        base=task.base.name,
        device=measured.device,
        rows=len(rows),
        validation_rows=len(features[VALIDATION]),
        tokens=int(rows.lengths.sum()),
        longest=int(rows.lengths.max()),
        steps=sum(map(len, batches.values())),
        batch_rows=len(start),
        first_batch=tuple(_row(task, rows, int(number)) for number in start[:SHOWN]),
        step_s=tuple(seconds for seconds, _ in measured.steps),
        step_tokens=step_tokens,
        estimated_s=estimated,
        memory_bytes=_highest_memory(measured.device),
        usd=estimated * usd_per_s,
    )


def write_preview(folder: Path, preview: TrainingPreview) -> None:
    """Store a preview in the folder of a run."""
    with disk_errors(f"write {folder / FILE}"), atomic_write(folder / FILE) as file:
        file.write(preview.model_dump_json(indent=1).encode())


def read_preview(folder: Path) -> TrainingPreview | None:
    """Return the preview of a run; None if there is none."""
    try:
        return TrainingPreview.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError):
        return None


@dataclass(frozen=True, slots=True)
class _Measured:
    """Seconds and padded tokens of some steps, the seconds of the texts of a validation, and the device."""

    steps: tuple[tuple[float, int], ...]
    texts_s: float
    device: str


def _measured(
    task: SftTask, features: Features, batches: list[NDArray[np.int64]], validation: Features
) -> _Measured:
    import torch

    model = open_trainable(task.base, task.recipe, task.start)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).train()
    stage = task.recipe.stages[0]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=stage.learning_rate, fused=True)
    planned = [batches[at % len(batches)] for at in range(MEASURED + 1)]
    found = []
    for rows, batch in zip(planned, Batches(features, planned, task.batch, model), strict=True):
        begun = time.monotonic()
        inputs = {
            name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()
        }
        labels = inputs.pop("labels")
        with task.precision(device):
            loss = task.loss(stage, rows, model(**inputs).logits, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        found.append((time.monotonic() - begun, _padded_tokens(features, rows)))
    begun = time.monotonic()
    task.samples(model, validation)
    texts_s = time.monotonic() - begun
    # Its parts refer to each other, and the training loads a model of its own.
    del model, optimizer, trained, loss
    gc.collect()
    return _Measured(tuple(found[1:]), texts_s, device)


def _padded_tokens(features: Features, rows: NDArray[np.int64]) -> int:
    return len(rows) * padded(int(features.lengths[rows].max()), LENGTH_STEP)


def _row(task: SftTask, features: Features, number: int) -> PreviewedRow:
    feature = features[number]
    decode: Any = task.encoder.text_of
    return PreviewedRow(
        masked=decode(feature.ids[: feature.second]),
        learnt=decode(feature.ids[feature.second :]),
        tokens=len(feature.ids),
        learnt_tokens=len(feature.ids) - feature.second,
    )


def _highest_memory(device: str) -> int:
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return highest if sys.platform == "darwin" else highest * 1024
