"""Everything that waits for W&B reaches its server, and nothing is sent twice."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine
from terminal import start
from tiny import settings_at
from tracked import OFFLINE, WAIT_S, ended, finished_run, only_run, start_scenario, started, trace_of, wait_for
from wandb_server import KEY, WandbServer, wandb_server

from finetune.training_run_tracking import TrainingTracker
from rag.encoders.adapters import CARD, CONFIG, WEIGHTS, Adapter, AdapterCard, read_adapter
from rag.errors import DeliveryError, WorkspaceBusy
from rag.evaluation.publish import Beside, publish
from rag.evaluation.run_store import Plan, RunStore
from rag.evaluation.summary import summarise
from rag.evaluation.variants import Variant
from rag.settings import TrackingSettings
from rag.tracing.day_figures import day_figures
from rag.tracing.ledger import NOTHING, day_start
from rag.tracing.processes import process_identity
from rag.tracing.trace_store import TraceStore
from rag.tracing.wandb_day import Pace, day_of_run, day_run_id
from rag.tracing.wandb_delivery import FolderDelivery, TraceDelivery
from rag.tracing.wandb_folders import folders_to_upload, run_folders
from rag.tracing.wandb_run import RunLabel, open_run
from rag.workspace import Workspace
from ui.app.app import open_app
from ui.cli import cli
from ui.doctor.store_checks import check_pending

pytestmark = [pytest.mark.usefixtures("isolated_wandb"), pytest.mark.slow]

AUTO = TrackingSettings()
TODAY = date.today()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A W&B server that this process and those that it starts are logged in to."""
    import wandb

    with wandb_server() as server:
        log_in(server, monkeypatch)
        yield server
        wandb.teardown()
    assert server.unknown == []


@pytest.fixture
def tiny_adapter(tmp_path: Path) -> Adapter:
    """An adapter folder as a training leaves it."""
    card = AdapterCard(name="citer", task="sft", base="tiny", base_sha256="ab" * 32, rank=4, recipe={})
    folder = tmp_path / "citer"
    folder.mkdir()
    for name in (CONFIG, WEIGHTS):
        (folder / name).write_text("{}")
    (folder / CARD).write_text(card.model_dump_json())
    return read_adapter(folder)


def log_in(server: WandbServer, monkeypatch: pytest.MonkeyPatch, key: str = KEY) -> None:
    import wandb

    monkeypatch.setenv("WANDB_BASE_URL", server.base_url)
    monkeypatch.setenv("WANDB_API_KEY", key)
    # W&B reads its environment once.
    wandb.teardown()


def delivered_offline(workspace: Workspace, store: TraceStore, *numbers: int) -> None:
    """Traces in a part of the day's run on the disk."""
    for number in numbers:
        store.save(trace_of(number, process=process_identity()))
    tracker = started(workspace, store)
    tracker.close(WAIT_S)
    assert store.backlog().traces == 0


def send(kind: type[TraceDelivery] | type[FolderDelivery], workspace: Workspace, store: TraceStore) -> list[int]:
    """What a delivery reports while it sends everything."""
    reported: list[int] = []
    delivery = kind(AUTO, workspace, store, {"model": "extractive"})
    waiting = delivery.pending()
    assert delivery.send(reported.append) == waiting
    assert delivery.pending() == 0
    return reported


def ids(*numbers: int) -> list[str]:
    return [trace_of(number).id for number in numbers]


def test_after_a_day_without_a_server_every_trace_arrives_once_in_one_run(
    workspace: Workspace, store: TraceStore, engine: Engine, served: WandbServer
) -> None:
    delivered_offline(workspace, store, 1, 2)
    delivered_offline(workspace, store, 3)
    other = open_run(OFFLINE, workspace.root, {}, RunLabel("a test", "evaluation"))
    other.attempt(lambda run: run.log({"loss": 1.0}))
    assert other.finish()
    store.rate(trace_of(2).id, "up")
    assert served.operations == []

    assert send(FolderDelivery, workspace, store)[-1] == 3
    run = served.runs[day_run_id(workspace, TODAY)]
    assert run.traces == ids(1, 2, 3)
    # The second part goes on where the first one ended.
    assert [line["_step"] for line in run.history] == list(range(len(run.history)))
    assert run.fields["displayName"] == TODAY.isoformat()
    assert run.config["model"]["value"] == "extractive"
    assert served.runs[other.id].history[0]["loss"] == 1.0
    assert sum(name.startswith("media/table/answers") for name in run.files) == 2

    requests = len(served.operations)
    assert send(FolderDelivery, workspace, store) == []
    assert len(served.operations) == requests
    assert served.traces == ids(1, 2, 3)


