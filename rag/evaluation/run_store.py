"""Evaluation runs in the database: plans, progress and answers."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, Engine, Row, and_, delete, exists, func, insert, or_, select, update

from rag.database import reading, writing
from rag.errors import EvaluationError
from rag.evaluation.variants import Variant
from rag.masking import Masker
from rag.tables import cells as cells_table
from rag.tables import evaluation_runs as runs_table
from rag.tracing.processes import interrupt_dead, process_identity
from rag.tracing.trace_masking import TraceMasker
from rag.types import AnswerStatus

RunStatus = Literal["running", "finished", "stopped", "interrupted", "failed"]

# Increment when the values of a metric change. Since 2, a blocked reply is a failure, and a cached answer has its
# cost.
SCORING = 2

SHORTEST_ID = 4
# Cells per read.
PAGE = 500


class Plan(BaseModel):
    """Plan of a run, stored as JSON.

    Attributes:
        variants: The variants, the baseline first; their prompts are named by version, because labels move.
        states: Identity of the release and index of every variant, so that a run is not resumed after a change.
        corpus: Name of the corpus.
        judge: The judging model; empty without one.
        judged_by: The judging model and its prompt; points of different judges are not comparable.
        scoring: Version of the scoring; scores of different versions are not comparable.
        at_once: Number of concurrent questions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variants: tuple[Variant, ...] = Field(min_length=1)
    states: tuple[str, ...]
    corpus: str
    judge: str = ""
    judged_by: str = ""
    scoring: int = SCORING
    at_once: int = Field(default=4, ge=1, le=64)


@dataclass(frozen=True, slots=True)
class Run:
    """One run.

    Attributes:
        started, ended: Seconds since the epoch.
        dataset: Name of the dataset; ``dataset_version`` and ``dataset_sha256`` identify its version.
        tracked: The W&B run with the results; empty without one.
    """

    id: str
    name: str
    started: float
    status: RunStatus
    dataset: str
    dataset_version: int
    dataset_sha256: str
    plan: Plan
    ended: float | None = None
    error: str = ""
    tracked: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """The score of an answer by one metric, as a term of a weighted mean.

    Attributes:
        value: The numerator.
        weight: The denominator; 0 if the metric does not apply to the case.
    """

    value: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class CellPassage:
    """A passage in the prompt of an answer.

    Attributes:
        name: Display name of the source.
        cited: Whether the answer cites it.
    """

    name: str
    title: str
    page: int | None
    text: str
    cited: bool


@dataclass(frozen=True, slots=True)
class Cell:
    """The answer of a variant to a case.

    Attributes:
        variant: Index of the variant in the plan.
        position: Position of the case in the dataset version, from 0.
        scores: Scores by name of the metric.
        rationale: The judge's reason; empty without a judge.
        latency_s: Seconds of the original answer, even if it came from the cache.
        cost_usd: Cost of the original answer, even if it came from the cache; None means unknown.
    """

    variant: int
    position: int
    status: AnswerStatus
    answer: str = ""
    error: str = ""
    scores: dict[str, Score] | None = None
    rationale: str = ""
    passages: tuple[CellPassage, ...] = ()
    trace_id: str = ""
    latency_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    cached: bool = False


