"""The Weights & Biases run that holds a process's traces: starting it, and what is logged to it."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rag.redaction import JSON, MASK, is_secret_key, redact_json
from rag.settings import TrackingSettings
from rag.tracing.trace_store import Span, Trace
from rag.workspace import Workspace

_INIT_TIMEOUT_S = 15
_FINISH_TIMEOUT_S = 20
# The tree of one trace in the run's history is one line, and W&B's server takes lines of some megabytes.
_MAX_TREE_CHARS = 2_000_000
_TREE_STRINGS = (4_000, 400, 40)
# W&B shows at most so many increments of one incremental table.
_MAX_INCREMENTS = 100
_COLUMNS = (
    "question",
    "answer",
    "status",
    "latency_s",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "prompt",
    "release",
    "trace_id",
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """When the worker does what it does not do at once.

    Attributes:
        confirm_s: Seconds from logging a trace to marking it as tracked: more than W&B's flush interval of
            one second, so that a process killed in between leaves the trace to the next.
        stall_s: Seconds after which a run file that has not grown counts as broken.
        table_rows, table_s: A row of the table waits for so many others, or for so long. Every increment
            repeats the names of those before it, so the wait grows with their number.
    """

    confirm_s: float = 2.0
    stall_s: float = 30.0
    table_rows: int = 50
    table_s: float = 60.0


class SwitchedOffError(Exception):
    """W&B's own settings say that there is to be no run."""


class UnusableError(Exception):
    """Tracking cannot go on; the message says why."""


class WandbRun:
    """A W&B run that holds traces, and its table of answers."""

    def __init__(self, run: Any, mode: Literal["online", "offline"], pace: Pace) -> None:
        self._run = run
        self._pace = pace
        self._counts: Counter[str] = Counter()
        self._rows: list[tuple[Any, ...]] = []
        self._oldest_row = 0.0
        self._table: Any = None
        self._table_key = "answers"
        self._tables = 1
        self._increments = 0
        self.id: str = run.id
        self.file = Path(run.settings.sync_file)
        self.mode = mode
        self.path = run.path if mode == "online" else str(self.file.parent)

    def file_size(self) -> int:
        """Bytes that W&B has written of this run, online too."""
        try:
            return self.file.stat().st_size
        except FileNotFoundError:
            return 0

    def log(self, trace: Trace) -> int:
        """Log the tree and the numbers of one trace, and keep its row for the table.

        Returns:
            Bytes by which the run's file grows at least.
        """
        from wandb.sdk.data_types.trace_tree import WBTraceTree

        self._counts[trace.status] += 1
        numbers = {"latency_s": trace.latency_s, "cost_usd": trace.cost_usd}
        numbers |= {"tokens/input": trace.input_tokens, "tokens/output": trace.output_tokens}
        numbers |= {f"latency/{name}": seconds for name, seconds in step_seconds(trace).items()}
        values: dict[str, Any] = {name: number for name, number in numbers.items() if number is not None}
        values |= {f"status/{name}": count for name, count in self._counts.items()}
        tree, size = trace_tree(trace)
        self._run.log({"trace": WBTraceTree(tree), **values})
        if not self._rows:
            self._oldest_row = time.monotonic()
        self._rows.append(_row(trace))
        return size

    def write_table_if_due(self) -> float | None:
        """Write the waiting rows if it is time; seconds until it will be, None where no row waits."""
        if not self._rows:
            return None
        due = self._oldest_row + self._pace.table_s * (self._increments + 1) - time.monotonic()
        if due > 0 and len(self._rows) < self._pace.table_rows:
            return due
        self._write_table()
        return None

    def finish(self) -> None:
        """Write the rest of the table and end the run; returns when W&B has written, or given up sending."""
        if self._rows:
            self._write_table()
        self._run.finish()

    def _write_table(self) -> None:
        import wandb

        if self._table is None or self._increments == _MAX_INCREMENTS:
            # A table keeps its rows in memory for good: a new one also gives them back.
            self._table_key = "answers" if self._table is None else f"answers_{self._tables}"
            self._table = wandb.Table(columns=list(_COLUMNS), log_mode="INCREMENTAL")
            self._tables += 1
            self._increments = 0
        for row in self._rows:
            self._table.add_data(*row)
        self._run.log({self._table_key: self._table})
        self._increments += 1
        self._rows.clear()