def test_an_uploaded_evaluation_leads_over_its_adapter_to_the_training_and_its_data(
    workspace: Workspace, store: TraceStore, engine: Engine, served: WandbServer, tiny_adapter: Adapter
) -> None:
    training = TrainingTracker(OFFLINE, workspace.root, "citer-1", {})
    training.rows("citer", {"answers": {"rows": 3}})
    training.result(tiny_adapter)
    training.finish(NOTHING)
    runs = RunStore(engine)
    plan = Plan(variants=(Variant(name="tuned"),), states=("a",), corpus="notes")
    begun = runs.begin(plan, name="", dataset="few", version=1, sha256="ab" * 32)
    summary = summarise(runs, begun, 0)
    evaluation = publish(OFFLINE, workspace, summary, lambda _: iter(()), (), Beside(adapters=(tiny_adapter,)))
    assert training.run.id
    assert evaluation

    send(FolderDelivery, workspace, store)
    assert sorted(served.used) == sorted(
        [(training.run.id, "data-citer"), (evaluation, "adapter-citer"), (evaluation, "few")]
    )
    digests = [digest for name, digest in served.committed if name == "adapter-citer"]
    assert len(digests) == 2
    assert len(set(digests)) == 1


def test_traces_of_an_outage_wait_in_the_store_and_arrive_when_the_server_is_back(
    workspace: Workspace, store: TraceStore, engine: Engine, served: WandbServer
) -> None:
    served.refuses = 503
    store.save(trace_of(1, process=process_identity()))
    tracker = started(workspace, store, AUTO, Pace(confirm_s=1.2, poll_s=0.2, retry_s=0.3))
    wait_for(lambda: tracker.status.mode == "failed")
    assert "answers with the error 503" in tracker.status.detail
    with pytest.raises(DeliveryError, match="answers with the error 503"):
        TraceDelivery(AUTO, workspace, store, {}).send(lambda _: None)
    assert store.backlog().traces == 1
    served.refuses = None
    # A process that lives tries again by itself.
    wait_for(lambda: tracker.status.mode == "online")
    tracker.close(WAIT_S)
    assert served.traces == ids(1)

    store.save(trace_of(2, process=process_identity()))
    assert send(TraceDelivery, workspace, store) == [1]
    assert served.traces == ids(1, 2)
    run = served.runs[day_run_id(workspace, TODAY)]
    assert run.summary.items() >= day_figures(engine, TODAY).items()
    assert store.get(trace_of(2).id).tracked == run.name
    assert folders_to_upload(workspace.wandb) == []