class RunStore:
    """The runs in the database. Every method may raise DatabaseError; those that write, StorageFull.

    Args:
        engine: The database.
        masker: Masks personal data in answers, passages, errors and names; by default none.
    """

    def __init__(self, engine: Engine, masker: Masker | None = None) -> None:
        self._engine = engine
        self._masker = masker or Masker()

    def begin(self, plan: Plan, *, name: str, dataset: str, version: int, sha256: str) -> Run:
        """Store a new run, which this process works on."""
        run = Run(
            id=uuid.uuid4().hex[:12],
            name=self._masker.text(name),
            started=time.time(),
            status="running",
            dataset=dataset,
            dataset_version=version,
            dataset_sha256=sha256,
            plan=plan,
        )
        values = {field.name: getattr(run, field.name) for field in fields(run)}
        values |= {"plan": plan.model_dump(mode="json"), "process": process_identity(), "tracked": None}
        with writing(self._engine) as connection:
            connection.execute(insert(runs_table).values(values))
        return run

    def resume(self, run: Run) -> Run:
        """Resume a run that ``is_resumable``.

        Raises:
            EvaluationError: The run is running, or it is finished and no answer failed.
        """
        with writing(self._engine) as connection:
            changed = connection.execute(
                update(runs_table)
                .where(_resumable(run.id))
                .values(status="running", error="", ended=None, process=process_identity())
            )
        if changed.rowcount:
            return self.get(run.id)
        status = self.get(run.id).status
        why = ": none of its answers failed" if status == "finished" else ""
        raise EvaluationError(
            f"The run {run.id} is {status} and cannot be resumed{why}.",
            fix="`ragsmith eval list` shows which runs were stopped.",
        )

    def is_resumable(self, run: Run) -> bool:
        """Whether answers of a run are missing or failed, and nobody works on it."""
        with reading(self._engine) as connection:
            return connection.scalar(select(runs_table.c.id).where(_resumable(run.id))) is not None

    def end(self, run_id: str, status: RunStatus, error: str = "") -> None:
        """Store the end of a run."""
        self._set(run_id, status=status, error=self._masker.text(error), ended=time.time())

    def mark_tracked(self, run_id: str, tracked: str) -> None:
        """Store the W&B run with the results."""
        self._set(run_id, tracked=tracked)

    def keep(self, run_id: str, cells: Sequence[Cell]) -> None:
        """Store answers in one transaction, replacing earlier ones."""
        if not cells:
            return
        rows = [_cell_row(run_id, cell, TraceMasker(self._masker)) for cell in cells]
        with writing(self._engine) as connection:
            for cell in cells:
                connection.execute(
                    delete(cells_table).where(
                        cells_table.c.run_id == run_id,
                        cells_table.c.variant == cell.variant,
                        cells_table.c.position == cell.position,
                    )
                )
            connection.execute(insert(cells_table), rows)

    def get(self, run_id: str) -> Run:
        """Return a run by its id, or by a unique prefix of at least four characters.

        Raises:
            EvaluationError: There is no such run, or more than one.
        """
        wanted = run_id.strip()
        column = runs_table.c.id
        named = column == wanted
        if len(wanted) >= SHORTEST_ID:
            named = named | column.startswith(wanted, autoescape=True)
        with reading(self._engine) as connection:
            rows = connection.execute(select(runs_table).where(named).limit(2)).all()
        if len(rows) != 1:
            problem = "More than one run starts with" if rows else "There is no run"
            raise EvaluationError(f"{problem} {wanted!r}.", fix="`ragsmith eval list` shows them.")
        return _run(rows[0])

    def list(self, limit: int | None = None) -> tuple[Run, ...]:
        """List the runs, newest first, after marking those of dead processes as interrupted."""
        interrupt_dead(self._engine, runs_table)
        query = select(runs_table).order_by(runs_table.c.started.desc(), runs_table.c.id).limit(limit)
        with reading(self._engine) as connection:
            return tuple(_run(row) for row in connection.execute(query))

    def cells(self, run_id: str, variant: int, *, texts: bool = True) -> Iterator[Cell]:
        """Yield the answers of a variant in the order of the cases, read in pages.

        Args:
            run_id: The complete id.
            variant: Index of the variant.
            texts: Whether to read answers and passages; reading is much faster without them.
        """
        left_out = () if texts else ("answer", "rationale", "passages")
        columns = [column for column in cells_table.c if column.name not in left_out]
        last = -1
        while True:
            query = (
                select(*columns)
                .where(
                    cells_table.c.run_id == run_id,
                    cells_table.c.variant == variant,
                    cells_table.c.position > last,
                )
                .order_by(cells_table.c.position)
                .limit(PAGE)
            )
            with reading(self._engine) as connection:
                rows = connection.execute(query).all()
            yield from map(_cell, rows)
            if len(rows) < PAGE:
                return
            last = rows[-1].position

    def cell(self, run_id: str, variant: int, position: int) -> Cell | None:
        """Return an answer; None if there is none yet."""
        query = select(cells_table).where(
            cells_table.c.run_id == run_id,
            cells_table.c.variant == variant,
            cells_table.c.position == position,
        )
        with reading(self._engine) as connection:
            row = connection.execute(query).first()
        return _cell(row) if row else None

    def statuses(self, run_id: str, start: int, end: int) -> dict[tuple[int, int], AnswerStatus]:
        """Return the status of answers by variant and position.

        Args:
            run_id: The complete id.
            start, end: Range of positions, without the end.
        """
        column = cells_table.c
        query = select(column.variant, column.position, column.status).where(
            column.run_id == run_id, column.position >= start, column.position < end
        )
        with reading(self._engine) as connection:
            return {(row.variant, row.position): row.status for row in connection.execute(query)}

    def count(self, run_id: str) -> int:
        """Count the answers that have not failed."""
        column = cells_table.c
        query = select(func.count()).where(column.run_id == run_id, column.status != "failed")
        with reading(self._engine) as connection:
            return connection.scalar(query) or 0

    def delete(self, run_id: str) -> None:
        """Delete a run and its answers, but not their traces."""
        with writing(self._engine) as connection:
            connection.execute(delete(cells_table).where(cells_table.c.run_id == run_id))
            connection.execute(delete(runs_table).where(runs_table.c.id == run_id))

    def _set(self, run_id: str, **values: Any) -> None:
        with writing(self._engine) as connection:
            connection.execute(update(runs_table).where(runs_table.c.id == run_id).values(**values))


