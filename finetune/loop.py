"""The training loop: stages, steps, checkpoints. It can be stopped at any step and goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import checkpoint, lora
from finetune.batches import plan
from finetune.checkpoint import Place
from finetune.features import Features
from finetune.recipe import Recipe, Stage
from finetune.tasks import Task
from rag.encoders.tuned_architectures import TARGETS
from rag.errors import TuningError

if TYPE_CHECKING:
    import torch

# Steps between two points of the curve.
POINT_STEPS = 10
CLIP = 1.0
# Of the names of tensors in a checkpoint: the weights that a stage began with.
BEGINNING = "beginning/"


@dataclass(frozen=True, slots=True)
class Point:
    """A point of the curve.

    Attributes:
        loss: Mean of the steps since the last point.
        figures: Of the validation rows, where they were looked at.
        seconds: Computing time since the beginning of the training.
        tokens_per_s: Since the last point, padding included.
    """

    stage: str
    step: int
    steps: int
    loss: float
    learning_rate: float
    seconds: float
    tokens_per_s: float
    figures: Mapping[str, float] | None = None


class Stopped(Exception):
    """The training was asked to stop, and wrote a checkpoint."""


@dataclass(frozen=True)
class Trainer:
    """What one training needs.

    Attributes:
        features: Of each stage, and ``validation``.
        checkpoints: Folder of the checkpoints.
        on_point: Told of every point.
        stopping: Asked after every step.
    """

    recipe: Recipe
    task: Task
    features: Mapping[str, Features]
    checkpoints: Path
    on_point: Callable[[Point], None]
    stopping: Callable[[], bool]

    def train(self) -> torch.nn.Module:
        """All stages, from the newest checkpoint on.

        Returns:
            The network, its base wrapped in the adapter.

        Raises:
            Stopped: It was asked to stop.
            TuningError: The loss is no number.
            StorageFull: A checkpoint could not be written; the one before it stays.
        """
        found = checkpoint.load(self.checkpoints)
        place, tensors = found or (Place(), {})
        network: Any = self.task.network()
        for number, stage in enumerate(self.recipe.stages):
            if number < place.stage:
                continue
            if stage.method == "lora" and not _is_wrapped(network):
                network = self._wrapped(network, tensors if number == place.stage else {})
            if number > place.stage:
                place, tensors = replace(place, stage=number, step=0), {}
            place = self._stage(network, stage, place, tensors)
            tensors = {}
        if not _is_wrapped(network):
            network = self._wrapped(network, {})
        return network

    def _wrapped(self, network: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
        # An adapter holds all that came to the base, what the training started from included.
        fresh = self.task.network(plain=True)
        if tensors:
            # The checkpoint holds the adapter: nothing has to be cut.
            fresh.base = lora.wrap(fresh.base, self.recipe.lora.rank)
        else:
            fresh.base, _ = lora.cut(network.base, fresh.base, self.recipe.lora.rank)
            fresh.head.load_state_dict(network.head.state_dict())
        return fresh

    def _stage(self, network: Any, stage: Stage, place: Place, tensors: dict[str, torch.Tensor]) -> Place:
        import torch

        trained = trainable(network, stage)
        optimizer = torch.optim.AdamW(
            trained.values(), lr=stage.learning_rate, weight_decay=stage.weight_decay, fused=True
        )
        _restore(trained, optimizer, tensors)
        before_it = _beginning(trained, tensors) if stage.average else {}
        features = self.features[stage.name]
        steps = count_steps(features, stage, self.recipe.seed)
        batches = _batches(features, stage, self.recipe.seed, skip=place.step)
        started = saved = time.monotonic()
        before = place.seconds
        # Of the steps since the last point, so that the curve is the same however often it was stopped.
        losses: list[float] = tensors["losses"].tolist() if "losses" in tensors else []
        tokens, since = 0, started
        for step in range(place.step + 1, steps + 1):
            rows = next(batches)
            rate = stage.learning_rate * pace(step, steps, stage.warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with self._precision():
                loss = self.task.loss(network, features, rows)
            if not torch.isfinite(loss):
                raise TuningError(
                    f"The loss of step {step} of {stage.name} is no number: the training has come apart.",
                    fix="Lower the stage's learning_rate, and begin anew.",
                )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained.values(), CLIP)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss.detach()))
            tokens += len(rows) * int(features.lengths[rows].max())
            now = time.monotonic()
            place = replace(place, step=step, seconds=before + now - started)
            looks = step % stage.validate_every == 0 or step == steps
            if step % POINT_STEPS == 0 or looks:
                figures = self._look(network) if looks else None
                pace_now = tokens / max(now - since, 1e-9)
                self.on_point(
                    Point(
                        stage.name, step, steps, sum(losses) / len(losses), rate, place.seconds, pace_now, figures
                    )
                )
                losses, tokens, since = [], 0, time.monotonic()
            stopping = self.stopping()
            if stopping or step == steps or time.monotonic() - saved > self.recipe.checkpoint_s:
                checkpoint.save(self.checkpoints, place, _state(trained, optimizer, losses) | before_it)
                saved = time.monotonic()
            if stopping and step < steps:
                raise Stopped
        with torch.no_grad():
            for name, parameter in trained.items():
                if stage.average:
                    parameter.lerp_(before_it[f"{BEGINNING}{name}"], 0.5)
        return place

    def _look(self, network: Any) -> Mapping[str, float]:
        import torch

        with torch.no_grad(), self._precision():
            return self.task.figures(network, self.features["validation"])

    def _precision(self) -> AbstractContextManager[Any]:
        import torch

        if self.recipe.precision == "f32":
            return nullcontext()
        context: AbstractContextManager[Any] = torch.autocast("cpu", dtype=torch.bfloat16)
        return context


def pace(step: int, steps: int, warmup: float) -> float:
    """The share of the learning rate at a step: up in a straight line, then down to 0.

    Args:
        step: From 1 to ``steps``.
        steps: Of the whole stage.
        warmup: Share of the steps in which it rises, 0 to 1.
    """
    rising = warmup * steps
    return min(step / rising if rising else 1.0, (steps - step + 1) / max(steps - rising, 1.0), 1.0)


def count_steps(features: Features, stage: Stage, seed: int) -> int:
    """The steps of a stage."""
    whole = int(stage.epochs)
    count = sum(len(_epoch(features, stage, seed, epoch)) for epoch in range(whole))
    if stage.epochs > whole:
        count += int(len(_epoch(features, stage, seed, whole)) * (stage.epochs - whole))
    return max(count, 1)


def trainable(network: Any, stage: Stage) -> dict[str, torch.nn.Parameter]:
    """What a stage moves: the head, and the matrices of the layers or the adapter; the rest gets no gradient."""
    found = {}
    for name, parameter in network.named_parameters():
        moves = name.startswith("head.") or (
            "lora_" in name if stage.method == "lora" else _is_target(name) and "lora_" not in name
        )
        parameter.requires_grad_(moves)
        if moves:
            found[name] = parameter
    return found


def _is_target(name: str) -> bool:
    return name.removesuffix(".weight").endswith(TARGETS) and name.endswith(".weight")


def _is_wrapped(network: Any) -> bool:
    return hasattr(network.base, "peft_config")


def _epoch(features: Features, stage: Stage, seed: int, epoch: int) -> list[Any]:
    return plan(features.lengths, stage.batch_tokens, seed * 1000 + epoch)


def _batches(features: Features, stage: Stage, seed: int, skip: int) -> Iterator[Any]:
    epoch = 0
    while True:
        batches = _epoch(features, stage, seed, epoch)
        yield from batches[skip:]
        skip = max(skip - len(batches), 0)
        epoch += 1


def _state(
    trained: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, losses: Sequence[float]
) -> dict[str, torch.Tensor]:
    import torch

    state = {f"weight/{name}": parameter.detach() for name, parameter in trained.items()}
    if losses:
        state["losses"] = torch.tensor(losses, dtype=torch.float64)
    for name, parameter in trained.items():
        for key, value in optimizer.state[parameter].items():
            state[f"{key}/{name}"] = value
    return state


def _beginning(
    trained: Mapping[str, torch.nn.Parameter], tensors: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The weights that the stage began with: as the checkpoint tells, or as they are."""
    names = {name: f"{BEGINNING}{name}" for name in trained}
    return {key: tensors[key] if key in tensors else trained[name].detach().clone() for name, key in names.items()}


def _restore(
    trained: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, torch.Tensor],
) -> None:
    import torch

    if not tensors:
        return
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[f"weight/{name}"])
            optimizer.state[parameter] = {
                key.partition("/")[0]: value
                for key, value in tensors.items()
                if key.partition("/")[2] == name and not key.startswith(("weight/", BEGINNING))
            }
