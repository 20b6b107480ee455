"""Evaluation runs in the database: what was to be answered, and how far each answer is."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Engine, Row, delete, func, insert, select, update

from rag.database import reading, writing
from rag.errors import EvaluationError
from rag.evaluation.variants import Variant
from rag.tables import cells as cells_table
from rag.tables import evaluation_runs as runs_table
from rag.tracing.trace_store import is_dead, process_identity
from rag.types import AnswerStatus

RunStatus = Literal["running", "finished", "stopped", "interrupted", "failed"]

# Raise when a metric comes out differently than before.
SCORING = 1

SHORTEST_ID = 4
# Cells that are read at once.
PAGE = 500


class Plan(BaseModel):
    """What a run is to answer.

    Attributes:
        variants: The ways to answer, the baseline first; their prompts are named by version, since a label moves.
        states: For each variant the release that answers and the state of its index: a run that is resumed after
            either has changed would compare two things under one name.
        corpus: Which corpus.
        judge: The model that judges; empty for none. ``judged_by`` names its prompt as well: points of two judges
            do not compare.
        scoring: Version of the scoring: results of two versions do not compare.
        at_once: Questions that are being answered at a time.
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
        dataset: Its name; with ``dataset_version`` and ``dataset_sha256`` what exactly was asked.
        tracked: The W&B run that holds the results; empty for none.
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
    """One metric of one answer, as a part of a mean.

    Attributes:
        value: The numerator.
        weight: The denominator; 0 where the metric says nothing of this case.
    """

    value: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class CellPassage:
    """A passage that an answer was written from.

    Attributes:
        name: The source as a person reads it.
        cited: Whether the answer cites it.
    """

    name: str
    title: str
    page: int | None
    text: str
    cited: bool


