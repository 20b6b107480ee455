"""Evaluation runs of a workspace: which parts a plan needs, and whether a run may go on."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import DatasetError, EvaluationError, SettingsError
from rag.evaluation.compare import Comparison, Side
from rag.evaluation.run_store import Plan, Run, RunStatus, RunStore, by_case
from rag.evaluation.runner import Evaluation, EvaluationProgress, ReadyVariant
from rag.evaluation.scoring import Scorer
from rag.evaluation.variants import Variant
from rag.settings import Settings
from rag.workspace import disk_errors
from ui.app.judging import Judges

if TYPE_CHECKING:
    from rag.evaluation.dataset_store import DatasetStore, DatasetVersion
    from rag.evaluation.summary import Summary
    from ui.app.models import Models
    from ui.app.releases import Releases
    from ui.app.stores import Stores

_log = logging.getLogger(__name__)
# Tables that are kept, and how many times as long as it took to make one it is good for while a run goes on.
SUMMARIES = 32
STALE = 20.0


@dataclass
class _Working:
    """A run that this process works on in the background."""

    task: asyncio.Task[RunStatus]
    stop: asyncio.Event
    progress: EvaluationProgress | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    """A table that was made, of so many answers; ``took`` in seconds."""

    summary: Summary
    status: RunStatus
    count: int
    made: float
    took: float


class Evaluations:
    """Begins, continues and reads evaluation runs."""

    def __init__(self, settings: Settings, stores: Stores, models: Models, releases: Releases) -> None:
        from rag.evaluation.dataset_store import DatasetStore

        self._settings = settings
        self._stores = stores
        self._releases = releases
        self._working: dict[str, _Working] = {}
        self._summaries: dict[tuple[str, int], _Known] = {}
        self.runs = RunStore(stores.engine)
        self.datasets: DatasetStore = DatasetStore(stores.engine)
        self.judges = Judges(settings, stores, models)

    def start(self, run: Run) -> None:
        """Work on a run in the background of the event loop that calls this; it ends by itself, or by ``stop``."""
        stop = asyncio.Event()

        def show(now: EvaluationProgress) -> None:
            working.progress = now

        task = asyncio.get_running_loop().create_task(self.work(run, stop, show))
        working = self._working[run.id] = _Working(task, stop)
        task.add_done_callback(lambda ended: self._ended(run.id, ended))

    def stop(self, run_id: str) -> bool:
        """Stop a run of this process after the answers that are being given; whether there is one."""
        working = self._working.get(run_id)
        if working:
            working.stop.set()
        return working is not None

    def progress(self, run_id: str) -> EvaluationProgress | None:
        """How far a run of this process is; None where none is worked on, or nothing is answered yet."""
        working = self._working.get(run_id)
        return working.progress if working else None

    def is_working(self, run_id: str) -> bool:
        """Whether this process works on a run."""
        return run_id in self._working

    def _ended(self, run_id: str, task: asyncio.Task[RunStatus]) -> None:
        del self._working[run_id]
        if not task.cancelled() and (error := task.exception()):
            _log.error("The evaluation %s broke off: %s", run_id, error)

    def begin(
        self,
        dataset: str,
        variants: Sequence[Variant],
        *,
        name: str = "",
        corpus: str = "",
        judge: str = "",
        at_once: int = 4,
    ) -> Run:
        """A new run over a dataset, ``NAME`` or ``NAME@VERSION``; nothing is asked yet.

        Raises:
            RagsmithError: The dataset, or a part that a variant needs, is missing.
        """
        version = self.datasets.resolve(dataset)
        if not variants:
            raise SettingsError("There is no variant to answer.", fix="Write one a line: `NAME: SETTING=VALUE …`.")
        if not version.size:
            raise EvaluationError(
                f"The dataset {version.name}@{version.version} is empty.", fix="Add cases to it."
            )
        pinned = tuple(self.pinned(variant) for variant in variants)
        repeated = {each.name for each in pinned if [other.name for other in pinned].count(each.name) > 1}
        if repeated:
            raise SettingsError(
                f"Two variants are called {', '.join(sorted(repeated))}.", fix="Give each a name of its own."
            )
        wanted = corpus or self._settings.corpus
        # What it lacks is told before anything is asked.
        opened = self.judges.of_answers(judge)
        plan = Plan(
            variants=pinned,
            states=tuple(self._state(variant, wanted) for variant in pinned),
            corpus=wanted,
            judge=judge,
            judged_by=opened.identity,
            at_once=at_once,
        )
        return self.runs.begin(
            plan,
            name=name or " vs ".join(each.name for each in pinned),
            dataset=version.name,
            version=version.version,
            sha256=version.sha256,
        )

    async def work(
        self,
        run: Run,
        stop: asyncio.Event,
        on_progress: Callable[[EvaluationProgress], None] = lambda _: None,
        *,
        fresh: bool = False,
    ) -> RunStatus:
        """Answer what a run has not answered yet.

        Args:
            run: Begun, or taken up with ``resume``.
            stop: Set it to stop.
            on_progress: Called after each answer.
            fresh: Whether answers of earlier runs are not taken from the cache.
        """
        from rag.evaluation.cache import AnswerCache

        version = self.dataset_of(run)
        evaluation = Evaluation(
            run=run,
            size=version.size,
            cases=lambda start, end: tuple(self.datasets.cases(version, start, end - start)),
            variants=[
                ReadyVariant(state, self._releases.assistant(variant).start)
                for variant, state in zip(run.plan.variants, run.plan.states, strict=True)
            ],
            store=self.runs,
            scorer=Scorer(self._stores.encoder),
            judge=self.judges.of_answers(run.plan.judge),
            cache=None if fresh else AnswerCache(self._stores.engine),
            on_progress=on_progress,
        )
        status = await evaluation.work(stop)
        if status == "finished":
            await asyncio.to_thread(self._publish, run.id)
        return status

    def resume(self, run_id: str) -> Run:
        """Take up a run that was stopped, broken off or failed.

        Raises:
            EvaluationError: There is none, it has finished, or what it compares has changed since.
        """
        self.runs.list(1)
        run = self.runs.get(run_id)
        if run.status in ("running", "finished"):
            # It says so.
            return self.runs.resume(run)
        changed = [
            variant.name
            for variant, state in zip(run.plan.variants, run.plan.states, strict=True)
            if self._state(variant, run.plan.corpus) != state
        ]
        if self.judges.of_answers(run.plan.judge).identity != run.plan.judged_by:
            changed.append("the judge")
        if changed:
            raise EvaluationError(
                f"The run {run.id} cannot go on: of {', '.join(changed)} the settings, a model or the corpus have "
                "changed since it began, and its answers would not compare.",
                fix="Begin a new run; answers to what is unchanged come from the cache.",
            )
        return self.runs.resume(run)

    def dataset_of(self, run: Run) -> DatasetVersion:
        """The dataset version that a run asks.

        Raises:
            DatasetError: It is not there any more.
        """
        return self.datasets.resolve(f"{run.dataset}@{run.dataset_version}")

    def variant_of(self, run: Run, name: str) -> int:
        """The number of a variant.

        Raises:
            EvaluationError: The run has none of that name.
        """
        names = [variant.name for variant in run.plan.variants]
        if name not in names:
            raise EvaluationError(
                f"The run {run.id} has no variant {name!r}.", fix=f"It has: {', '.join(map(repr, names))}."
            )
        return names.index(name)

    def answers(self, run: Run) -> Iterator[dict[str, Any]]:
        """Every answer with its case, case by case, as plain data."""
        found = by_case([self.runs.cells(run.id, number) for number in range(len(run.plan.variants))])
        row = next(found, None)
        for position, case in enumerate(self.datasets.cases(self.dataset_of(run))):
            if row is None or row[0] != position:
                continue
            for variant, cell in zip(run.plan.variants, row[1], strict=True):
                if cell is not None:
                    yield {**asdict(cell), "case": case.as_json(), "variant": variant.name}
            row = next(found, None)

    def size_of(self, run: Run) -> int:
        """Cases of the dataset version that a run asks; 0 where it is not there any more."""
        try:
            return self.dataset_of(run).size
        except DatasetError:
            return 0

    def report(self, run: Run, baseline: int = 0, path: Path | None = None) -> Path:
        """Write the report of a run, as far as it is.

        Args:
            run: Which one.
            baseline: Number of the variant that the others are compared with.
            path: Where to; by default among the runs of the workspace.

        Raises:
            EvaluationError: It cannot be written.
        """
        from rag.evaluation.run_report import write_report

        target = path or self._stores.workspace.runs / f"evaluation-{run.id}.html"
        with disk_errors(f"write {target}"):
            target.parent.mkdir(parents=True, exist_ok=True)
        write_report(
            target,
            self.summary(run, baseline),
            lambda variant: self.runs.cells(run.id, variant),
            self.datasets.cases(self.dataset_of(run)),
        )
        return target

    def side(self, run: Run, variant: str = "") -> Side:
        """A variant of a run, to be compared; by default the baseline.

        Raises:
            EvaluationError: The run has no such variant.
            DatasetError: Its dataset is not there any more.
        """
        return Side(run, self.variant_of(run, variant) if variant else 0, self.dataset_of(run))

    def summary_against(self, run: Run, base: Side) -> tuple[Summary, tuple[str, ...]]:
        """The table of a run with a variant of another run as its baseline, and what else differs between the two.

        Raises:
            EvaluationError: They have no answered case in common.
        """
        from rag.evaluation.compare import differing
        from rag.evaluation.summary import read_columns, summarise_against

        mine = self.side(run)
        # By the positions of this run's cases.
        held = self.compare(mine, base).other
        columns = [read_columns(self.runs, run, number) for number in range(len(run.plan.variants))]
        named = base.run.plan.variants[base.variant]
        outside = named.model_copy(update={"name": f"{named.name} of {base.run.name}"[:80]})
        return summarise_against(run, mine.version.size, (outside, held), columns), differing(base, mine)

    def compare(self, one: Side, other: Side) -> Comparison:
        """Two variants case by case; see ``rag.evaluation.compare.compare``."""
        from rag.evaluation.compare import compare

        return compare(self.runs, self.datasets, one, other)

    def _publish(self, run_id: str) -> None:
        """Write the report, and deliver the run to W&B; a failure there leaves the run as it is."""
        from rag.evaluation.publish import publish

        run = self.runs.get(run_id)
        tracked = publish(
            self._settings.tracking,
            self._stores.workspace,
            self.summary(run),
            lambda variant: self.runs.cells(run.id, variant),
            self.datasets.cases(self.dataset_of(run)),
            self.report(run),
        )
        if tracked:
            self.runs.mark_tracked(run.id, tracked)

    def summary(self, run: Run, baseline: int = 0) -> Summary:
        """The table of a run, as far as it is."""
        from rag.evaluation.summary import summarise

        return summarise(self.runs, run, self.dataset_of(run).size, baseline)

    def recent_summary(self, run: Run, baseline: int = 0) -> Summary:
        """The same for a page that asks again and again: while a run is worked on it may be some seconds old."""
        count = self.runs.count(run.id)
        key = (run.id, baseline)
        known = self._summaries.get(key)
        now = time.monotonic()
        if (
            known
            and known.status == run.status
            and (known.count == count or now < known.made + STALE * known.took)
        ):
            return known.summary
        summary = self.summary(run, baseline)
        ended = time.monotonic()
        self._summaries.pop(key, None)
        self._summaries[key] = _Known(summary, run.status, count, ended, ended - now)
        while len(self._summaries) > SUMMARIES:
            del self._summaries[next(iter(self._summaries))]
        return summary

    def pinned(self, variant: Variant) -> Variant:
        """The variant with the version that its prompt's label names now."""
        named = self._releases.resolve(variant).prompt.label
        return variant.model_copy(update={"changes": {**variant.changes, "prompt": named}})

    def _state(self, variant: Variant, corpus: str) -> str:
        """What decides the answers of a variant."""
        index = self._stores.index(corpus)
        told = [
            self._releases.pipeline(corpus, variant).release.sha256,
            # A release names the prompt that answers, and not those beside it.
            *(self._stores.prompt(name).sha256 for name in ("condense", "repair-json")),
            self._settings.openai.base_url,
            index.id,
            index.generation,
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()
