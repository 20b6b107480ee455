"""Evaluation runs of a workspace: the parts that a plan needs, and whether a run can be resumed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import DatasetError, EvaluationError, RagsmithError, SettingsError
from rag.evaluation.compare import Comparison, Side
from rag.evaluation.run_store import SCORING, Plan, Run, RunStatus, RunStore, by_case
from rag.evaluation.runner import Evaluation, EvaluationProgress, ReadyVariant
from rag.evaluation.scoring import Scorer
from rag.evaluation.variants import Variant
from rag.settings import Settings
from rag.tracing.budget import NoBudget
from rag.workspace import disk_errors
from ui.app.judging import Judges

if TYPE_CHECKING:
    from rag.encoders.adapters import Adapter
    from rag.evaluation.dataset_store import DatasetVersion
    from rag.evaluation.summary import Summary
    from rag.types import Answer
    from ui.app.models import Models
    from ui.app.releases import Releases
    from ui.app.stores import Stores

_log = logging.getLogger(__name__)
SUMMARIES = 32
"""The number of cached tables."""
STALE = 20.0
"""While a run is active, a table stays valid for so many times the time it took to compute."""


@dataclass
class _ActiveRun:
    """A run that this process works on in the background."""

    task: asyncio.Task[RunStatus]
    stop: asyncio.Event
    progress: EvaluationProgress | None = None


@dataclass(frozen=True, slots=True)
class _CachedSummary:
    """A table of the first ``count`` answers; times are in seconds."""

    summary: Summary
    status: RunStatus
    count: int
    computed_at: float
    duration: float


class Evaluations:
    """Begins, resumes and reads evaluation runs."""

    def __init__(self, settings: Settings, stores: Stores, models: Models, releases: Releases) -> None:
        self._settings = settings
        self._stores = stores
        self._models = models
        self._releases = releases
        self._active: dict[str, _ActiveRun] = {}
        self._summaries: dict[tuple[str, int], _CachedSummary] = {}
        self.runs = RunStore(stores.engine, stores.masker)
        self.datasets = stores.datasets
        self.judges = Judges(settings, stores, models)

    def start(self, run: Run) -> None:
        """Work on a run in the background of the running event loop, until it ends or ``stop`` is called."""
        stop = asyncio.Event()

        def show(now: EvaluationProgress) -> None:
            active.progress = now

        task = asyncio.get_running_loop().create_task(self.work(run, stop, show))
        active = self._active[run.id] = _ActiveRun(task, stop)
        task.add_done_callback(lambda ended: self._ended(run.id, ended))

    def stop(self, run_id: str) -> bool:
        """Stop a run of this process after the current answers; return whether it was active."""
        active = self._active.get(run_id)
        if active:
            active.stop.set()
        return active is not None

    def progress(self, run_id: str) -> EvaluationProgress | None:
        """Return the progress of a run of this process; None if it is not active or nothing is answered yet."""
        active = self._active.get(run_id)
        return active.progress if active else None

    def is_working(self, run_id: str) -> bool:
        """Whether this process works on a run."""
        return run_id in self._active

    def _ended(self, run_id: str, task: asyncio.Task[RunStatus]) -> None:
        del self._active[run_id]
        if not task.cancelled() and (error := task.exception()):
            _log.error("The evaluation %s failed: %s", run_id, error)

    def begin(
        self,
        dataset: str,
        variants: Sequence[Variant],
        *,
        name: str = "",
        corpus: str = "",
        judge: str = "",
        concurrency: int = 4,
    ) -> Run:
        """Create a run over a dataset, ``NAME`` or ``NAME@VERSION``; nothing is asked yet.

        Raises:
            RagsmithError: The dataset, or a part that a variant needs, is missing.
        """
        version = self.datasets.resolve(dataset)
        if not variants:
            raise SettingsError("A run must have a variant.", fix="Write one on a line: `NAME: SETTING=VALUE …`.")
        if not version.size:
            raise EvaluationError(
                f"The dataset {version.name}@{version.version} is empty.", fix="Add cases to it."
            )
        pinned = tuple(self.pinned(variant) for variant in variants)
        names = [variant.name for variant in pinned]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise SettingsError(
                f"Two variants are called {', '.join(sorted(repeated))}.", fix="Give every variant its own name."
            )
        wanted = corpus or self._settings.corpus
        # A problem with the judge is reported before anything is asked.
        opened = self.judges.of_answers(judge)
        plan = Plan(
            variants=pinned,
            states=tuple(self._state(variant, wanted) for variant in pinned),
            corpus=wanted,
            judge=judge,
            judged_by=opened.identity,
            at_once=concurrency,
        )
        return self.runs.begin(
            plan,
            name=name or " vs ".join(names),
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
        """Answer the remaining questions of a run.

        Args:
            run: A run from ``begin`` or ``resume``.
            stop: Stops the run when set.
            on_progress: Called after every answer.
            fresh: Whether to ignore the cached answers of earlier runs.
        """
        from rag.evaluation.cache import AnswerCache

        version = self.dataset_of(run)
        evaluation = Evaluation(
            run=run,
            size=version.size,
            cases=lambda start, end: tuple(self.datasets.cases(version, start, end - start)),
            variants=[
                # The run checks the budget itself: a case that it refuses has no failed answer.
                ReadyVariant(state, replace(self._releases.assistant(variant), budget=NoBudget()).start)
                for variant, state in zip(run.plan.variants, run.plan.states, strict=True)
            ],
            store=self.runs,
            scorer=Scorer(self._stores.encoder),
            judge=self.judges.of_answers(run.plan.judge, run.id),
            cache=None if fresh else AnswerCache(self._stores.engine, self._stores.masker),
            on_progress=on_progress,
            on_cached=lambda answer: self._record_cached(run.id, answer),
            budget=self._releases.budget,
        )
        status = await evaluation.work(stop)
        if status == "finished":
            await asyncio.to_thread(self._publish, run.id)
        return status

    def _record_cached(self, run_id: str, answer: Answer) -> None:
        """Add an answer of the cache, which makes no trace, to the ledger."""
        from rag.tracing.ledger import Expense

        self._stores.ledger.add(
            Expense(
                "evaluation",
                run_id,
                "cached answer",
                answer.model,
                self._stores.prices.checked.isoformat(),
                0.0,
                saved_usd=answer.cost_usd,
                prompt=answer.prompt,
                release=answer.release,
            )
        )

    def resume(self, run_id: str) -> Run:
        """Resume a run that was stopped or interrupted, or that failed, or whose answers did.

        Raises:
            EvaluationError: There is no such run, nothing is left to ask, or what it compares has changed since.
        """
        self.runs.list(1)
        run = self.runs.get(run_id)
        if not self.runs.is_resumable(run):
            # Raises the fitting error.
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
                f"The run {run.id} cannot be resumed: the settings, a model or the corpus of {', '.join(changed)} "
                "have changed since it began, so its answers would not be comparable.",
                fix="Begin a new run; unchanged answers come from the cache.",
            )
        return self.runs.resume(run)

    def dataset_of(self, run: Run) -> DatasetVersion:
        """Return the dataset version of a run, also of an archived dataset.

        Raises:
            DatasetError: It no longer exists.
        """
        return self.datasets.of_run(run.dataset, run.dataset_version, run.dataset_sha256)

    def variant_of(self, run: Run, name: str) -> int:
        """Return the number of a variant.

        Raises:
            EvaluationError: The run has no variant of that name.
        """
        names = [variant.name for variant in run.plan.variants]
        if name not in names:
            raise EvaluationError(
                f"The run {run.id} has no variant {name!r}.", fix=f"It has: {', '.join(map(repr, names))}."
            )
        return names.index(name)

    def answers(self, run: Run) -> Iterator[dict[str, Any]]:
        """Yield every answer with its case, case by case, as plain data."""
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
        """Return the number of cases of a run's dataset version; 0 if it no longer exists."""
        try:
            return self.dataset_of(run).size
        except DatasetError:
            return 0

    def report(self, run: Run, baseline: int = 0, path: Path | None = None) -> Path:
        """Write the report of a run, which may be unfinished.

        Args:
            run: The run.
            baseline: The number of the variant that the others are compared with.
            path: The file to write; by default among the runs of the workspace.

        Raises:
            EvaluationError: The file cannot be written.
        """
        from rag.evaluation.cases import masked_case
        from rag.evaluation.run_report import write_report

        target = path or self._stores.workspace.runs / f"evaluation-{run.id}.html"
        with disk_errors(f"write {target}"):
            target.parent.mkdir(parents=True, exist_ok=True)
        write_report(
            target,
            self.summary(run, baseline),
            lambda variant: self.runs.cells(run.id, variant),
            (masked_case(case, self._stores.masker) for case in self.datasets.cases(self.dataset_of(run))),
        )
        return target

    def side(self, run: Run, variant: str = "") -> Side:
        """Return a variant of a run for a comparison; by default the baseline.

        Raises:
            EvaluationError: The run has no such variant.
            DatasetError: The dataset no longer exists.
        """
        return Side(run, self.variant_of(run, variant) if variant else 0, self.dataset_of(run))

    def summary_against(self, run: Run, base: Side) -> tuple[Summary, tuple[str, ...]]:
        """Return the table of a run with a variant of another run as its baseline, and their other differences.

        Raises:
            EvaluationError: They have no answered case in common.
        """
        from rag.evaluation.compare import differing
        from rag.evaluation.summary import in_cases_of, read_columns, summarise_against

        mine = self.side(run)
        columns = [read_columns(self.runs, run, number) for number in range(len(run.plan.variants))]
        # Its cases are numbered as in this run, and the others do not count.
        baseline = in_cases_of(self.compare(mine, base).other, columns)
        named = base.run.plan.variants[base.variant]
        outside = named.model_copy(update={"name": f"{named.name} of {base.run.name}"[:80]})
        return summarise_against(run, mine.version.size, (outside, baseline), columns), differing(base, mine)

    def compare(self, one: Side, other: Side) -> Comparison:
        """Compare two variants case by case; see ``rag.evaluation.compare.compare``."""
        from rag.evaluation.compare import compare

        return compare(self.runs, self.datasets, one, other)

    def _publish(self, run_id: str) -> None:
        """Write the report and deliver the run to W&B; a failed delivery leaves the run as it is."""
        from rag.evaluation.publish import Beside, publish

        run = self.runs.get(run_id)
        beside = Beside(self.report(run), self._stores.ledger.spent_on(run.id), self._adapters(run))
        tracked = publish(
            self._settings.tracking,
            self._stores.workspace,
            self.summary(run),
            lambda variant: self.runs.cells(run.id, variant),
            self.datasets.cases(self.dataset_of(run)),
            beside,
            self._stores.masker,
        )
        if tracked:
            self.runs.mark_tracked(run.id, tracked)

    def _adapters(self, run: Run) -> tuple[Adapter, ...]:
        """Return the adapters of the variants that trainings have made, each once; without those gone since."""
        found: dict[str, Adapter] = {}
        for variant in run.plan.variants:
            try:
                adapter = self._models.tracked_adapter(self._releases.resolve(variant).settings)
            except RagsmithError as error:
                _log.info("The adapter of the variant %s is not tracked: %s", variant.name, error)
                continue
            if adapter is not None:
                found[adapter.identity] = adapter
        return tuple(found.values())

    def summary(self, run: Run, baseline: int = 0) -> Summary:
        """Return the table of a run, which may be unfinished."""
        from rag.evaluation.summary import summarise

        return summarise(self.runs, run, self.dataset_of(run).size, baseline)

    def recent_summary(self, run: Run, baseline: int = 0) -> Summary:
        """Return a table that may be some seconds old while the run is active, for a page that polls."""
        count = self.runs.count(run.id)
        key = (run.id, baseline)
        cached = self._summaries.get(key)
        now = time.monotonic()
        if (
            cached
            and cached.status == run.status
            and (cached.count == count or now < cached.computed_at + STALE * cached.duration)
        ):
            return cached.summary
        summary = self.summary(run, baseline)
        ended = time.monotonic()
        self._summaries.pop(key, None)
        self._summaries[key] = _CachedSummary(summary, run.status, count, ended, ended - now)
        while len(self._summaries) > SUMMARIES:
            del self._summaries[next(iter(self._summaries))]
        return summary

    def pinned(self, variant: Variant) -> Variant:
        """Return the variant with the prompt version that its label names now."""
        named = self._releases.resolve(variant).prompt.label
        return variant.model_copy(update={"changes": {**variant.changes, "prompt": named}})

    def _state(self, variant: Variant, corpus: str) -> str:
        """Return a hash of everything that decides the answers of a variant."""
        index = self._stores.index(corpus)
        deciding = [
            # Replies were read differently before, so that cached answers may be wrong.
            SCORING,
            self._releases.pipeline(corpus, variant).release.sha256,
            # A release names only the prompt that answers.
            *(self._stores.prompt(name).sha256 for name in ("condense", "repair-json")),
            self._settings.openai.base_url,
            index.id,
            index.generation,
        ]
        return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()
