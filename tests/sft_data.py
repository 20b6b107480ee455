"""A small data set of conversations, and a recipe that trains on it for a few seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuning_data import facts

from finetune.recipe import Recipe, SftRecipe, parse_recipe

LESS = ("Ask elsewhere.", "Nobody knows, as of today.")


def rows(first: int = 1000, count: int = 16) -> list[dict[str, Any]]:
    """Questions about buildings, some of them after another one, and short answers."""
    made: list[dict[str, Any]] = []
    for number, each in enumerate(facts(first, count)):
        (who, builder), (when, year) = each.questions[:2]
        passage = " ".join(each.sentences[: 1 + number % 3])
        turns = [
            {"role": "system", "content": "Answer from the passage."},
            {"role": "user", "content": f"{passage}\n\n{who}"},
        ]
        made.append({"messages": turns, "completion": f"{builder}."})
        followed = [*turns, {"role": "assistant", "content": builder}, {"role": "user", "content": when}]
        made.append({"messages": followed, "completion": f"In {year}."})
        made.append({"prompt": who, "completion": LESS[number % 2], "note": "not read"})
    return made


def write_rows(path: Path, given: Sequence[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in given), encoding="utf-8")
    return path


def recipe_text(base: Path | str, *, top: str = "", lora: str = "", stage: str = "", rest: str = "") -> str:
    """A recipe of one stage, with further lines in its parts; a line replaces an earlier one of the same key."""
    parts = {
        "": f'name = "tiny"\ntask = "sft"\nbase = "{base}"\nprecision = "f32"\ncheckpoint_s = 0.01\n{top}',
        "[lora]": f"rank = 4\nalpha = 8\n{lora}",
        "[[stages]]": (
            'name = "answers"\nlearning_rate = 3e-2\nepochs = 3\nbatch_tokens = 1024\nvalidate_every = 5\n'
            f'sources = [{{ name = "answers" }}]\n{stage}'
        ),
    }
    lines = []
    for header, text in parts.items():
        kept = dict(line.split(" = ", 1) for line in text.splitlines() if line)
        lines += [header, *(f"{key} = {value}" for key, value in kept.items())]
    return "\n".join(lines) + f"\n{rest}"


def sft_recipe(base: Path | str, **parts: str) -> SftRecipe:
    parsed: Recipe = parse_recipe(recipe_text(base, **parts), "tiny.toml")
    assert isinstance(parsed, SftRecipe)
    return parsed
