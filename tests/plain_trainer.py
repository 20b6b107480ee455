"""The trainer of transformers on an adapter of peft, as anybody would write it: what ours is compared with.

Rows are padded on the right, with all logits and the loss of transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune.batches import learning_rate_factor, stage_batches
from finetune.completion_batches import IGNORED, LENGTH_STEP
from finetune.features import Features
from finetune.recipe import SftRecipe


def plain_trainer(
    base: Path, recipe: SftRecipe, features: Features, folder: Path, **arguments: Any
) -> tuple[Any, int]:
    """Return a trainer of the recipe's only stage, and the number of its steps.

    Args:
        base: Folder of the model.
        recipe: The recipe.
        features: The rows of its stage.
        folder: A folder for the trainer.
        arguments: Further arguments of the trainer, such as ``callbacks``.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    (stage,) = recipe.stages
    batches = stage_batches(features, stage, recipe.seed, LENGTH_STEP)
    torch.manual_seed(recipe.seed)
    lora = recipe.lora
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets)
        ),
    )

    def collated(items: list[list[int]]) -> dict[str, Any]:
        found = [features[row] for row in items[0]]
        longest = max(len(feature.ids) for feature in found)
        batch = {
            "input_ids": torch.zeros((len(found), longest), dtype=torch.long),
            "attention_mask": torch.zeros((len(found), longest), dtype=torch.long),
            "labels": torch.full((len(found), longest), IGNORED),
        }
        for row, feature in enumerate(found):
            size = len(feature.ids)
            batch["input_ids"][row, :size] = torch.tensor(feature.ids)
            batch["attention_mask"][row, :size] = 1
            batch["labels"][row, feature.second : size] = torch.tensor(feature.ids[feature.second :])
        return batch

    given = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=recipe.precision == "bf16",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    optimizer = torch.optim.AdamW(
        [each for each in model.parameters() if each.requires_grad],
        lr=stage.learning_rate,
        weight_decay=stage.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda number: learning_rate_factor(number + 1, len(batches), stage.warmup)
    )
    trainer = Trainer(
        model,
        given,
        data_collator=collated,
        train_dataset=[batch.tolist() for batch in batches],
        optimizers=(optimizer, schedule),
        **arguments,
    )
    return trainer, len(batches)
