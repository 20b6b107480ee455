"""What the tasks of a causal language model share: its LoRA adapter is trained by the trainer of transformers.

A task adds how its rows become features, the batches of these, and their loss: ``sft_task`` and ``dpo_task``.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import checkpoint
from finetune.adapter_card import new_card, write_lora
from finetune.batches import learning_rate_factor, padded, plan, stage_batches
from finetune.chat_features import ChatEncoder
from finetune.checkpoint import Progress
from finetune.completion_batches import LENGTH_STEP, Batches
from finetune.features import Feature, Features
from finetune.language_model import Base, open_trainable
from finetune.predictions import Prediction
from finetune.prepared.text_rendering import read_rendering
from finetune.recipe import VALIDATION, CausalRecipe, Source, Stage
from finetune.stage_recorder import LOSSES, StageRecorder
from finetune.start import find_lora_start
from finetune.training import Training
from rag.encoders.adapters import AdapterCard
from rag.errors import TuningError
from rag.models.local.local_adapters import CHAT_TEMPLATE, RENDERING
from rag.models.local.local_tokenizer import load_tokenizer

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

CLIP = 1.0
# Tokens of a batch of validation rows, padding included.
VALIDATION_TOKENS = 2048
_log = logging.getLogger(__name__)


class CausalTask(ABC):
    """See ``finetune.tasks.Task``.

    Args:
        recipe: The recipe.
        models: The workspace's folder of models, where the base ``smollm2`` is prepared.
        data: The folder of the training data, whose rendering is used if it has one.

    Raises:
        AdapterError: The adapter to start from is missing.
        ModelUnavailable: The base is missing, or not a model of transformers.
        TuningError: peft is not installed.
    """

    def __init__(self, recipe: CausalRecipe, models: Path | None = None, data: Path | None = None) -> None:
        self.recipe = recipe
        self.base = Base.locate(recipe.base, models)
        self.start = find_lora_start(recipe.start) if recipe.start is not None else None
        self.rendering = read_rendering(data) if data is not None else None
        self._template = self.start.chat_template if self.start else None
        if self.rendering is not None and self.rendering.form == "plain":
            self._template = self.rendering.chat_template

    # What a task adds

    @abstractmethod
    def features(self, source: Source, data: Path, seed: int) -> Iterator[Feature]:
        """See ``finetune.tasks.Task``."""

    @abstractmethod
    def validation(self, data: Path, most: int) -> Iterator[Feature]:
        """See ``finetune.tasks.Task``."""

    @abstractmethod
    def batch(self, features: Sequence[Feature]) -> dict[str, Any]:
        """Return the inputs of the model for some rows, and their ``labels``."""

    @abstractmethod
    def prepare(self, model: Any, training: Training) -> None:
        """Compute what the loss needs of the model before it is trained, on every start of the training."""

    @abstractmethod
    def loss(
        self, stage: Stage, rows: NDArray[np.int64], logits: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            stage: The stage.
            rows: The indices of the rows among the features of the stage.
            logits: Shape ``(sequences, positions, vocabulary)``.
            labels: As ``batch`` returned them.
        """

    @abstractmethod
    def metrics(self, model: Any, features: Features) -> Mapping[str, float]:
        """Compute the metrics on the validation rows."""

    def samples(self, model: Any, features: Features) -> tuple[Prediction, ...]:
        """Write texts for some validation rows; by default, none."""
        return ()

    # Data

    def short_enough(self, name: str, features: Iterable[Feature], most_tokens: int) -> Iterator[Feature]:
        """Leave out what is too long, and count it in the log.

        Args:
            name: The source.
            features: Its features.
            most_tokens: Maximum tokens of a feature.

        Raises:
            TuningError: All of them are too long.
        """
        count = dropped = 0
        for feature in features:
            count += 1
            if len(feature.ids) <= most_tokens:
                yield feature
            else:
                dropped += 1
        if dropped:
            _log.info(
                "%s: %d of %d rows have more than %d tokens and are left out", name, dropped, count, most_tokens
            )
        if dropped == count > 0:
            raise TuningError(
                f"Every row of {name} has more than {most_tokens} tokens.",
                fix="Raise max_tokens in the recipe.",
            )

    @property
    def most_tokens(self) -> int:
        """The maximum tokens of a prompt with its reply."""
        return int(min(self.recipe.max_tokens, self.base.window))

    @cached_property
    def encoder(self) -> ChatEncoder:
        """Turns conversations into tokens, as they are served."""
        mask = self.rendering is None or self.rendering.mask
        return ChatEncoder(self.base.files, load_tokenizer(self.base.files), self._template, mask=mask)

    # Training

    def steps(self, features: Features, stage: Stage) -> int:
        """See ``finetune.tasks.Task``."""
        return len(stage_batches(features, stage, self.recipe.seed, LENGTH_STEP))

    def train(self, training: Training) -> Any:
        """See ``finetune.tasks.Task``; returns the model wrapped in its adapter by peft."""
        progress, tensors = checkpoint.load(training.checkpoints) or (Progress(), {})
        model = open_trainable(self.base, self.recipe, self.start)
        model.to(_arguments(self.recipe, training.checkpoints).device)
        self.prepare(model, training)
        for number, stage in enumerate(self.recipe.stages):
            if number < progress.stage:
                continue
            if number > progress.stage:
                progress, tensors = replace(progress, stage=number, step=0), {}
            progress = self._stage(model, stage, progress, tensors, training)
        return model

    def _stage(
        self,
        model: Any,
        stage: Stage,
        progress: Progress,
        tensors: Mapping[str, torch.Tensor],
        training: Training,
    ) -> Progress:
        """Train the rest of a stage: its batches, learning rates and random numbers depend on the step alone."""
        import torch
        from transformers import PrinterCallback, Trainer, TrainerCallback

        recipe = self.recipe
        trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        optimizer = torch.optim.AdamW(
            trained.values(), lr=stage.learning_rate, weight_decay=stage.weight_decay, fused=True
        )
        features = training.features[stage.name]
        batches = stage_batches(features, stage, recipe.seed, LENGTH_STEP)
        done, steps = progress.step, len(batches)

        def factor(step: int) -> float:
            return learning_rate_factor(step, steps, stage.warmup)

        # torch counts the steps of this process, from 0.
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda number: factor(done + number + 1))
        checkpoint.restore(trained, optimizer, tensors)
        recorder = StageRecorder(
            training,
            stage,
            steps,
            recipe.checkpoint_s,
            progress,
            validate=lambda: self.metrics(model, training.features[VALIDATION]),
            state=lambda: checkpoint.state_of(trained, optimizer),
            sample=lambda: self.samples(model, training.features[VALIDATION]),
            losses=tensors[LOSSES].tolist() if LOSSES in tensors else [],
        )
        loss_of_step = norm_of_step = math.nan

        def loss_of(outputs: Any, labels: torch.Tensor, **_: Any) -> torch.Tensor:
            nonlocal loss_of_step
            loss = self.loss(stage, batches[recorder.progress.step], outputs.logits, labels)
            loss_of_step = float(loss.detach())
            recorder.check_loss(loss_of_step)
            return loss

        class Recording(TrainerCallback):  # type: ignore[misc]
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                # For the dropout, so that a resumed training draws what an uninterrupted one does.
                torch.manual_seed(recipe.seed * 1_000_003 + recorder.progress.step)

            def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
                nonlocal norm_of_step
                # The trainer clips alike, but tells nobody the norm before.
                norm_of_step = float(torch.nn.utils.clip_grad_norm_(trained.values(), CLIP))

            def on_step_end(self, *_: Any, **__: Any) -> None:
                rows = batches[recorder.progress.step]
                rate = stage.learning_rate * factor(recorder.progress.step + 1)
                tokens = len(rows) * padded(int(features.lengths[rows].max()), LENGTH_STEP)
                recorder.record(loss_of_step, rate, tokens, norm_of_step)

        if done < steps:
            trainer = Trainer(
                model,
                _arguments(recipe, training.checkpoints),
                # An item is a whole batch.
                data_collator=lambda items: items[0],
                train_dataset=Batches(features, batches[done:], self.batch, model),
                compute_loss_func=loss_of,
                optimizers=(optimizer, scheduler),
                callbacks=[Recording()],
            )
            # It prints what the recorder records.
            trainer.remove_callback(PrinterCallback)
            recorder.begin()
            trainer.train()
        return recorder.progress

    def outputs(self, model: Any, features: Features) -> Iterator[tuple[NDArray[np.int64], Any, torch.Tensor]]:
        """Yield the rows of every batch, the logits and the labels, without gradients.

        The model is left in evaluation mode; the trainer switches it back.
        """
        import torch

        device = next(model.parameters()).device
        planned = plan(features.lengths, VALIDATION_TOKENS, 0, LENGTH_STEP)
        model.eval()
        with torch.no_grad(), self.precision(device.type):
            for rows, batch in zip(planned, Batches(features, planned, self.batch, model), strict=True):
                on_device = {
                    name: value.to(device) if isinstance(value, torch.Tensor) else value
                    for name, value in batch.items()
                }
                labels = on_device.pop("labels")
                yield rows, model(**on_device).logits, labels

    def precision(self, device: str) -> AbstractContextManager[Any]:
        """Return the context in which the model computes on a device."""
        import torch

        context: AbstractContextManager[Any] = torch.autocast(
            device, dtype=torch.bfloat16, enabled=self.recipe.precision == "bf16"
        )
        return context

    # Result

    def finish(self, network: Any, validation: Features, result: Path, data: Mapping[str, Any]) -> AdapterCard:
        """See ``finetune.tasks.Task``."""
        metrics = self.metrics(network, validation)
        card = new_card(self.recipe, self.base, data, self.recipe.licences, metrics)
        # The base brings its own.
        own = load_tokenizer(self.base.files).chat_template
        texts = {} if self._template is None or self._template == own else {CHAT_TEMPLATE: self._template}
        if self.rendering is not None:
            texts[RENDERING] = self.rendering.model_dump_json(indent=1) + "\n"
        write_lora(network, card, result, texts)
        return card


def _arguments(recipe: CausalRecipe, folder: Path) -> Any:
    """Return the trainer's arguments: points, checkpoints and W&B are the recorder's and the worker's."""
    import torch
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=1,
        train_sampling_strategy="sequential",
        # The recorder's callback clips.
        max_grad_norm=0.0,
        seed=recipe.seed,
        bf16=recipe.precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