def start_run(settings: TrackingSettings, workspace: Workspace, config: Mapping[str, Any], pace: Pace) -> WandbRun:
    """Import W&B and start a run for traces in the workspace; raises as ``init_run`` does."""
    run, mode = init_run(settings, workspace.root, config, job_type="chat")
    return WandbRun(run, mode, pace)


def init_run(
    settings: TrackingSettings, root: Path, config: Mapping[str, Any], *, job_type: str, group: str | None = None
) -> tuple[Any, Literal["online", "offline"]]:
    """Import W&B and start a run.

    Args:
        settings: Project and mode.
        root: Its files are kept in the folder ``wandb`` below.
        config: What W&B shows beside the run.
        job_type: ``chat``, ``tune``.
        group: Runs that belong together.

    Raises:
        SwitchedOffError: W&B's own settings switch it off.
        UnusableError: There is no key to go online with, or the folder cannot be written.
        Exception: Anything that W&B raises.
    """
    import wandb

    # Once for the process as well: messages about keys are printed before a run's settings count.
    wandb.setup(wandb.Settings(silent=True))
    mode = _resolve_mode(settings)
    run = wandb.init(
        project=settings.project,
        entity=settings.entity,
        job_type=job_type,
        group=group,
        config={name: MASK if is_secret_key(name) else redact_json(value) for name, value in config.items()},
        mode=mode,
        # W&B adds its own folder `wandb` to this one.
        dir=str(root),
        # W&B writes into the settings that it is given: they are made anew for each run.
        settings=wandb.Settings(
            silent=True,
            console="off",
            reinit="create_new",
            init_timeout=_INIT_TIMEOUT_S,
            finish_timeout=_FINISH_TIMEOUT_S,
            use_dot_wandb=False,
            symlink=False,
            # Nothing of the person or the machine: no code, repository, packages, host name or statistics.
            save_code=False,
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            label_disable=True,
            host="",
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_disable_stats=True,
            x_save_requirements=False,
            # The default of 15 seconds is what a killed process would lose.
            x_transaction_log_flush_interval=1,
        ),
    )
    if not Path(run.settings.sync_file).is_relative_to(root):
        # Where it cannot write, W&B quietly takes a folder for temporary files.
        run.finish()
        raise UnusableError(f"W&B cannot write to {root / 'wandb'}.")
    return run, mode


def _resolve_mode(settings: TrackingSettings) -> Literal["online", "offline"]:
    """Online or offline, by the settings, W&B's own settings, and whether there is a key."""
    if settings.wandb == "offline":
        return "offline"
    import wandb
    from wandb.sdk.lib import wbauth

    own = wandb.setup().settings
    if settings.wandb == "auto" and own.mode == "disabled":
        raise SwitchedOffError
    if settings.wandb == "auto" and own.mode in ("offline", "dryrun"):
        return "offline"
    # W&B's own search through the environment, netrc and its settings. Without a key, `wandb.init` would ask
    # for one on the terminal.
    key = wbauth.authenticate_session(host=own.base_url, source="ragsmith", prompt=False, update_session=False)
    if key is not None:
        return "online"
    if settings.wandb == "online":
        raise UnusableError("W&B is set to online and there is no API key: run `wandb login`, or set it to auto.")
    return "offline"


def service_process() -> Any:
    """The process that W&B has started to do its work; None where there is none, or it is not this one's."""
    if sys.modules.get("wandb") is None:
        return None
    from wandb.sdk import wandb_setup

    # W&B has no public way to it.
    connection = getattr(wandb_setup.singleton(), "_connection", None)
    return getattr(getattr(connection, "_proc", None), "_process", None)


def service_has_died() -> bool:
    """Whether W&B's service process has ended; what it was given last may be lost with it."""
    service = service_process()
    return service is not None and service.poll() is not None


def end_service() -> None:
    """Kill W&B's service process, if there is one, and wait until it is dead."""
    service = service_process()
    if service is not None:
        service.kill()
        service.wait()


