"""The training loop: stages, steps, checkpoints. It can stop after any step and resume there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import checkpoint, lora
from finetune.batches import plan
from finetune.checkpoint import Progress
from finetune.features import Features
from finetune.recipe import Recipe, Stage
from finetune.tasks import Task
from rag.encoders.tuned_architectures import TARGETS
from rag.errors import TuningError

if TYPE_CHECKING:
    import torch

# Steps between two points of the loss curve.
POINT_STEPS = 10
CLIP = 1.0
# Prefix of the tensors in a checkpoint that hold the initial weights of the stage.
INITIAL = "beginning/"


@dataclass(frozen=True, slots=True)
class Point:
    """A point of the loss curve.

    Attributes:
        loss: Mean over the steps since the last point.
        figures: Metrics on the validation rows, at the steps that validate.
        seconds: Computing time since training began.
        tokens_per_s: Throughput since the last point, padding included.
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
    """Training stopped on request, after a checkpoint was written."""


@dataclass(frozen=True)
class Trainer:
    """Runs the stages of one training.

    Attributes:
        features: Features by stage name, and ``validation``.
        checkpoints: Folder of the checkpoints.
        on_point: Called with every point of the curve.
        stopping: Returns whether to stop; checked after every step.
    """

    recipe: Recipe
    task: Task
    features: Mapping[str, Features]
    checkpoints: Path
    on_point: Callable[[Point], None]
    stopping: Callable[[], bool]

    def train(self) -> torch.nn.Module:
        """Train all stages, resuming from the newest checkpoint.

        Returns:
            The network, its base wrapped in the adapter.

        Raises:
            Stopped: A stop was requested.
            TuningError: The loss is not finite.
            StorageFull: A checkpoint could not be written; the previous one stays.
        """
        found = checkpoint.load(self.checkpoints)
        progress, tensors = found or (Progress(), {})
        network: Any = self.task.network()
        for number, stage in enumerate(self.recipe.stages):
            if number < progress.stage:
                continue
            if stage.method == "lora" and not _is_wrapped(network):
                network = self._wrapped(network, tensors if number == progress.stage else {})
            if number > progress.stage:
                progress, tensors = replace(progress, stage=number, step=0), {}
            progress = self._stage(network, stage, progress, tensors)
            tensors = {}
        if not _is_wrapped(network):
            network = self._wrapped(network, {})
        return network

    def _wrapped(self, network: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
        # The adapter contains every change to the base, including the adapter that training started from.
        fresh = self.task.network(plain=True)
        if tensors:
            # The adapter's weights are restored from the checkpoint.
            fresh.base = lora.wrap(fresh.base, self.recipe.lora.rank)
        else:
            fresh.base, _ = lora.extract(network.base, fresh.base, self.recipe.lora.rank)
            fresh.head.load_state_dict(network.head.state_dict())
        return fresh

    def _stage(self, network: Any, stage: Stage, progress: Progress, tensors: dict[str, torch.Tensor]) -> Progress:
        import torch

        trained = trainable(network, stage)
        optimizer = torch.optim.AdamW(
            trained.values(), lr=stage.learning_rate, weight_decay=stage.weight_decay, fused=True
        )
        _restore(trained, optimizer, tensors)
        initial = _initial(trained, tensors) if stage.average else {}
        features = self.features[stage.name]
        steps = count_steps(features, stage, self.recipe.seed)
        batches = _batches(features, stage, self.recipe.seed, skip=progress.step)
        started = saved = time.monotonic()
        before = progress.seconds
        # Losses since the last point are restored too, so that interruptions do not change the curve.
        losses: list[float] = tensors["losses"].tolist() if "losses" in tensors else []
        tokens, since = 0, started
        for step in range(progress.step + 1, steps + 1):
            rows = next(batches)
            rate = stage.learning_rate * learning_rate_factor(step, steps, stage.warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with self._precision():
                loss = self.task.loss(network, features, rows)
            if not torch.isfinite(loss):
                raise TuningError(
                    f"The loss is not finite at step {step} of stage {stage.name}: training has diverged.",
                    fix="Lower the stage's learning_rate and start a new run.",
                )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained.values(), CLIP)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss.detach()))
            tokens += len(rows) * int(features.lengths[rows].max())
            now = time.monotonic()
            progress = replace(progress, step=step, seconds=before + now - started)
            validates = step % stage.validate_every == 0 or step == steps
            if step % POINT_STEPS == 0 or validates:
                metrics = self._validate(network) if validates else None
                speed = tokens / max(now - since, 1e-9)
                loss_mean = sum(losses) / len(losses)
                self.on_point(Point(stage.name, step, steps, loss_mean, rate, progress.seconds, speed, metrics))
                losses, tokens, since = [], 0, time.monotonic()
            stopping = self.stopping()
            if stopping or step == steps or time.monotonic() - saved > self.recipe.checkpoint_s:
                checkpoint.save(self.checkpoints, progress, _state(trained, optimizer, losses) | initial)
                saved = time.monotonic()
            if stopping and step < steps:
                raise Stopped
        with torch.no_grad():
            for name, parameter in trained.items():
                if stage.average:
                    parameter.lerp_(initial[f"{INITIAL}{name}"], 0.5)
        return progress

    def _validate(self, network: Any) -> Mapping[str, float]:
        import torch

        with torch.no_grad(), self._precision():
            return self.task.metrics(network, self.features["validation"])

    def _precision(self) -> AbstractContextManager[Any]:
        import torch

        if self.recipe.precision == "f32":
            return nullcontext()
        context: AbstractContextManager[Any] = torch.autocast("cpu", dtype=torch.bfloat16)
        return context


def learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """Return the factor of the learning rate at a step: linear warm-up, then linear decay to 0.

    Args:
        step: The step, 1 to ``steps``.
        steps: Total steps of the stage.
        warmup: Share of the steps that warm up, 0 to 1.
    """
    rising = warmup * steps
    return min(step / rising if rising else 1.0, (steps - step + 1) / max(steps - rising, 1.0), 1.0)


def count_steps(features: Features, stage: Stage, seed: int) -> int:
    """Return the number of steps of a stage."""
    whole = int(stage.epochs)
    count = sum(len(_epoch(features, stage, seed, epoch)) for epoch in range(whole))
    if stage.epochs > whole:
        count += int(len(_epoch(features, stage, seed, whole)) * (stage.epochs - whole))
    return max(count, 1)


def trainable(network: Any, stage: Stage) -> dict[str, torch.nn.Parameter]:
    """Freeze all parameters but those that a stage trains: the head, and the layers' matrices or the adapter."""
    found = {}
    for name, parameter in network.named_parameters():
        trains = name.startswith("head.") or (
            "lora_" in name if stage.method == "lora" else _is_target(name) and "lora_" not in name
        )
        parameter.requires_grad_(trains)
        if trains:
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


def _initial(
    trained: Mapping[str, torch.nn.Parameter], tensors: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the initial weights of the stage, from the checkpoint or else the current ones."""
    names = {name: f"{INITIAL}{name}" for name in trained}
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
                if key.partition("/")[2] == name and not key.startswith(("weight/", INITIAL))
            }
