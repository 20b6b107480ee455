"""A training runs to its end, however often it is killed or stopped on the way, and leaves a whole result."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from terminal import ROOT, call
from tracked import isolate
from tuning_data import wait_until, write_data
from wandb_reader import RunFile, offline_runs, read_run

from finetune.recipe import RECIPES, parse_recipe
from finetune.run_folder import RunFolder, new_run
from rag.encoders.adapters import CARD, CONFIG, HEAD, WEIGHTS, read_adapter
from rag.encoders.encoder_files import locate_model
from rag.settings import EncoderSettings, TrackingSettings
from rag.workspace import open_workspace

pytestmark = pytest.mark.slow

TEXT = (RECIPES / "miniature.toml").read_text(encoding="utf-8")
RECIPE = parse_recipe(TEXT, "miniature.toml")
STAGES = [stage.name for stage in RECIPE.stages]
KILLS = 2
# Sums of 32 bits in another order; what a lost or repeated step changes is a hundred times larger.
NOISE = 1e-4
WORKER = [sys.executable, "-m", "finetune.worker"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("tuning") / "data")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A training that nobody disturbed, told to an offline W&B run."""
    from click.testing import CliRunner

    from ui.cli import cli

    home = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patched:
        isolate(home, patched)
        arguments = ["--home", str(home), "tune", "run", "miniature", "--data", str(data)]
        patched.setenv("RAGSMITH_TRACKING__WANDB", "offline")
        # As it stands in a process that has had a run of its own.
        patched.setenv("WANDB_SERVICE", f"3-1-unix-{home / 'nobody'}")
        result = CliRunner().invoke(cli, arguments, prog_name="ragsmith")
    assert result.exit_code == 0, result.output
    (folder,) = (home / "runs").iterdir()
    assert result.stdout == f"Done: {folder / 'result'}\n"
    return RunFolder(folder)


@pytest.fixture
def begun(whole: RunFolder, data: Path, tmp_path: Path) -> Iterator[RunFolder]:
    """A run whose data have been read, and no more."""
    run = new_run(open_workspace(tmp_path / "home").runs, RECIPE, TEXT, data, TrackingSettings(wandb="off"))
    shutil.copytree(whole.path / "features", run.path / "features")
    yield run
    shutil.rmtree(run.path / "checkpoints", ignore_errors=True)


def started(run: RunFolder) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*WORKER, str(run.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def checkpoints_of(run: RunFolder) -> set[str]:
    return {path.name for path in (run.path / "checkpoints").glob("[0-9]*")}


def kill_after(run: RunFolder, seconds: float, *, written: bool) -> None:
    """Let a process train, and kill it so long after it has begun or, if ``written``, made a checkpoint."""
    known = checkpoints_of(run)
    with started(run) as process:
        wait_until(lambda: run.status.state == "running" or process.poll() is not None)
        if written:
            wait_until(lambda: checkpoints_of(run) - known or process.poll() is not None)
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()


def steps_of(run: RunFolder) -> list[tuple[str, int]]:
    return [(point.stage, point.step) for point in run.points()]


def curve_of(run: RunFolder) -> list[dict[str, Any]]:
    """The curve without what depends on the machine."""
    kept = []
    for line in (run.path / "curve.jsonl").read_text(encoding="utf-8").splitlines():
        held = json.loads(line)
        kept.append({name: held[name] for name in held if name not in ("seconds", "tokens_per_s")})
    return kept


def tensors_of(run: RunFolder) -> dict[str, np.ndarray[Any, Any]]:
    from safetensors.numpy import load_file

    return {
        f"{file} {name}": tensor.astype(np.float32)
        for file in (WEIGHTS, HEAD)
        for name, tensor in load_file(run.path / "result" / file).items()
    }


def assert_same_training(one: RunFolder, other: RunFolder) -> None:
    """Whether two runs went the same way and ended in the same weights."""
    for ours, theirs in zip(curve_of(one), curve_of(other), strict=True):
        assert {**ours, "loss": 0, "figures": 0} == {**theirs, "loss": 0, "figures": 0}
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=NOISE)
        assert ours["figures"] == pytest.approx(theirs["figures"], abs=NOISE)
    found, expected = tensors_of(one), tensors_of(other)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        if "lora_" not in name:
            assert np.allclose(tensor, expected[name], atol=NOISE), name
    # The two factors of a difference may turn against each other; the difference itself may not.
    for name in found:
        if "lora_A" in name:
            second = name.replace("lora_A", "lora_B")
            assert np.allclose(found[second] @ found[name], expected[second] @ expected[name], atol=NOISE), name


