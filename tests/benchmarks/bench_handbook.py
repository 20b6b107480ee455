"""Answers on the handbook: the right source, the expected text, honest refusals, follow-ups.

Every figure is also given for the questions on odd and on even lines of their file: whoever tunes on one half
sees on the other what it was worth.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rag.documents.citation_markers import without_markers
from tests.benchmarks.answer_pairs import answer_pairs, pair_group
from tests.benchmarks.bench_report import Group, Row, p50_p95
from tests.benchmarks.child import ROOT, call
from tests.benchmarks.ours import answer_to, settings_for
from tests.benchmarks.plan import Plan

FOLDER = ROOT / "corpora" / "handbook"
WORKSPACE = "handbook"
TOP = 5


@dataclass(frozen=True, slots=True)
class Case:
    """A question with what is known about its answer.

    Attributes:
        line: Of its file, from 1.
        kind: ``answerable``, ``unanswerable`` or ``follow-up``.
        accepted: Texts of which the answer must hold one.
        source: The page that answers it; empty where none does.
        history: Earlier turns, question and answer.
    """

    id: str
    line: int
    kind: str
    question: str
    accepted: tuple[str, ...] = ()
    source: str = ""
    history: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a case.

    Attributes:
        standalone: The question as it was searched for.
        sources: Pages of the first passages, best first.
        source_found: Whether the right page is among them.
        text_found: Whether the answer holds an accepted text.
        refused: Whether the reply was that the documents do not answer this.
    """

    id: str
    line: int
    kind: str
    question: str
    standalone: str
    status: str
    answer: str
    expected: tuple[str, ...]
    source: str
    sources: tuple[str, ...]
    source_found: bool
    text_found: bool
    refused: bool
    milliseconds: float


def read_cases() -> list[Case]:
    """All questions and follow-ups."""
    cases = []
    for line, record in _records("questions.jsonl"):
        kind = "answerable" if record["answerable"] else "unanswerable"
        accepted = [record["answer"], *record.get("answers", [])] if record["answerable"] else []
        source = record.get("source", "")
        cases.append(Case(record["id"], line, kind, record["question"], tuple(dict.fromkeys(accepted)), source))
    for line, record in _records("followups.jsonl"):
        history = tuple((turn["question"], turn["answer"]) for turn in record["history"])
        cases.append(Case(record["id"], line, "follow-up", record["question"], (), record["source"], history))
    return cases