def forget_dead_service() -> bool:
    """Make W&B forget a service process that has died; whether one had.

    Its exit hook would otherwise print a traceback, and no later run of this process could start.
    """
    if not service_has_died():
        return False
    import wandb

    try:
        wandb.teardown()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - that it is dead is known, and said once more
        _log.debug("W&B's service had died: %s", error)
    return True


def trace_tree(trace: Trace) -> tuple[Any, int]:
    """The trace as W&B's tree of spans, and its size in bytes as JSON.

    The larger the whole, the more its texts are clipped.
    """
    tree, size = None, 0
    for limit in _TREE_STRINGS:
        tree = _Forest(trace, limit).root()
        size = len(json.dumps(asdict(tree)))
        if size <= _MAX_TREE_CHARS:
            break
    return tree, size


class _Forest:
    """The spans of a trace by their parents, on the way to W&B's classes."""

    def __init__(self, trace: Trace, limit: int) -> None:
        self._trace = trace
        self._limit = limit
        self._end = trace.started + (trace.latency_s or 0.0)
        # A trace whose process died has no spans: its root stands for it.
        self._spans = trace.spans or (
            Span(trace.id, None, 0, "answer", "chain", trace.status, trace.started, input=trace.question),
        )
        self._children: dict[str | None, list[Span]] = {}
        for span in self._spans:
            self._children.setdefault(span.parent_id, []).append(span)

    def root(self) -> Any:
        trace = self._trace
        root = self._node(self._spans[0])
        root.attributes |= {
            "status": trace.status,
            "trace_id": trace.id,
            "corpus": trace.corpus,
            "model": trace.model,
            "prompt": trace.prompt,
            "release": trace.release,
            "cost_usd": trace.cost_usd,
            "input_tokens": trace.input_tokens,
            "output_tokens": trace.output_tokens,
        }
        return root

    def _node(self, span: Span) -> Any:
        from wandb.sdk.data_types import trace_tree as wb

        kinds = {"llm": wb.SpanKind.LLM, "tool": wb.SpanKind.TOOL, "retriever": wb.SpanKind.TOOL}
        ended = max(self._end if span.ended is None else span.ended, span.started)
        return wb.Span(
            span_id=span.id,
            name=span.name,
            start_time_ms=round(span.started * 1000),
            end_time_ms=round(ended * 1000),
            status_code=wb.StatusCode.SUCCESS if span.status == "ok" else wb.StatusCode.ERROR,
            status_message=clipped(span.error, self._limit) or None,
            span_kind=kinds.get(span.kind, wb.SpanKind.CHAIN),
            attributes={
                "status": span.status,
                "cost_usd": span.cost_usd,
                "input_tokens": span.input_tokens,
                "output_tokens": span.output_tokens,
                **span.attributes,
            },
            results=[wb.Result(self._named("input", span.input), self._named("output", span.output))],
            child_spans=[self._node(child) for child in self._children.get(span.id, ())],
        )

    def _named(self, name: str, value: JSON) -> dict[str, JSON]:
        shown = clipped(value, self._limit)
        if shown is None:
            return {}
        return shown if isinstance(shown, dict) else {name: shown}


def clipped(value: JSON, limit: int) -> JSON:
    """``value`` with every string cut to ``limit`` characters, and a mark that says how many are missing."""
    if isinstance(value, str) and len(value) > limit:
        return f"{value[:limit]}… [{len(value) - limit} characters left out]"
    if isinstance(value, list):
        return [clipped(item, limit) for item in value]
    if isinstance(value, dict):
        return {key: clipped(item, limit) for key, item in value.items()}
    return value


def step_seconds(trace: Trace) -> dict[str, float]:
    """Seconds by the name of the step, summed over its spans, without the root and what LangChain named."""
    seconds: Counter[str] = Counter()
    for span in trace.spans:
        if span.parent_id is not None and span.ended is not None and not span.name.startswith("Runnable"):
            seconds[span.name] += span.ended - span.started  # type: ignore[assignment]
    return dict(seconds)


def _row(trace: Trace) -> tuple[Any, ...]:
    texts = (clipped(trace.question, 1_000), clipped(trace.answer, 4_000))
    return (*texts, *(getattr(trace, name) for name in _COLUMNS[2:-1]), trace.id)