def test_a_run_whose_server_vanished_is_uploaded_from_the_disk(
    workspace: Workspace, store: TraceStore, served: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(trace_of(1, process=process_identity()))
    tracker = started(workspace, store, AUTO)
    wait_for(lambda: tracker.status.run_path)
    served.refuses = 503
    store.save(trace_of(2, process=process_identity()))
    tracker.wake()
    wait_for(lambda: store.get(trace_of(2).id).tracked)
    tracker.close(4)
    assert tracker.status.mode == "failed"
    (folder,) = folders_to_upload(workspace.wandb)
    assert folder.path.name.startswith("run-")
    served.refuses = None
    send(FolderDelivery, workspace, store)
    # What may have arrived is sent again, with the same ids.
    assert set(served.traces) == set(ids(1, 2))


def test_an_upload_that_was_interrupted_goes_on_where_it_stopped(
    workspace: Workspace, store: TraceStore, served: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag.tracing.wandb_delivery._CHECK_S", 0.5)
    for name in ("first", "second"):
        run = open_run(OFFLINE, workspace.root, {}, RunLabel("a test", "evaluation", id=name))
        run.attempt(lambda run: run.log({"loss": 1.0}))
        assert run.finish()
    monkeypatch.setattr("rag.tracing.wandb_delivery._AT_ONCE", 1)

    def vanish(sent: int) -> None:
        served.refuses = 503 if sent else None

    delivery = FolderDelivery(AUTO, workspace, store, {})
    with pytest.raises(DeliveryError, match="answers with the error 503") as caught:
        delivery.send(vanish)
    assert "repeat `ragsmith sync`" in str(caught.value)
    assert delivery.pending() == 1
    served.refuses = None
    assert delivery.send(lambda _: None) == 1
    assert [len(served.runs[name].history) for name in ("first", "second")] == [1, 1]


def test_the_parts_of_a_day_may_arrive_in_any_order(
    workspace: Workspace, store: TraceStore, engine: Engine, served: WandbServer
) -> None:
    delivered_offline(workspace, store, 1)
    store.save(trace_of(2, process=process_identity()))
    send(TraceDelivery, workspace, store)
    run = served.runs[day_run_id(workspace, TODAY)]
    figures = day_figures(engine, TODAY)
    assert figures["day/questions"] == 2
    send(FolderDelivery, workspace, store)
    assert run.traces == ids(2, 1)
    assert run.summary.items() >= figures.items()


def test_each_day_has_its_run_with_its_figures(workspace: Workspace, store: TraceStore, engine: Engine) -> None:
    yesterday = TODAY - timedelta(days=1)
    store.save(trace_of(1, started=day_start(yesterday) + 9, process=process_identity(), status="abstained"))
    store.save(trace_of(2, started=day_start(yesterday) + 8, process=process_identity(), latency_s=3.0))
    store.save(trace_of(3, process=process_identity()))
    store.rate(trace_of(2).id, "down")
    delivery = TraceDelivery(OFFLINE, workspace, store, {})
    assert delivery.send(lambda _: None) == 3
    folders = {folder.run_id: folder for folder in run_folders(workspace.wandb)}
    assert {day_of_run(run_id) for run_id in folders} == {yesterday, TODAY}
    first = finished_run(folders[day_run_id(workspace, yesterday)].file)
    assert [tree["span_id"] for tree in first.trees] == ids(2, 1)
    assert first.summary["day/questions"] == 2
    assert first.summary["day/abstained_share"] == 0.5
    assert (first.summary["status/ok"], first.summary["status/abstained"]) == (1, 1)
    assert first.summary["day/thumbs_down"] == 1
    assert first.summary["day/latency_p95_s"] == pytest.approx(3.0, rel=0.08)
    assert first.summary["cost/total_usd"] == pytest.approx(0.4)
    assert len(first.summary_keys) <= 30
    assert finished_run(folders[day_run_id(workspace, TODAY)].file).summary["day/questions"] == 1


def test_the_same_workspace_and_day_have_the_same_run_in_every_process(workspace: Workspace) -> None:
    body = "from rag.tracing.wandb_day import day_run_id; print(day_run_id(workspace, date.today()))"
    status, found, _ = ended(start_scenario(body, str(workspace.root)))
    assert (status, found.strip()) == (0, day_run_id(workspace, TODAY))
    assert day_of_run(day_run_id(workspace, TODAY)) == TODAY
    assert day_of_run("x7kq02ab") is None


@pytest.mark.parametrize(
    ("key", "said"), [("", "no API key"), ("x" * 40, "does not accept the API key"), ("short", "WANDB_API_KEY")]
)
def test_without_a_usable_key_it_says_what_is_missing(
    key: str,
    said: str,
    workspace: Workspace,
    store: TraceStore,
    served: WandbServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delivered_offline(workspace, store, 1)
    log_in(served, monkeypatch, key)
    delivery = FolderDelivery(AUTO, workspace, store, {})
    assert delivery.pending() == 1
    with pytest.raises(DeliveryError, match=said):
        delivery.send(lambda _: None)
    assert delivery.pending() == 1


@pytest.mark.parametrize("mode", ["off", "offline"])
def test_settings_that_keep_everything_here_leave_nothing_to_upload(
    mode: str, workspace: Workspace, store: TraceStore, served: WandbServer
) -> None:
    delivered_offline(workspace, store, 1)
    settings = TrackingSettings.model_validate({"wandb": mode})
    assert FolderDelivery(settings, workspace, store, {}).pending() == 0
    assert served.operations == []


def test_one_process_delivers_at_a_time(
    workspace: Workspace, store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag.tracing.wandb_delivery._LOCK_S", 0.1)
    store.save(trace_of(1, process=process_identity()))
    with workspace.delivering():
        with pytest.raises(WorkspaceBusy, match="is delivering the traces"):
            TraceDelivery(OFFLINE, workspace, store, {}).send(lambda _: None)
        # That process takes them while this one waits.
        claimed = {trace.id for trace in store.claim(9)}
        assert TraceDelivery(OFFLINE, workspace, store, {}).send(lambda _: None) == 0
        store.release(claimed)
        tracker = started(workspace, store)
        store.save(trace_of(2, process=process_identity()))
        tracker.wake()
    # It takes over when the lock is free.
    wait_for(lambda: store.get(trace_of(2).id).tracked)
    tracker.close(WAIT_S)
    assert [tree["span_id"] for tree in only_run(workspace).trees] == ids(1, 2)


def test_a_folder_waits_until_its_process_has_ended(workspace: Workspace) -> None:
    body = """
    from rag.tracing.wandb_run import RunLabel, open_run
    run = open_run(TrackingSettings(wandb="offline"), workspace.root, {}, RunLabel("a test", "tune"))
    run.attempt(lambda run: run.log({"loss": 1.0}))
    print("open", flush=True)
    time.sleep(60)
    """
    with start_scenario(body, str(workspace.root)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        assert len(run_folders(workspace.wandb)) == 1
        assert folders_to_upload(workspace.wandb) == []
        process.kill()
    assert folders_to_upload(workspace.wandb) == run_folders(workspace.wandb)


# The command, and what commands leave to it


def sync(workspace: Workspace, *options: str, mode: str = "auto") -> Result:
    arguments = ["--home", str(workspace.root), "sync", *options]
    return CliRunner().invoke(cli, arguments, prog_name="ragsmith", env={"RAGSMITH_TRACKING__WANDB": mode})


def test_the_command_sends_folders_then_traces_and_is_repeated_without_effect(
    workspace: Workspace, store: TraceStore, served: WandbServer
) -> None:
    delivered_offline(workspace, store, 1)
    store.save(trace_of(2, process=process_identity()))
    result = sync(workspace, "--json")
    assert result.exit_code == 0, result.output
    folders, traces = json.loads(result.stdout)["deliveries"]
    assert (folders["sent"], folders["pending"], folders["error"]) == (1, 0, "")
    assert (traces["sent"], traces["pending"], traces["error"]) == (1, 0, "")
    assert served.traces == ids(1, 2)
    again = sync(workspace)
    assert (again.exit_code, again.stdout, again.stderr) == (0, "Nothing is pending.\n", "")
    assert served.traces == ids(1, 2)


def test_without_a_key_traces_reach_the_disk_and_the_command_says_what_is_missing(
    workspace: Workspace, store: TraceStore
) -> None:
    store.save(trace_of(1, process=process_identity()))
    result = sync(workspace)
    assert result.exit_code == 1
    assert result.stdout == "Sent 1: traces to W&B.\n"
    assert result.stderr.startswith(
        "Error: 1 W&B run cannot be uploaded, because there is no API key. Run `wandb login`"
    )
    assert result.stderr.count("\n") == 1
    assert [tree["span_id"] for tree in only_run(workspace).trees] == ids(1)
    # A person who keeps everything here misses nothing.
    assert sync(workspace, mode="offline").stdout == "Nothing is pending.\n"


def test_ctrl_c_ends_an_upload_and_leaves_no_process(
    workspace: Workspace, store: TraceStore, served: WandbServer
) -> None:
    delivered_offline(workspace, store, 1)
    served.busy = {"RunResumeStatus"}
    process = start(workspace.root, "sync", RAGSMITH_TRACKING__WANDB="auto")
    wait_for(lambda: len(psutil.Process(process.pid).children(recursive=True)) > 1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    status, out, err = ended(process)
    assert (status, out, err) == (130, "", "\nStopped.\n")
    wait_for(lambda: not any(child.is_running() for child in children))
    served.busy = set()
    assert send(FolderDelivery, workspace, store) == [1]
    assert served.traces == ids(1)


def test_a_command_leaves_its_traces_and_says_so(workspace: Workspace) -> None:
    body = """
    from rag.settings import Settings
    from ui.app.app import open_app
    app = open_app(Settings(home=workspace.root))
    app.stores.traces.save(trace_of(1))
    app.tracking.on_traced()
    print(app.tracking.notice)
    print(app.tracking.status.mode)
    app.close()
    print("wandb" in sys.modules)
    """
    said = "Waiting in the workspace for W&B: 1 trace. `ragsmith sync` delivers now."
    assert ended(start_scenario(body, str(workspace.root))) == (0, f"{said}\noffline\nFalse\n", "")


def test_the_doctor_names_what_waits(workspace: Workspace, store: TraceStore) -> None:
    settings = settings_at(workspace.root, tracking={"wandb": "offline"})
    assert check_pending(settings).detail == "nothing waits for W&B"
    store.save(trace_of(1, process=process_identity()))
    assert check_pending(settings).detail == "traces to W&B: 1; `ragsmith sync` sends them"


@pytest.mark.parametrize("many", [False, True])
def test_a_command_delivers_what_waits_since_yesterday_or_is_much(
    many: bool, workspace: Workspace, store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.app.tracking.MOST_WAITING", 1 if many else 200)
    started = day_start(TODAY if many else TODAY - timedelta(days=1))
    store.save(trace_of(1, started=started, process=process_identity()))
    store.save(trace_of(2, process=process_identity()))
    app = open_app(settings_at(workspace.root, tracking={"wandb": "offline"}))
    app.close()
    assert store.backlog().traces == 2
    app = open_app(settings_at(workspace.root, tracking={"wandb": "offline"}))
    app.tracking.on_traced()
    app.close()
    assert store.backlog().traces == 0
    assert len(run_folders(workspace.wandb)) == (1 if many else 2)