# To the end


def test_the_result_of_a_training_is_whole(whole: RunFolder) -> None:
    result = whole.path / "result"
    assert {path.name for path in result.iterdir()} == {CARD, CONFIG, HEAD, WEIGHTS}
    card = read_adapter(result).card
    assert (card.name, card.task, card.rank) == ("miniature", "reader", RECIPE.lora.rank)
    assert card.base_sha256 == locate_model(EncoderSettings()).sha256()
    assert parse_recipe(TEXT, "") == RECIPE.model_validate(json.loads(json.dumps(card.recipe)))
    assert card.data.keys() == {"validation", *STAGES}
    for held in card.data.values():
        assert held.keys() == {"rows", "tokens", "sha256"}
        assert len(held["sha256"]) == 64
    assert card.data["questions"] == card.data["settle"]
    assert {"MIT", "CC BY-SA 3.0", "CC BY-SA 4.0"} <= set(card.licences)
    assert card.calibration is not None
    assert card.figures.keys() == {"validation/loss", "validation/f1", "validation/decided"}
    last = list(whole.points())[-1].figures
    assert last is not None
    assert card.figures["validation/loss"] == pytest.approx(last["loss"], abs=NOISE)
    for name in (CARD, CONFIG):
        assert str(ROOT) not in (result / name).read_text(encoding="utf-8")


def test_peft_loads_the_adapter_and_all_of_it_has_moved(whole: RunFolder) -> None:
    from peft import PeftModel

    from rag.encoders.tuned_architectures import TARGETS, open_base

    base: Any = open_base(locate_model(EncoderSettings()).folder)
    loaded = PeftModel.from_pretrained(base, whole.path / "result")
    moved = [name for name, tensor in loaded.named_parameters() if "lora_" in name and tensor.abs().sum() > 0]
    assert len(moved) == 2 * len(TARGETS) * base.config.num_hidden_layers


def test_the_curve_has_every_step_and_training_lowers_the_loss(whole: RunFolder) -> None:
    points = list(whole.points())
    for stage in RECIPE.stages:
        told = [point for point in points if point.stage == stage.name]
        steps = told[0].steps
        looks = {step for step in range(1, steps + 1) if step % stage.validate_every == 0} | {steps}
        assert [point.step for point in told] == sorted(looks)
        assert all(point.figures is not None for point in told)
        assert all(point.tokens_per_s > 0 for point in told)
    assert [point.seconds for point in points] == sorted(point.seconds for point in points)
    first, last = points[0].figures, points[-1].figures
    assert first is not None
    assert last is not None
    assert last["loss"] < first["loss"]
    status = whole.status
    assert (status.state, status.stage, status.step, status.message) == ("done", "settle", points[-1].step, "")


def test_a_run_that_is_done_keeps_no_checkpoint_and_nothing_half_written(whole: RunFolder) -> None:
    names = {path.name for path in whole.path.iterdir()}
    expected = "recipe.toml run.json status.json curve.jsonl features log.txt lock result".split()
    assert names == set(expected)


@pytest.fixture(scope="module")
def told(whole: RunFolder) -> RunFile:
    """The file of the W&B run."""
    (path,) = offline_runs(whole.path.parent.parent)
    return read_run(path)


def test_wandb_has_the_configuration_and_the_curves(told: RunFile, whole: RunFolder) -> None:
    assert told.config["recipe"] == json.loads(RECIPE.model_dump_json())
    assert told.config["data"] == dict(read_adapter(whole.path / "result").card.data)
    assert told.exit_code == 0
    points = list(whole.points())
    assert len(told.history) == len(points)
    for row, point in zip(told.history, points, strict=True):
        assert row[f"{point.stage}/step"] == point.step
        assert row[f"{point.stage}/loss"] == point.loss
        assert row[f"{point.stage}/learning_rate"] == point.learning_rate
        assert {name: row[f"validation/{name}"] for name in point.figures or {}} == point.figures