def _records(name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    return ((number, json.loads(line)) for number, line in enumerate(lines, 1))


def prepared_home(plan: Plan) -> Path:
    """A workspace that holds the handbook."""
    home = plan.workspace(WORKSPACE)
    call("tests.benchmarks.bench_handbook:ingest_handbook", home=home)
    return home


def ingest_handbook(home: str) -> None:
    """Have the handbook as a corpus; in a process of its own."""
    from ui.app.app import open_app

    app = open_app(settings_for(home))
    app.stores.ensure_sample()
    app.close()


def run(plan: Plan) -> Iterator[Group]:
    """Ask everything and count."""
    home = prepared_home(plan)
    found = call("tests.benchmarks.bench_handbook:ask_all", home=home).value
    judged = [Judged(**each) for each in found]
    yield group_of(judged)
    written = call("tests.benchmarks.bench_handbook:ask_all", home=home, model="smollm2").value
    yield group_of([Judged(**each) for each in written], "smollm2")
    yield pair_group(answer_pairs(found, written))


def ask_all(
    home: str, model: str = "extractive", prompt: str = "", kind: str = "", most: int | None = None
) -> list[dict[str, Any]]:
    """Ask every case of the handbook, or the first ones of a kind; in a process of its own."""
    import asyncio

    from rag.types import Ask, Turn
    from ui.app.app import open_app

    app = open_app(settings_for(home).model_copy(update={"model": model, "prompt": prompt}))
    cases = [case for case in read_cases() if not kind or case.kind == kind][:most]
    app.health.warm()

    async def everything() -> list[dict[str, Any]]:
        judged = []
        for case in cases:
            history = tuple(Turn(question, answer) for question, answer in case.history)
            answer = await answer_to(app, Ask(case.question, history))
            # The hits of the answer may be fewer: they were cut to the model's budget.
            hits = app.releases.retriever().search(answer.standalone or case.question)[:TOP]
            judged.append(asdict(_judged(case, answer, [Path(hit.passage.source).name for hit in hits])))
        return judged

    try:
        return asyncio.run(everything())
    finally:
        app.close()


def _judged(case: Case, answer: Any, sources: Sequence[str]) -> Judged:
    text = _folded(answer.text)
    return Judged(
        id=case.id,
        line=case.line,
        kind=case.kind,
        question=case.question,
        standalone=answer.standalone,
        status=answer.status,
        answer=answer.text or answer.error,
        expected=case.accepted,
        source=case.source,
        sources=tuple(sources),
        source_found=case.source in sources,
        text_found=answer.status == "answered" and any(_folded(each) in text for each in case.accepted),
        refused=answer.status == "abstained",
        milliseconds=answer.latency_s * 1e3,
    )


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


@dataclass(frozen=True, slots=True)
class Figure:
    """A share of the cases of one kind."""

    what: str
    kind: str
    counts: Callable[[Judged], bool]
    wanted: bool = True


FIGURES = (
    Figure(f"right source in the first {TOP}", "answerable", lambda each: each.source_found),
    Figure("answer holds the expected text", "answerable", lambda each: each.text_found),
    Figure("answerable, but refused", "answerable", lambda each: each.refused, wanted=False),
    Figure("unanswerable, and refused", "unanswerable", lambda each: each.refused),
    Figure(f"follow-ups: right source in the first {TOP}", "follow-up", lambda each: each.source_found),
)


def group_of(judged: Sequence[Judged], model: str = "extractive") -> Group:
    """Count what became of all cases."""
    rows = [Row(figure.what, _share(figure, judged)) for figure in FIGURES]
    words = [len(without_markers(each.answer).split()) for each in judged if each.status == "answered"]
    rows.append(Row("words of an answer, median", f"{statistics.median(words):.0f}" if words else "–"))
    rows.append(Row("milliseconds an answer, p50 / p95", p50_p95([each.milliseconds for each in judged])))
    failed = [each for each in judged if each.status == "failed"]
    if failed:
        rows.append(Row("failed", str(len(failed))))
    how = (
        f"Asked through the whole chain with the model {model}. In brackets: questions on odd / even lines "
        "of their file. The text must stand in the answer, upper and lower case alike. The JSON file lists "
        "every case that went wrong."
    )
    wrong: Mapping[str, list[dict[str, Any]]] = {
        figure.what: [
            asdict(each) for each in judged if each.kind == figure.kind and figure.counts(each) != figure.wanted
        ]
        for figure in FIGURES
    }
    raw: dict[str, Any] = {"wrong": dict(wrong), "failed": [asdict(each) for each in failed]}
    if model != "extractive":
        raw["answers"] = [asdict(each) for each in judged]
    return Group(f"Answers of {model} on the handbook ({len(judged)} questions)", tuple(rows), how, raw)


def _share(figure: Figure, judged: Sequence[Judged]) -> str:
    of_kind = [each for each in judged if each.kind == figure.kind]
    halves = [[each for each in of_kind if each.line % 2 == rest] for rest in (1, 0)]
    whole, odd, even = (_percent(figure, part) for part in (of_kind, *halves))
    count = sum(map(figure.counts, of_kind))
    return f"{whole} ({odd} / {even}); {count} of {len(of_kind)}"


def _percent(figure: Figure, cases: Sequence[Judged]) -> str:
    return f"{100 * sum(map(figure.counts, cases)) / len(cases):.0f} %" if cases else "–"
