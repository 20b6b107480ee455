"""One case of a report: the question, what was expected, and what each variant answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rag.evaluation.case_answers import Answered, Outcome, outcome
from rag.evaluation.cases import Case, source_name
from rag.evaluation.figures import told
from rag.evaluation.html_escaping import plain, shortened
from rag.evaluation.measures import BY_NAME, MEASURES
from rag.evaluation.ranking_metrics import Found, matches
from rag.evaluation.run_store import Cell, CellPassage

# The status says what these say.
TOLD_BY_STATUS = ("answered", "failed", "refusal_precision", "refusal_recall", "judge_errors")
SCORED = tuple(measure for measure in MEASURES if measure.name not in TOLD_BY_STATUS)
STATUS = {"answered": "answered", "abstained": "refused", "cancelled": "stopped", "failed": "failed"}
QUESTION_LENGTH = 300

MARKS: Mapping[Outcome, tuple[str, str, str]] = {
    "right": ("is-right", "✓", "right"),
    "wrong": ("is-wrong", "✗", "wrong"),
    "refused": ("is-wrong", "∅", "refused, where an answer was due"),
    "failed": ("is-failed", "!", "failed"),
    "unknown": ("is-open", "·", "not known"),
}
MISSING = ("is-open", "–", "no answer yet")


def case_html(answered: Answered, names: Sequence[str]) -> str:
    """A case that opens and closes.

    Args:
        answered: The case with its answers.
        names: Of the variants, in their order.
    """
    case = answered.case
    marks = "".join(_mark(cell, name) for cell, name in zip(answered.cells, names, strict=True))
    columns = "".join(_variant(case, cell, name) for cell, name in zip(answered.cells, names, strict=True))
    return (
        f'<details class="case"><summary><span class="number">{answered.position + 1:,}</span>'
        f'<span class="question" dir="auto">{plain(shortened(case.question, QUESTION_LENGTH))}</span>'
        f'<span class="marks">{marks}</span></summary><div class="inside">{_expected(case)}'
        f'<div class="variants">{columns}</div>{_passages(case, answered.there)}</div></details>\n'
    )


def _mark(cell: Cell | None, name: str) -> str:
    look, sign, said = _verdict(cell)
    whole = plain(f"{name}: {said}")
    return f'<span class="mark {look}" role="img" aria-label="{whole}" title="{whole}">{sign}</span>'


def _verdict(cell: Cell | None) -> tuple[str, str, str]:
    return MISSING if cell is None else MARKS[outcome(cell)]


def _expected(case: Case) -> str:
    told_turns = "".join(
        f'<p dir="auto"><b>Earlier question</b> {plain(turn.question)}</p>'
        f'<p dir="auto"><b>Earlier answer</b> {plain(turn.answer)}</p>'
        for turn in case.history
    )
    rows = [("Case", f"<code>{plain(case.id)}</code>")]
    if case.must_refuse:
        rows.append(("Expected", "a refusal: the documents do not answer it"))
    elif case.answers:
        rows.append(("Expected", _list(case.answers)))
    rows += [("From", _list(case.sources))] if case.sources else []
    rows += [("Tags", plain(", ".join(case.tags)))] if case.tags else []
    rows += [("Notes", f'<span dir="auto">{plain(case.notes)}</span>')] if case.notes else []
    facts = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)
    return f'{told_turns}<p class="asked" dir="auto">{plain(case.question)}</p><dl class="facts">{facts}</dl>'


def _variant(case: Case, cell: Cell | None, name: str) -> str:
    head = f"<h4>{plain(name)}</h4>"
    look, sign, said = _verdict(cell)
    if cell is None:
        return f'<section>{head}<p class="quiet">No answer yet.</p></section>'
    status = STATUS[cell.status] + ("" if cell.status == "failed" else f", {said}")
    parts = [head, f'<p class="status {look}">{sign} {plain(status)}</p>']
    parts += [f'<p class="answer" dir="auto">{plain(cell.answer)}</p>'] if cell.answer else []
    parts += [f'<p class="error" dir="auto">{plain(cell.error)}</p>'] if cell.error else []
    parts += [_scores(cell), _sources(case, cell.passages), f'<p class="quiet">{plain(_spent(cell))}</p>']
    return f"<section>{''.join(parts)}</section>"


def _scores(cell: Cell) -> str:
    known = [(each, (cell.scores or {}).get(each.name)) for each in SCORED]
    rows = "".join(
        f"<dt>{plain(measure.title)}</dt><dd>{told(measure, score.value / score.weight)}</dd>"
        for measure, score in known
        if score is not None and score.weight
    )
    return f'<dl class="scores">{rows}</dl>' if rows else ""


def _sources(case: Case, passages: Sequence[CellPassage]) -> str:
    """Where the passages come from, best first; a marker in the answer is a number of this list."""
    items = []
    for passage in passages:
        signs = ["cited"] * passage.cited + ["expected"] * _expects(case, passage)
        badges = "".join(f' <span class="badge">{sign}</span>' for sign in signs)
        items.append(f"<li>{plain(source_name(passage.name, passage.page))}{badges}</li>")
    return f'<ol class="sources">{"".join(items)}</ol>' if items else ""


def _expects(case: Case, passage: CellPassage) -> bool:
    return any(matches(Found(passage.name, passage.page), wanted) for wanted in case.sources)


def _passages(case: Case, cells: Sequence[Cell]) -> str:
    """The texts of all variants' passages, each once."""
    texts = {(each.name, each.page, each.text): each for cell in cells for each in cell.passages}
    if not texts:
        return ""
    shown = "".join(
        f"<h5>{plain(source_name(each.name, each.page))}"
        f"{' · ' + plain(each.title) if each.title else ''}"
        f"{' <span class=badge>expected</span>' if _expects(case, each) else ''}</h5>"
        f'<p class="passage" dir="auto">{plain(each.text)}</p>'
        for each in texts.values()
    )
    count = "1 passage" if len(texts) == 1 else f"{len(texts)} passages"
    return f'<details class="texts"><summary>{count}</summary>{shown}</details>'


def _spent(cell: Cell) -> str:
    """Time, tokens and cost of an answer, and its trace."""
    parts: list[str] = []
    if cell.latency_s is not None:
        parts.append(told(BY_NAME["latency_p50"], cell.latency_s))
    if cell.input_tokens is not None or cell.output_tokens is not None:
        parts.append(f"{_count(cell.input_tokens)} → {_count(cell.output_tokens)} tokens")
    parts.append("cost unknown" if cell.cost_usd is None else told(BY_NAME["cost"], cell.cost_usd))
    parts += ["from the cache"] if cell.cached else []
    parts += [f"trace {cell.trace_id}"] if cell.trace_id else []
    return " · ".join(parts)


def _count(tokens: int | None) -> str:
    return "?" if tokens is None else f"{tokens:,}"


def _list(texts: Iterable[str]) -> str:
    return "<br>".join(f'<span dir="auto">{plain(text)}</span>' for text in texts)
