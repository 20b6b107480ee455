"""What may befall a training: a full disk, damage, a stop while data are read, a tracker that fails."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from terminal import assert_one_line, call
from tracked import OFFLINE, ROOT, environment, isolate, only_run
from tuning_data import write_data

from finetune import checkpoint, worker
from finetune.batches import stage_batches
from finetune.features import Features
from finetune.loop import Trainer, trainable
from finetune.recipe import RECIPES, LoraPart, Recipe, parse_recipe
from finetune.run_folder import RunFolder, Status, new_run
from finetune.tasks.reader_task import ReaderTask
from finetune.training import Point, Stopped, Training
from finetune.training_run_tracking import TrainingTracker
from rag.encoders.adapters import Adapter, AdapterCard
from rag.errors import TuningError
from rag.settings import TrackingSettings
from rag.tracing.ledger import NOTHING
from rag.workspace import Workspace

pytestmark = pytest.mark.slow

# One short stage, and no source that has to be embedded.
TEXT = (
    (RECIPES / "miniature.toml").read_text(encoding="utf-8").partition("[[stages]]")[0]
    + """
[[stages]]
name = "settle"
method = "lora"
learning_rate = 1e-2
batch_tokens = 256
validate_every = 5
sources = [{ name = "squad", rows = 6 }, { name = "policyqa", rows = 2 }]
"""
)
RECIPE = parse_recipe(TEXT.replace("checkpoint_s = 2", "checkpoint_s = 0.001"), "short.toml")
SHORT = TEXT.replace("checkpoint_s = 2", "checkpoint_s = 0.001")
RUST_SAYS = "Error while serializing: I/O error: No space left on device (os error 28)"
CARD = AdapterCard(name="x", task="reader", base="base", base_sha256="0", rank=1, recipe={})
POINT = Point("settle", 5, 9, 2.5, 1e-4, 3.5, 120.0, {"loss": 2.25})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("tuning") / "data")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """A worker in this process takes signals and quietens logs: both are put back."""
    # When it is imported, peft takes the `save_file` that is there: it must not be one that a test has broken.
    import peft  # noqa: F401

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    level = logging.getLogger("rag").level
    yield
    logging.getLogger("rag").setLevel(level)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def run(workspace: Workspace, data: Path) -> RunFolder:
    return new_run(workspace.runs, RECIPE, SHORT, data, TrackingSettings(wandb="off"))


# Reading the data


def features_of(run: RunFolder) -> dict[str, str]:
    found = worker.prepare(run, RECIPE, ReaderTask(RECIPE), lambda: None)
    return {name: each.sha256 for name, each in found.items()}


def test_stopped_while_the_data_are_read_it_goes_on(run: RunFolder) -> None:
    asked = 0

    def stop_at_third() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise Stopped

    with pytest.raises(Stopped):
        worker.prepare(run, RECIPE, ReaderTask(RECIPE), stop_at_third)
    assert [path.name for path in (run.path / "features").iterdir()] == ["validation.npz"]
    assert features_of(run).keys() == {"validation", "settle"}


def test_a_stop_that_was_asked_before_it_began_ends_it_at_once(run: RunFolder) -> None:
    run.request_stop()
    run.write_status(Status("failed", 1, "settle", 3, 9, 2.5, 4.5, message="The disk is full."))
    assert worker.main(run.path) == 0
    # How far it was stays known.
    assert run.status == Status("stopped", os.getpid(), "settle", 3, 9, 2.5, 4.5)
    assert not (run.path / "checkpoints").exists()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 nothing"])
def test_features_that_were_damaged_are_made_again(damage: bytes, run: RunFolder) -> None:
    before = features_of(run)
    path = run.path / "features" / "settle.npz"
    path.write_bytes(damage)
    assert features_of(run) == before
    assert Features.load(path) is not None


def test_a_full_disk_while_the_data_are_read(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr("numpy.savez", full)
        assert worker.main(run.path) == 1
    assert run.status.state == "failed"
    assert "the disk is full" in run.status.message
    assert "bug" not in run.status.message
    assert list((run.path / "features").iterdir()) == []


def test_a_stage_without_rows_is_refused(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReaderTask, "features", lambda *_: iter(()))
    assert worker.main(run.path) == 1
    assert run.status.message.endswith("contains no rows for settle.")


# Writing checkpoints and the result


def breaking_save(after: int, error: Exception) -> Callable[..., None]:
    """safetensors' ``save_file``, which fails from some call on, half-way."""
    from safetensors.torch import save_file

    calls = 0

    def save(tensors: Any, path: Any, *given: Any, **named: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            Path(path).write_bytes(b"half")
            raise error
        save_file(tensors, path, *given, **named)

    return save


def test_a_full_disk_fails_the_training_and_the_next_goes_on_from_the_last_checkpoint(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("safetensors.torch.save_file", breaking_save(2, RuntimeError(RUST_SAYS)))
        assert worker.main(run.path) == 1
    status = run.status
    assert status.state == "failed"
    assert status.message.startswith("Cannot write the checkpoint")
    assert "the disk is full" in status.message
    assert "\n" not in status.message
    kept = sorted(path.name for path in (run.path / "checkpoints").iterdir())
    assert kept == ["0-0000001", "0-0000002"]

    # Nor does the result come half: the adapter itself does not fit.
    features = Features.load(run.path / "features/settle.npz")
    assert features is not None
    steps = len(stage_batches(features, RECIPE.stages[0], RECIPE.seed))
    with monkeypatch.context() as patched:
        patched.setattr("safetensors.torch.save_file", breaking_save(steps - 2, RuntimeError(RUST_SAYS)))
        assert worker.main(run.path) == 1
    assert run.status.message.startswith(f"Cannot write {run.path / 'result'}: the disk is full")
    assert not (run.path / "result").exists()
    assert [path.name for path in run.path.glob(".*")] == []

    # The newest checkpoint is damaged as well: the one before it stands in.
    newest = sorted((run.path / "checkpoints").iterdir())[-1]
    assert newest.name == f"0-{steps:07d}"
    (newest / checkpoint.STATE).write_bytes(b"half")
    assert worker.main(run.path) == 0
    assert run.status.state == "done"
    assert (run.path / "result" / "card.json").is_file()
    looks = {step for step in range(1, steps + 1) if step % 5 == 0} | {steps}
    assert [point.step for point in run.points()] == sorted(looks)


def test_a_disk_that_takes_not_even_the_status(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr("finetune.run_folder.atomic_write", full)
        assert worker.main(run.path) == 1
    assert run.status.state == "stopped"


def test_what_is_no_error_of_ours_is_told_as_a_bug(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(ReaderTask, "validation", broken)
    assert worker.main(run.path) == 1
    assert run.status.message == "This is a bug in ragsmith: ZeroDivisionError: by zero"
    assert_one_line(call(run.path.parent.parent, "tune", "show", "nobody"), "There is no run nobody")


# Stages


def trainer(recipe: Recipe, folder: Path, data: Path, points: list[Point]) -> Trainer:
    task = ReaderTask(recipe)
    made = {"validation": Features.pack(task.validation(data, 6))}
    for stage in recipe.stages:
        made[stage.name] = Features.pack(
            each for source in stage.sources for each in task.features(source, data, 1)
        )
    return Trainer(recipe, task, Training(made, folder, points.append, lambda: False))


def test_an_adapter_that_nothing_was_cut_for_is_trained_too(data: Path, tmp_path: Path) -> None:
    network: Any = trainer(RECIPE, tmp_path / "checkpoints", data, []).train()
    for name, tensor in network.named_parameters():
        if "lora_" in name:
            assert float(tensor.detach().abs().sum()) > 0, name


def test_a_training_that_comes_apart_is_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(ReaderTask, "loss", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(TuningError, match=r"The loss is not finite at step 1 of stage \S+: .*learning_rate"):
        trainer(RECIPE, tmp_path / "checkpoints", data, []).train()
    assert not (tmp_path / "checkpoints").exists()


def test_a_whole_difference_of_low_rank_is_held_by_the_adapter() -> None:
    import torch

    from finetune import lora
    from rag.encoders.encoder_files import locate_model
    from rag.encoders.tuned_architectures import open_base
    from rag.settings import EncoderSettings

    folder = locate_model(EncoderSettings()).folder
    trained, fresh = open_base(folder), open_base(folder)
    torch.manual_seed(1)
    layer: Any = trained.encoder.layer[2].intermediate.dense
    with torch.no_grad():
        layer.weight += torch.randn(1536, 4) @ torch.randn(4, 384) / 50
    wrapped, share = lora.extract(trained, fresh, 6)
    assert share == pytest.approx(1.0, abs=1e-5)
    merged: Any = wrapped.merge_and_unload()
    for name, tensor in trained.named_parameters():
        assert torch.allclose(dict(merged.named_parameters())[name], tensor, atol=1e-5), name


def test_a_stage_of_all_weights_moves_matrices_and_head_and_nothing_else(data: Path) -> None:
    from rag.encoders.tuned_architectures import TARGETS

    network: Any = ReaderTask(RECIPE).network()
    stage = RECIPE.stages[0].model_copy(update={"method": "full"})
    found = trainable(network, stage)
    layers = network.base.config.num_hidden_layers
    assert len(found) == 2 + layers * len(TARGETS)
    assert {name for name, each in network.named_parameters() if each.requires_grad} == set(found)
    assert not [name for name in found if "bias" in name and not name.startswith("head.")]


def test_in_bf16_a_training_goes_as_in_f32(data: Path, tmp_path: Path) -> None:
    losses = []
    for precision in ("f32", "bf16"):
        points: list[Point] = []
        recipe = RECIPE.model_copy(update={"precision": precision, "stages": (short_stage(),)})
        trainer(recipe, tmp_path / precision, data, points).train()
        losses.append([point.loss for point in points])
    assert losses[1] == pytest.approx(losses[0], abs=0.1)


def test_a_stage_that_averages_ends_half_way_between_its_beginning_and_its_end(data: Path, tmp_path: Path) -> None:
    import torch

    ends: list[dict[str, Any]] = []
    for average in (False, True):
        stage = short_stage().model_copy(update={"method": "full", "average": average})
        recipe = RECIPE.model_copy(update={"stages": (stage,), "lora": LoraPart(rank=384)})
        network: Any = trainer(recipe, tmp_path / str(average), data, []).train()
        ends.append({"head": network.head.weight} | dict(network.base.merge_and_unload().named_parameters()))
    fresh: Any = ReaderTask(RECIPE).network()
    begun = {"head": fresh.head.weight} | dict(fresh.base.named_parameters())
    moved = 0.0
    for name, tensor in ends[1].items():
        assert torch.allclose(tensor, (begun[name] + ends[0][name]) / 2, atol=1e-5), name
        moved += float((tensor - begun[name]).detach().abs().sum())
    assert moved > 1
    # Gone on once more after its end: it is averaged once only.
    again: Any = trainer(recipe, tmp_path / "True", data, []).train()
    assert torch.allclose(again.head.weight, network.head.weight, atol=1e-5)


def short_stage() -> Any:
    sources = (RECIPE.stages[0].sources[1],)
    return RECIPE.stages[0].model_copy(update={"sources": sources, "learning_rate": 1e-4, "validate_every": 1})


# Telling W&B


@pytest.fixture
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(tmp_path, monkeypatch)


def tell(tracker: TrainingTracker, folder: Path) -> None:
    """What a training tells, twice, so that what breaks at first is met again."""
    for _ in range(2):
        tracker.point(POINT)
    folder.mkdir(exist_ok=True)
    (folder / "card.json").write_text("{}", encoding="utf-8")
    tracker.result(Adapter(folder, CARD))
    tracker.finish(NOTHING)


def test_switched_off_nobody_is_told_and_nothing_written(workspace: Workspace, tmp_path: Path) -> None:
    tracker = TrainingTracker(TrackingSettings(wandb="off"), workspace.root, "run-1", {})
    assert tracker.run.status.mode == "off"
    tell(tracker, tmp_path / "result")
    assert not workspace.wandb.exists()


@pytest.mark.usefixtures("isolated")
def test_the_trainings_of_a_sweep_are_one_group_of_wandb(workspace: Workspace, tmp_path: Path) -> None:
    tracker = TrainingTracker(OFFLINE, workspace.root, "swept-000", {}, sweep="swept")
    tell(tracker, tmp_path / "result")
    records = only_run(workspace).records
    run = next(each.run for each in records if each.WhichOneof("record_type") == "run")
    assert (run.run_group, run.display_name, run.job_type) == ("swept", "swept-000", "tune")


@pytest.mark.usefixtures("isolated")
def test_where_wandb_cannot_start_a_training_goes_on(
    workspace: Workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workspace.wandb.write_text("a file where a folder should be", encoding="utf-8")
    tracker = TrainingTracker(OFFLINE, workspace.root, "run-1", {})
    assert tracker.run.status.mode == "failed"
    tell(tracker, tmp_path / "result")
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "rag.tracing.wandb_run"]
    assert warning.startswith("W&B tracking of the training run-1 has stopped")


@pytest.mark.usefixtures("isolated")
def test_what_wandb_raises_is_told_once_and_it_is_given_up(
    workspace: Workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = TrainingTracker(OFFLINE, workspace.root, "run-1", {"recipe": {}})
    tracker.run.attempt(lambda run: monkeypatch.setattr(run, "log", lambda _values: 1 / 0))
    tell(tracker, tmp_path / "result")
    warnings = [
        record.getMessage()
        for record in caplog.records
        if record.name == "rag.tracing.wandb_run" and record.levelno >= logging.WARNING
    ]
    assert len(warnings) == 1
    assert warnings[0].endswith("ZeroDivisionError: division by zero")


TOLD_TO_THE_DEAD = """
import sys
from pathlib import Path
from finetune.training import Point
from finetune.training_run_tracking import TrainingTracker
from rag.encoders.adapters import Adapter, AdapterCard
from rag.errors import TuningError
from rag.settings import TrackingSettings
from rag.tracing.ledger import NOTHING
from tracked import service_process

root = Path(sys.argv[1])
point = Point("settle", 5, 9, 2.5, 1e-4, 3.5, 120.0, {"loss": 2.25})
card = AdapterCard(name="x", task="reader", base="base", base_sha256="0", rank=1, recipe={})
tracker = TrainingTracker(TrackingSettings(wandb="offline"), root, "run-1", {"recipe": {}})
tracker.point(point)
service = service_process()
service.kill()
service.wait()
(root / "result").mkdir()
(root / "result" / "card.json").touch()
for _ in range(3):
    tracker.point(point)
tracker.result(Adapter(root / "result", card))
tracker.finish(NOTHING)
print("trained")
"""


@pytest.mark.usefixtures("isolated")
def test_where_the_process_of_wandb_is_killed_a_training_goes_on(workspace: Workspace) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TOLD_TO_THE_DEAD, str(workspace.root)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**environment(), "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"},
    )
    assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr
