"""Supervised fine-tuning: a causal language model learns the replies of a data set through a LoRA adapter.

Rows come from ``finetune.data.chat_rows``, their tokens from ``finetune.chat_features``, and the batches from
``finetune.completion_batches``. The trainer is the one of transformers, with peft.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import checkpoint
from finetune.adapter_card import new_card, write_lora
from finetune.batches import learning_rate_factor, padded, plan, stage_batches
from finetune.chat_features import ChatEncoder
from finetune.checkpoint import Progress
from finetune.completion_batches import LENGTH_STEP, CompletionBatches, token_losses
from finetune.data.chat_sources import ChatSources
from finetune.features import Feature, Features
from finetune.language_model import Base, open_trainable
from finetune.recipe import VALIDATION, SftRecipe, Source, Stage
from finetune.rows import ChatRow
from finetune.stage_recorder import LOSSES, StageRecorder
from finetune.start import find_lora_start
from finetune.training import Training
from rag.encoders.adapters import AdapterCard
from rag.errors import TuningError
from rag.models.local.local_tokenizer import load_tokenizer

if TYPE_CHECKING:
    import torch

CLIP = 1.0
# Tokens of a batch of validation rows, padding included.
VALIDATION_TOKENS = 2048
_log = logging.getLogger(__name__)


class SftTask:
    """See ``finetune.tasks.Task``.

    Args:
        recipe: The recipe.
        models: The workspace's folder of models, where the base ``smollm2`` is prepared.

    Raises:
        AdapterError: The adapter to start from is missing.
        ModelUnavailable: The base is missing, or not a model of transformers.
        TuningError: peft is not installed.
    """

    def __init__(self, recipe: SftRecipe, models: Path | None = None) -> None:
        self.recipe = recipe
        self._base = Base.locate(recipe.base, models)
        self._start = find_lora_start(recipe.start) if recipe.start is not None else None
        self._template = self._start.chat_template if self._start else None
        self._sources = cache(lambda data: ChatSources(recipe, data))

    # Data

    def features(self, source: Source, data: Path, seed: int) -> Iterator[Feature]:
        """Yield the features of a file; their order does not depend on the seed."""
        return self._short_enough(source.name, self._sources(data).training(source))

    def validation(self, data: Path, most: int) -> Iterator[Feature]:
        """Yield the features of the validation rows, see ``finetune.data.chat_sources``."""
        return self._short_enough(VALIDATION, self._sources(data).validation())

    def _short_enough(self, name: str, rows: Iterator[ChatRow]) -> Iterator[Feature]:
        encoder = self._encoder
        most = min(self.recipe.max_tokens, self._base.window)
        count = dropped = 0
        for row in rows:
            count += 1
            feature = encoder.feature(row)
            if len(feature.ids) <= most:
                yield feature
            else:
                dropped += 1
        if dropped:
            _log.info("%s: %d of %d rows have more than %d tokens and are left out", name, dropped, count, most)
        if dropped == count > 0:
            raise TuningError(
                f"All {count} rows of {name} have more than {most} tokens.", fix="Raise max_tokens in the recipe."
            )

    @cached_property
    def _encoder(self) -> ChatEncoder:
        return ChatEncoder(self._base.files, load_tokenizer(self._base.files), self._template)

    # Training

    def steps(self, features: Features, stage: Stage) -> int:
        """See ``finetune.tasks.Task``."""
        return len(stage_batches(features, stage, self.recipe.seed, LENGTH_STEP))

    def train(self, training: Training) -> Any:
        """See ``finetune.tasks.Task``; returns the model wrapped in its adapter by peft."""
        progress, tensors = checkpoint.load(training.checkpoints) or (Progress(), {})
        model = open_trainable(self._base, self.recipe, self._start)
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
        arguments = _arguments(recipe, training.checkpoints)
        model.to(arguments.device)
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
            losses=tensors[LOSSES].tolist() if LOSSES in tensors else [],
        )
        loss_of_step = math.nan

        def loss_of(outputs: Any, labels: torch.Tensor, **_: Any) -> torch.Tensor:
            nonlocal loss_of_step
            loss = token_losses(outputs.logits, labels).mean()
            loss_of_step = float(loss.detach())
            recorder.check_loss(loss_of_step)
            return loss

        class Recording(TrainerCallback):  # type: ignore[misc]
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                # For the dropout, so that a resumed training draws what an uninterrupted one does.
                torch.manual_seed(recipe.seed * 1_000_003 + recorder.progress.step)

            def on_step_end(self, *_: Any, **__: Any) -> None:
                rows = batches[recorder.progress.step]
                rate = stage.learning_rate * factor(recorder.progress.step + 1)
                tokens = len(rows) * padded(int(features.lengths[rows].max()), LENGTH_STEP)
                recorder.record(loss_of_step, rate, tokens)

        if done < steps:
            trainer = Trainer(
                model,
                arguments,
                # An item is a whole batch.
                data_collator=lambda items: items[0],
                train_dataset=CompletionBatches(features, batches[done:], model),
                compute_loss_func=loss_of,
                optimizers=(optimizer, scheduler),
                callbacks=[Recording()],
            )
            # It prints what the recorder records.
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return recorder.progress

    def metrics(self, model: Any, features: Features) -> Mapping[str, float]:
        """Compute loss and perplexity per token of the replies."""
        import torch

        device = next(model.parameters()).device
        batches = plan(features.lengths, VALIDATION_TOKENS, 0, LENGTH_STEP)
        model.eval()
        total, count = 0.0, 0
        with torch.no_grad(), self._precision(device.type):
            for batch in CompletionBatches(features, batches, model):
                on_device = {
                    name: value.to(device) if isinstance(value, torch.Tensor) else value
                    for name, value in batch.items()
                }
                labels = on_device.pop("labels")
                losses = token_losses(model(**on_device).logits, labels)
                total += float(losses.double().sum())
                count += len(losses)
        loss = total / count
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}

    def _precision(self, device: str) -> AbstractContextManager[Any]:
        import torch

        context: AbstractContextManager[Any] = torch.autocast(
            device, dtype=torch.bfloat16, enabled=self.recipe.precision == "bf16"
        )
        return context

    # Result

    def finish(self, network: Any, validation: Features, result: Path, data: Mapping[str, Any]) -> AdapterCard:
        """See ``finetune.tasks.Task``."""
        metrics = self.metrics(network, validation)
        card = new_card(self.recipe, self._base, data, self.recipe.licences, metrics)
        # The base brings its own.
        own = load_tokenizer(self._base.files).chat_template
        write_lora(network, card, result, None if self._template == own else self._template)
        return card


def _arguments(recipe: SftRecipe, folder: Path) -> Any:
    """Return the trainer's arguments: points, checkpoints and W&B are the recorder's and the worker's."""
    import torch
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=1,
        train_sampling_strategy="sequential",
        max_grad_norm=CLIP,
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
