"""Recipes, batches, learning rates, checkpoints and adapters: what decides how a training goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracked import ROOT

from finetune import checkpoint
from finetune.batches import LENGTH_STEP, learning_rate_factor, padded, plan, stage_batches
from finetune.checkpoint import Progress
from finetune.features import Feature, Features
from finetune.recipe import RECIPES, CausalRecipe, load_recipe, parse_recipe
from rag.errors import StorageFull, TuningError, WorkspaceError

MINIATURE = (RECIPES / "miniature.toml").read_text(encoding="utf-8")
RUST_SAYS = "Error while serializing: I/O error: No space left on device (os error 28)"

# Batches


LENGTHS = st.lists(st.integers(1, 400), max_size=300).map(lambda lengths: np.array(lengths, np.int64))


@given(LENGTHS, st.integers(64, 8192), st.integers(0, 2**31))
def test_each_row_is_in_one_batch_and_no_batch_is_too_large(
    lengths: np.ndarray[Any, Any], batch_tokens: int, seed: int
) -> None:
    batches = plan(lengths, batch_tokens, seed)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * padded(int(lengths[batch].max())) <= batch_tokens
    again = plan(lengths, batch_tokens, seed)
    assert [batch.tolist() for batch in again] == [batch.tolist() for batch in batches]


def test_batches_hold_rows_of_like_length_and_another_seed_mixes_them_anew() -> None:
    lengths = np.array([20, 300] * 200, np.int64)
    batches = plan(lengths, 3000, 1)
    spent = sum(len(batch) * padded(int(lengths[batch].max())) for batch in batches)
    assert spent < 1.1 * lengths.sum()
    assert [batch.tolist() for batch in plan(lengths, 3000, 2)] != [batch.tolist() for batch in batches]


@given(st.integers(1, 10_000))
def test_lengths_are_rounded_up_to_the_next_step(length: int) -> None:
    assert padded(length) % LENGTH_STEP == 0
    assert 0 <= padded(length) - length < LENGTH_STEP


# The learning rate


@given(st.integers(1, 500), st.floats(0, 0.99))
def test_the_learning_rate_rises_to_its_height_and_falls_nearly_to_0(steps: int, warmup: float) -> None:
    rates = [learning_rate_factor(step, steps, warmup) for step in range(1, steps + 1)]
    assert all(0 < rate <= 1 for rate in rates)
    top = max(range(steps), key=lambda at: rates[at])
    assert all(one <= other + 1e-12 for one, other in pairwise(rates[: top + 1]))
    assert all(one >= other - 1e-12 for one, other in pairwise(rates[top:]))
    assert abs(top - warmup * steps) <= 1
    assert rates[-1] <= 1 / max(steps * (1 - warmup), 1) + 1e-9


def test_the_learning_rate_of_a_hundred_steps() -> None:
    assert [round(learning_rate_factor(step, 100, 0.1), 4) for step in (1, 5, 10, 11, 56, 100)] == [
        0.1,
        0.5,
        1.0,
        1.0,
        0.5,
        0.0111,
    ]
    assert learning_rate_factor(1, 100, 0.0) == 1.0


@pytest.mark.parametrize(("epochs", "expected"), [(1.0, 10), (2.0, 20), (0.25, 2), (1.5, 15), (0.01, 1)])
def test_a_stage_has_the_steps_of_its_epochs(epochs: float, expected: int) -> None:
    features = Features.pack([Feature((1,) * 64, 1, ())] * 10)
    stage = parse_recipe(MINIATURE, "here").stages[0].model_copy(update={"epochs": epochs, "batch_tokens": 64})
    assert len(stage_batches(features, stage, 1)) == expected


# Recipes


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.toml")))
def test_every_recipe_that_ships_can_be_read(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    methods = [stage.method for stage in recipe.stages]
    assert methods[:2] == (["lora"] if isinstance(recipe, CausalRecipe) else ["full", "full"])


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("rank = 8", "rank = 0", "lora.rank: Input should be greater than or equal to 1"),
        ("learning_rate = 2e-4", "learning_rate = -1", "stages.0.learning_rate: Input should be greater than 0"),
        ('task = "reader"', 'task = "writer"', "task: Input should be 'reader'"),
        ("seed = 3", "sead = 3", "unknown setting `sead` (did you mean `seed`?)"),
        ('name = "prose", rows = 12', 'name = "prose", rows = "all"', "stages.0.sources.0.rows: Input should be"),
        ('name = "settle"', 'name = "cloze"', "stages: stage names must be unique"),
        ('name = "settle"', 'name = "validation"', "stages: stage names must be unique"),
        ('method = "lora"', 'method = "all"', "stages.2.method: Input should be 'full' or 'lora'"),
        ('name = "miniature"', 'name = "../up"', "must have only lower-case letters, digits and hyphens"),
        ("seed = 3", "seed 3", "must be valid TOML"),
    ],
)
def test_a_wrong_recipe_is_told_by_its_first_wrong_field(old: str, new: str, told: str) -> None:
    with pytest.raises(TuningError, match=r"The recipe my\.toml ") as raised:
        parse_recipe(MINIATURE.replace(old, new, 1), "my.toml")
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_stage_of_all_weights_cannot_follow_the_adapter() -> None:
    text = MINIATURE.replace('method = "full"', 'method = "lora"', 1)
    with pytest.raises(TuningError, match=r"stages: .*a full stage cannot follow"):
        parse_recipe(text, "my.toml")


def test_recipes_that_are_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(
        TuningError, match=r"There is no recipe riddles\. .* one of: condenser, dpo, miniature, questioner, reader"
    ):
        load_recipe("riddles")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TuningError, match=r"binary\.toml cannot be read"):
        load_recipe(str(tmp_path / "binary.toml"))


# Checkpoints


def tensors(value: float) -> dict[str, Any]:
    import torch

    return {"weight/a": torch.full((3, 2), value), "step/a": torch.tensor(value)}


def value(found: tuple[Progress, dict[str, Any]] | None) -> tuple[Progress, float]:
    assert found is not None
    return found[0], float(found[1]["step/a"])


def test_a_checkpoint_comes_back_as_it_was_and_two_are_kept(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) is None
    places = [
        Progress(0, 5, 1.5),
        Progress(0, 10, 3.0),
        Progress(1, 2, 3.25),
        Progress(10, 1, 9.0),
        Progress(11, 1, 9.5),
    ]
    for number, place in enumerate(places):
        checkpoint.save(tmp_path, place, tensors(number))
        assert value(checkpoint.load(tmp_path)) == (place, number)
        assert len(list(tmp_path.iterdir())) == min(number + 1, 2)
    # Stages are counted, not spelled: the tenth comes after the second.
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert found[1]["weight/a"].tolist() == [[4.0, 4.0]] * 3


def test_the_same_place_is_written_anew(tmp_path: Path) -> None:
    for number in (1, 2):
        checkpoint.save(tmp_path, Progress(0, 5), tensors(number))
    assert value(checkpoint.load(tmp_path)) == (Progress(0, 5), 2)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", [checkpoint.STATE, checkpoint.PROGRESS])
@pytest.mark.parametrize("damage", ["cut", "emptied", "deleted", "scrambled"])
def test_where_the_newest_is_damaged_the_one_before_it_stands_in(name: str, damage: str, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, Progress(0, 1), tensors(1))
    checkpoint.save(tmp_path, Progress(0, 2), tensors(2))
    file = tmp_path / "0-0000002" / name
    whole = file.read_bytes()
    if damage == "deleted":
        file.unlink()
    else:
        changed = {"cut": whole[:-5], "emptied": b"", "scrambled": whole[:3] + b"\xff" * 30 + whole[33:]}
        file.write_bytes(changed[damage])
    assert value(checkpoint.load(tmp_path)) == (Progress(0, 1), 1)
    # Nor does the damaged one drive out those that are written after it.
    checkpoint.save(tmp_path, Progress(0, 1, 9.0), tensors(3))
    assert value(checkpoint.load(tmp_path)) == (Progress(0, 1, 9.0), 3)
    assert not file.parent.exists()


def test_where_all_are_damaged_it_begins_anew_and_keeps_what_it_writes(tmp_path: Path) -> None:
    for step in (20, 30):
        checkpoint.save(tmp_path, Progress(0, step), tensors(step))
        (tmp_path / f"0-00000{step}" / checkpoint.STATE).write_bytes(b"")
    assert checkpoint.load(tmp_path) is None
    checkpoint.save(tmp_path, Progress(0, 1), tensors(1))
    assert value(checkpoint.load(tmp_path)) == (Progress(0, 1), 1)


def test_what_a_killed_process_was_writing_is_never_read(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, Progress(0, 1), tensors(1))
    checkpoint.save(tmp_path, Progress(0, 2), tensors(2))
    (tmp_path / "0-0000002").rename(tmp_path / ".writing-4711")
    assert value(checkpoint.load(tmp_path)) == (Progress(0, 1), 1)
    assert not (tmp_path / ".writing-4711").exists()


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (RuntimeError(RUST_SAYS), StorageFull, "the disk is full"),
        (OSError(122, os.strerror(122)), StorageFull, "the disk is full"),
        (OSError(13, os.strerror(13)), WorkspaceError, "Permission denied"),
        (RuntimeError("something else"), RuntimeError, "something else"),
    ],
)
def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_ones(
    error: Exception, kind: type[Exception], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, Progress(0, 1), tensors(1))
    checkpoint.save(tmp_path, Progress(0, 2), tensors(2))

    def broken(_tensors: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise error

    with monkeypatch.context() as patched:
        patched.setattr("safetensors.torch.save_file", broken)
        with pytest.raises(kind, match=told):
            checkpoint.save(tmp_path, Progress(0, 3), tensors(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-0000001", "0-0000002"]
    assert value(checkpoint.load(tmp_path)) == (Progress(0, 2), 2)


def own_disks() -> bool:
    """Whether a process may have a small disk of its own here: Linux with user namespaces."""
    try:
        return not subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode
    except OSError:
        return False


ON_A_SMALL_DISK = """
import json, sys
from pathlib import Path
import torch
from finetune import checkpoint
from finetune.checkpoint import Progress
from finetune.features import Feature, Features
from rag.errors import StorageFull

folder = Path(sys.argv[1])
checkpoint.save(folder / "checkpoints", Progress(0, 1), {"a": torch.ones(50_000)})
told = []
for write in (
    lambda: checkpoint.save(folder / "checkpoints", Progress(0, 2), {"a": torch.ones(1_000_000)}),
    lambda: Features.pack(Feature((1,) * 320, 1, ()) for _ in range(5000)).save(folder / "x.npz"),
):
    try:
        write()
        told.append("written")
    except StorageFull as error:
        told.append(str(error))
place, tensors = checkpoint.load(folder / "checkpoints")
kept = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
print(json.dumps({"told": told, "kept": kept, "step": place.step, "sum": float(tensors["a"].sum())}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not own_disks(), reason="needs user namespaces, to mount a small disk")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    told = f'mount -t tmpfs -o size=2m none "{tmp_path}" && exec "$@"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", told, "sh", sys.executable, "-c", ON_A_SMALL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all("the disk is full" in line and "\n" not in line for line in found["told"]), found
    assert found["kept"] == ["checkpoints/0-0000001/place.json", "checkpoints/0-0000001/state.safetensors"]
    assert (found["step"], found["sum"]) == (1, 50_000)
