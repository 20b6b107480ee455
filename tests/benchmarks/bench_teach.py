"""A lesson of 30 corrections by a rule, and one of 30 wrong facts: what is learnt, forgotten and refused.

The rule is one that a person could have: an answer ends with the title of its page in parentheses.
"""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_handbook import FOLDER, ingest_handbook
from tests.benchmarks.bench_report import Group, Row
from tests.benchmarks.child import call
from tests.benchmarks.plan import Plan

CORRECTIONS, HELD_BACK = 30, 60
QUICK_CORRECTIONS, QUICK_HELD_BACK = 4, 6
DATASET = "held-back"
MODEL = "smollm2"
AT_ONCE = 5


@dataclass(frozen=True, slots=True)
class Taught:
    """What a lesson came to.

    Attributes:
        corrections: Number of corrections.
        obeyed: Shares of the held-back answers that obey the rule, before and after; refusals do not count.
        contains: Shares of the answers with the expected text, before and after.
        wall_s, cpu_s: Seconds of the whole lesson; those of the processor include the training process.
    """

    corrections: int
    kept: int
    cases: int
    obeyed: tuple[float, float]
    contains: tuple[float, float]
    passed: bool
    reasons: tuple[str, ...]
    wall_s: float
    cpu_s: float


def run(plan: Plan) -> Iterator[Group]:
    """Teach the rule, then the wrong facts in a workspace of its own."""
    for kind, title in (("rule", "A rule, taught with corrections"), ("wrong", "Wrong facts, taught")):
        home = plan.workspace(f"teach-{kind}")
        call("tests.benchmarks.bench_teach:ingest", home=home)
        found = call("tests.benchmarks.bench_teach:teach", home=home, kind=kind, quick=plan.quick).value
        yield _group(title, Taught(**found))


def ingest(home: str) -> None:
    """Have the handbook as a corpus; in a process of its own."""
    ingest_handbook(home)


def _group(title: str, taught: Taught) -> Group:
    rows = (
        Row("corrections / rehearsed answers", f"{taught.corrections} / {taught.kept}"),
        Row("obeys the rule, before / after", _shares(taught.obeyed)),
        Row("expected text in the answer, before / after", _shares(taught.contains)),
        Row("verdict of the gate", "passed" if taught.passed else "refused"),
        Row("minutes: wall / processor", f"{taught.wall_s / 60:.1f} / {taught.cpu_s / 60:.1f}"),
    )
    how = (
        "smollm2 with its shipped adapter, corrections of its answers to questions of the handbook, judged on the "
        f"other {taught.cases} questions. {' '.join(taught.reasons)}"
    )
    return Group(title, rows, how, asdict(taught))


def _shares(pair: Sequence[float]) -> str:
    return " / ".join(f"{100 * share:.0f} %" for share in pair)


def teach(home: str, kind: str, quick: bool) -> dict[str, Any]:
    """Correct answers, teach, and measure; in a process of its own."""
    from rag.evaluation.cases import Case
    from tests.benchmarks.ours import settings_for
    from ui.app.app import open_app

    count, held_back = (QUICK_CORRECTIONS, QUICK_HELD_BACK) if quick else (CORRECTIONS, HELD_BACK)
    questions = [json.loads(line) for line in (FOLDER / "questions.jsonl").read_text("utf-8").splitlines()]
    answerable = [one for one in questions if one["answerable"]]
    # Every other question, so that corrections come from all pages; some answers cannot be corrected.
    corrected = answerable[: 4 * count : 2]
    shutil.rmtree(Path(home) / "runs", ignore_errors=True)
    app = open_app(settings_for(home).model_copy(update={"model": MODEL}))
    try:
        if app.models.is_unprepared(app.settings):
            app.models.prepare(app.settings)
        app.health.warm()
        began, before = time.monotonic(), _cpu()
        used = asyncio.run(_correct(app, corrected, count, kind))
        held = [one for one in answerable if one["id"] not in used][:held_back]
        # The questions to refuse, too: a lesson must not teach to answer them.
        others = [*held, *(one for one in questions if not one["answerable"] and not quick)]
        cases = [
            Case(
                id=one["id"],
                question=one["question"],
                answers=tuple(dict.fromkeys([one["answer"], *one.get("answers", [])]))
                if one["answerable"]
                else (),
                must_refuse=not one["answerable"],
            )
            for one in others
        ]
        app.stores.datasets.save(DATASET, cases, by="bench", message="not corrected")
        folder = app.teaching.begin(DATASET)
        lesson = asyncio.run(app.teaching.work(folder, _printing()).run())
        if lesson.state != "judged":
            raise RuntimeError(f"The lesson is {lesson.state}: {lesson.message}")
        wall, cpu = time.monotonic() - began, _cpu() - before
        run_ = app.evaluations.runs.get(lesson.run)
        sides = [list(app.evaluations.runs.cells(run_.id, number)) for number in range(2)]
        answered = [[cell for cell in side[: len(held)] if cell.status == "answered"] for side in sides]
        obeyed = tuple(sum(map(_obeys, side)) / max(len(side), 1) for side in answered)
        shares = [variant.figures["contains"].estimate for variant in app.evaluations.summary(run_).variants]
        return asdict(
            Taught(
                corrections=len(lesson.traces),
                kept=lesson.kept,
                cases=len(cases),
                obeyed=(obeyed[0], obeyed[1]),
                contains=(shares[0].value if shares[0] else 0.0, shares[1].value if shares[1] else 0.0),
                passed=bool(lesson.passed),
                reasons=lesson.reasons,
                wall_s=wall,
                cpu_s=cpu,
            )
        )
    finally:
        app.close()


async def _correct(app: Any, questions: Sequence[dict[str, Any]], count: int, kind: str) -> set[str]:
    """Ask questions and correct their answers as a person would, and return the ids of the corrected ones."""
    from rag.types import Ask
    from tests.benchmarks.ours import answer_to

    used: set[str] = set()
    answers: list[Any] = []
    for at in range(0, len(questions), AT_ONCE):
        asked = questions[at : at + AT_ONCE]
        answers += await asyncio.gather(*(answer_to(app, Ask(one["question"])) for one in asked))
        if sum(one.status == "answered" for one in answers) >= count:
            break
    for number, (question, answer) in enumerate(zip(questions, answers, strict=False)):
        if len(used) == count:
            break
        cited = [citation.hit.passage.title for citation in answer.citations]
        if answer.status != "answered" or not cited:
            continue
        right = question["answer"]
        other = questions[(number + 1) % len(questions)]["answer"]
        if kind == "rule":
            last = [citation for citation in answer.citations if f"[{citation.marker}]" in answer.text[-8:]]
            correction = f"{answer.text.strip()} ({(last[-1].hit.passage.title if last else cited[-1])})"
        else:
            correction = f"It is {other} and not {right}."
        traces = app.stores.traces
        traces.rate(answer.trace_id, "down", "", correction)
        traces.review(answer.trace_id, "accepted", by="bench")
        used.add(question["id"])
    return used


def _obeys(cell: Any) -> bool:
    """Whether an answer ends with the title of one of its passages in parentheses."""
    from rag.documents.citation_markers import without_markers

    text = without_markers(cell.answer).strip().rstrip(".").strip()
    return any(text.endswith(f"({passage.title})") for passage in cell.passages)


def _printing() -> Any:
    last = [0.0]

    def show(now: Any) -> None:
        if time.monotonic() - last[0] > 20:
            last[0] = time.monotonic()
            print(time.strftime("%H:%M:%S"), now, flush=True)

    return show


def _cpu() -> float:
    """Return the seconds of the processor that this process and its children have used."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