def test_wandb_has_the_adapter_and_hashes_of_the_data(told: RunFile, whole: RunFolder) -> None:
    data, record = [each.artifact for each in told.records if each.WhichOneof("record_type") == "artifact"]
    assert (data.type, data.name, data.use_after_commit) == ("dataset", f"data-{RECIPE.name}", True)
    (manifest,) = data.manifest.contents
    assert json.loads(Path(manifest.local_path).read_text(encoding="utf-8")) == told.config["data"]
    assert (record.type, record.name, record.use_after_commit) == ("adapter", f"adapter-{RECIPE.name}", False)
    assert set(record.aliases) == {"latest", whole.name}
    assert json.loads(record.metadata)["calibration"]
    sizes = {each.path: each.size for each in record.manifest.contents}
    assert sizes == {path.name: path.stat().st_size for path in (whole.path / "result").iterdir()}


# Killed, stopped, and gone on


def test_killed_again_and_again_it_ends_as_if_nothing_had_been(
    begun: RunFolder, whole: RunFolder, data: Path, tmp_path: Path
) -> None:
    seed = int(os.environ.get("SEED", random.SystemRandom().randrange(10_000)))
    print(f"SEED={seed}")
    chance = random.Random(seed)
    computing = list(whole.points())[-1].seconds
    for number in range(KILLS):
        # The first may come before anything was written; the second meets what went on from a checkpoint.
        # So short that even the latest of all moments leaves work to the last process.
        moment = chance.uniform(0, computing / (KILLS + 2))
        kill_after(begun, moment, written=number > 0)
        kept = sorted(checkpoints_of(begun))
        print(f"kill {number}: {moment:.2f} s of {computing:.2f}, {begun.status.step=}, {kept=}")
        assert begun.status.state == "stopped"
        # A crash may cut the last line, and leave files that it was writing.
        if number == 1:
            with (begun.path / "curve.jsonl").open("a", encoding="utf-8") as file:
                file.write('{"stage": "clo')
            (begun.path / ".result.4711").mkdir()
            (begun.path / "features" / ".cloze.npz.4711").touch()
    begun.request_stop()
    # What was asked of the process before is not asked of the next.
    target = tmp_path / "target"
    arguments = ("tune", "run", "miniature", "--resume", "--data", data, "--to", target)
    gone_on = call(begun.path.parent.parent, *arguments)
    assert gone_on.exit_code == 0, gone_on.output
    assert gone_on.stdout == f"Done: {begun.path / 'result'}\nCopied to {target}\n"
    assert read_adapter(target).identity == read_adapter(begun.path / "result").identity
    assert begun.status.state == "done"
    assert_same_training(begun, whole)
    assert not [path.name for path in begun.path.rglob(".*")]


def test_a_second_process_is_refused(begun: RunFolder) -> None:
    with begun.lock:
        assert begun.is_active
        with started(begun) as other:
            out, _ = other.communicate(timeout=120)
    assert other.returncode == 1
    assert out.count("\n") == 1
    assert out.endswith(f"Another process is already training {begun.name}.\n")
    assert not begun.is_active
    assert not (begun.path / "status.json").exists()


def test_stopped_by_a_signal_and_by_the_command_it_goes_on(begun: RunFolder, whole: RunFolder) -> None:
    home = begun.path.parent.parent
    with started(begun) as process:
        wait_until(lambda: list(begun.points()) or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert out.rstrip().endswith("Stopped.")
    assert begun.status.state == "stopped"
    assert list((begun.path / "checkpoints").iterdir())
    before = steps_of(begun)

    gone_on = call(home, "tune", "resume", "--detach")
    assert (gone_on.exit_code, gone_on.stdout) == (0, "")
    assert gone_on.stderr == f"{begun.name} has started; `ragsmith tune status` shows the progress.\n"
    wait_until(lambda: len(steps_of(begun)) > len(before) or not begun.is_active)
    stopped = call(home, "tune", "stop")
    assert stopped.exit_code == 0
    assert stopped.stderr.startswith(f"{begun.name} will stop after a checkpoint")
    wait_until(lambda: not begun.is_active)
    assert begun.status.state == "stopped"
    steps = steps_of(begun)
    assert len(steps) > len(before)
    assert steps == steps_of(whole)[: len(steps)]
    for ours, theirs in zip(curve_of(begun), curve_of(whole), strict=False):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=NOISE)