def by_case(variants: Sequence[Iterator[Cell]]) -> Iterator[tuple[int, tuple[Cell | None, ...]]]:
    """Yield the position and the cells of every answered case; None where a variant has no answer.

    Args:
        variants: The cells of the variants in the order of the cases; read one by one.
    """
    waiting = [next(cells, None) for cells in variants]
    while known := [cell.position for cell in waiting if cell is not None]:
        position = min(known)
        row = tuple(cell if cell is not None and cell.position == position else None for cell in waiting)
        yield position, row
        waiting = [
            next(cells, None) if mine is not None else cell
            for cells, mine, cell in zip(variants, row, waiting, strict=True)
        ]


def _resumable(run_id: str) -> ColumnElement[bool]:
    column = runs_table.c
    failed = exists().where(cells_table.c.run_id == run_id, cells_table.c.status == "failed")
    ended_early = column.status.in_(("stopped", "interrupted", "failed"))
    return and_(column.id == run_id, or_(ended_early, and_(column.status == "finished", failed)))


def _run(row: Row[Any]) -> Run:
    values = {field.name: getattr(row, field.name) for field in fields(Run)}
    return Run(**values | {"plan": Plan.model_validate(row.plan), "tracked": row.tracked or ""})


def _cell_row(run_id: str, cell: Cell, masking: TraceMasker) -> dict[str, Any]:
    values = {field.name: getattr(cell, field.name) for field in fields(cell)}
    passages = masking.json([asdict(passage) for passage in cell.passages])
    return values | {
        **{name: masking.text(values[name]) for name in ("answer", "error", "rationale")},
        "run_id": run_id,
        # Pairs of numbers, because objects would repeat both names thousands of times.
        "scores": {name: [score.value, score.weight] for name, score in (cell.scores or {}).items()},
        "passages": passages,
        "cached": int(cell.cached),
    }


def _cell(row: Row[Any]) -> Cell:
    values = {field.name: getattr(row, field.name) for field in fields(Cell) if field.name in row._fields}
    values |= {"scores": {name: Score(*pair) for name, pair in row.scores.items()}, "cached": bool(row.cached)}
    if "passages" in values:
        values["passages"] = tuple(CellPassage(**passage) for passage in row.passages)
    return Cell(**values)
