"""The training loop of the tasks on the encoder: stages, steps, checkpoints.

It can stop after any step and resume there.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from finetune import checkpoint, lora
from finetune.batches import learning_rate_factor, stage_batches
from finetune.checkpoint import INITIAL, Progress
from finetune.features import Features
from finetune.recipe import VALIDATION, Recipe, Stage
from finetune.stage_recorder import LOSSES, StageRecorder
from finetune.training import Training
from rag.encoders.tuned_architectures import TARGETS

if TYPE_CHECKING:
    import torch

CLIP = 1.0


class NetworkTask(Protocol):
    """A task whose network this loop can train."""

    def network(self, *, plain: bool = False) -> torch.nn.Module:
        """Return the untrained network, base and fresh head, the same for the same seed.

        Args:
            plain: Whether to leave out the adapter that the recipe starts from.
        """
        ...

    def loss(self, network: torch.nn.Module, features: Features, rows: Any) -> torch.Tensor:
        """Return the mean loss of some rows."""
        ...

    def metrics(self, network: torch.nn.Module, features: Features) -> Mapping[str, float]:
        """Compute the metrics on the validation rows, ``loss`` among them."""
        ...


@dataclass(frozen=True)
class Trainer:
    """Runs the stages of one training."""

    recipe: Recipe
    task: NetworkTask
    training: Training

    def train(self) -> torch.nn.Module:
        """Train all stages, resuming from the newest checkpoint.

        Returns:
            The network, its base wrapped in the adapter.

        Raises:
            Stopped: A stop was requested.
            TuningError: The loss is not finite.
            StorageFull: A checkpoint could not be written; the previous one stays.
        """
        found = checkpoint.load(self.training.checkpoints)
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
        checkpoint.restore(trained, optimizer, tensors)
        initial = _initial(trained, tensors) if stage.average else {}
        features = self.training.features[stage.name]
        batches = stage_batches(features, stage, self.recipe.seed)
        recorder = StageRecorder(
            self.training,
            stage,
            len(batches),
            self.recipe.checkpoint_s,
            progress,
            validate=lambda: self._validate(network),
            state=lambda: checkpoint.state_of(trained, optimizer) | initial,
            losses=tensors[LOSSES].tolist() if LOSSES in tensors else [],
        )
        for step, rows in enumerate(batches[progress.step :], progress.step + 1):
            rate = stage.learning_rate * learning_rate_factor(step, len(batches), stage.warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with self._precision():
                loss = self.task.loss(network, features, rows)
            recorder.check_loss(float(loss.detach()))
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(trained.values(), CLIP)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            tokens = len(rows) * int(features.lengths[rows].max())
            recorder.record(float(loss.detach()), rate, tokens, float(norm))
        with torch.no_grad():
            for name, parameter in trained.items():
                if stage.average:
                    parameter.lerp_(initial[f"{INITIAL}{name}"], 0.5)
        return recorder.progress

    def _validate(self, network: Any) -> Mapping[str, float]:
        import torch

        with torch.no_grad(), self._precision():
            return self.task.metrics(network, self.training.features[VALIDATION])

    def _precision(self) -> AbstractContextManager[Any]:
        import torch

        if self.recipe.precision == "f32":
            return nullcontext()
        context: AbstractContextManager[Any] = torch.autocast("cpu", dtype=torch.bfloat16)
        return context


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


def _initial(
    trained: Mapping[str, torch.nn.Parameter], tensors: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the initial weights of the stage, from the checkpoint or else the current ones."""
    names = {name: f"{INITIAL}{name}" for name in trained}
    return {key: tensors[key] if key in tensors else trained[name].detach().clone() for name, key in names.items()}