@dataclass(frozen=True, slots=True)
class Cell:
    """What one variant answered to one case.

    Attributes:
        variant: Its number in the plan, from 0.
        position: The case's number in the dataset version, from 0.
        scores: By the name of the metric.
        rationale: The judge's reason; empty without a judge.
        latency_s: Of the answer when it was made, also where it came from the cache.
        cost_usd: None is unknown; 0 where it came from the cache.
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
    """The runs in the database. Every method may raise DatabaseError; those that write, StorageFull."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def begin(self, plan: Plan, *, name: str, dataset: str, version: int, sha256: str) -> Run:
        """A new run, which this process works on."""
        run = Run(
            id=uuid.uuid4().hex[:12],
            name=name,
            started=time.time(),
            status="running",
            dataset=dataset,
            dataset_version=version,
            dataset_sha256=sha256,
            plan=plan,
        )
        held = {field.name: getattr(run, field.name) for field in fields(run)}
        held |= {"plan": plan.model_dump(mode="json"), "process": process_identity(), "tracked": None}
        with writing(self._engine) as connection:
            connection.execute(insert(runs_table).values(held))
        return run

    def take_up(self, run: Run) -> Run:
        """Go on with a run that was stopped, broken off or failed.

        Raises:
            EvaluationError: It has finished, or a process works on it.
        """
        column = runs_table.c
        with writing(self._engine) as connection:
            changed = connection.execute(
                update(runs_table)
                .where(column.id == run.id, column.status.in_(("stopped", "interrupted", "failed")))
                .values(status="running", error="", ended=None, process=process_identity())
            )
        if not changed.rowcount:
            raise EvaluationError(
                f"The run {run.id} is {self.get(run.id).status}: there is nothing to resume.",
                fix="`ragsmith eval list` shows which runs were stopped.",
            )
        return self.get(run.id)

    def end(self, run_id: str, status: RunStatus, error: str = "") -> None:
        """Note how a run ended."""
        self._set(run_id, status=status, error=error, ended=time.time())

    def mark_tracked(self, run_id: str, tracked: str) -> None:
        """Note the W&B run that holds the results."""
        self._set(run_id, tracked=tracked)

    def keep(self, run_id: str, cells: Sequence[Cell]) -> None:
        """Keep answers, all or none; one that is there already is replaced."""
        if not cells:
            return
        rows = [_cell_row(run_id, cell) for cell in cells]
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
        """A run by its id, or by four or more characters of its beginning that no other run shares.

        Raises:
            EvaluationError: None, or more than one, has that id.
        """
        wanted = run_id.strip()
        column = runs_table.c.id
        named = column == wanted
        if len(wanted) >= SHORTEST_ID:
            named = named | column.startswith(wanted, autoescape=True)
        with reading(self._engine) as connection:
            rows = connection.execute(select(runs_table).where(named).limit(2)).all()
        if len(rows) != 1:
            told = "More than one run begins with" if rows else "There is no run"
            raise EvaluationError(f"{told} {wanted!r}.", fix="`ragsmith eval list` shows them.")
        return _run(rows[0])

    def list(self, limit: int | None = None) -> tuple[Run, ...]:
        """The runs, newest first; what a dead process left running is marked as interrupted."""
        self._mend()
        query = select(runs_table).order_by(runs_table.c.started.desc(), runs_table.c.id).limit(limit)
        with reading(self._engine) as connection:
            return tuple(_run(row) for row in connection.execute(query))

    def cells(self, run_id: str, variant: int, *, texts: bool = True) -> Iterator[Cell]:
        """The answers of a variant in the order of the cases, read in pages.

        Args:
            run_id: The whole id.
            variant: Its number.
            texts: Whether with answers and passages; without them a page of a large run is read far faster.
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
        """One answer; None where there is none yet."""
        query = select(cells_table).where(
            cells_table.c.run_id == run_id,
            cells_table.c.variant == variant,
            cells_table.c.position == position,
        )
        with reading(self._engine) as connection:
            row = connection.execute(query).first()
        return _cell(row) if row else None

    def statuses(self, run_id: str, start: int, end: int) -> dict[tuple[int, int], AnswerStatus]:
        """What became of some cases, by variant and position; failures have to be made again.

        Args:
            run_id: The whole id.
            start, end: The first of the cases, and one past the last.
        """
        column = cells_table.c
        query = select(column.variant, column.position, column.status).where(
            column.run_id == run_id, column.position >= start, column.position < end
        )
        with reading(self._engine) as connection:
            return {(row.variant, row.position): row.status for row in connection.execute(query)}

    def count(self, run_id: str) -> int:
        """How many answers are there that need not be made again."""
        column = cells_table.c
        query = select(func.count()).where(column.run_id == run_id, column.status != "failed")
        with reading(self._engine) as connection:
            return connection.scalar(query) or 0

    def delete(self, run_id: str) -> None:
        """Remove a run and its answers; their traces stay."""
        with writing(self._engine) as connection:
            connection.execute(delete(cells_table).where(cells_table.c.run_id == run_id))
            connection.execute(delete(runs_table).where(runs_table.c.id == run_id))

    def _mend(self) -> None:
        running = runs_table.c.status == "running"
        with reading(self._engine) as connection:
            processes = connection.scalars(select(runs_table.c.process).where(running).distinct()).all()
        dead = [process for process in processes if is_dead(process)]
        if dead:
            with writing(self._engine) as connection:
                connection.execute(
                    update(runs_table).where(running, runs_table.c.process.in_(dead)).values(status="interrupted")
                )

    def _set(self, run_id: str, **values: Any) -> None:
        with writing(self._engine) as connection:
            connection.execute(update(runs_table).where(runs_table.c.id == run_id).values(**values))


def by_case(variants: Sequence[Iterator[Cell]]) -> Iterator[tuple[int, tuple[Cell | None, ...]]]:
    """The answers side by side: for each case that has one its position, and a cell or None for each variant.

    Args:
        variants: The cells of each variant in the order of the cases; one cell of each is held at a time.
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


def _run(row: Row[Any]) -> Run:
    held = {field.name: getattr(row, field.name) for field in fields(Run)}
    return Run(**held | {"plan": Plan.model_validate(row.plan), "tracked": row.tracked or ""})


def _cell_row(run_id: str, cell: Cell) -> dict[str, Any]:
    held = {field.name: getattr(cell, field.name) for field in fields(cell)}
    return held | {
        "run_id": run_id,
        # A list of two numbers where a mapping would repeat both names thousands of times.
        "scores": {name: [score.value, score.weight] for name, score in (cell.scores or {}).items()},
        "passages": [asdict(each) for each in cell.passages],
        "cached": int(cell.cached),
    }


def _cell(row: Row[Any]) -> Cell:
    held = {field.name: getattr(row, field.name) for field in fields(Cell) if field.name in row._fields}
    held |= {"scores": {name: Score(*each) for name, each in row.scores.items()}, "cached": bool(row.cached)}
    if "passages" in held:
        held["passages"] = tuple(CellPassage(**each) for each in row.passages)
    return Cell(**held)
