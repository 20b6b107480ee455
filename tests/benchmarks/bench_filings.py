"""Long questions over company filings that look alike (FinanceBench): is a page with the evidence found?

The filings that are there are ingested whole. Of the others, there are the pages with the evidence: each becomes a
text file named after its filing. A question names its filing among many words that every filing has.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.settings import SearchMode
from tests.benchmarks.bench_report import Group, Row
from tests.benchmarks.child import call
from tests.benchmarks.ours import settings_for
from tests.benchmarks.plan import Plan

if TYPE_CHECKING:
    from rag.types import Hit

QUESTIONS = "financebench/financebench_open_source.jsonl"
FILINGS = "financebench/pdfs"
CORPUS, TOP = "filings", 5
MODES: tuple[SearchMode, ...] = ("hybrid", "dense", "lexical")
_PAGE_FILE = re.compile(r"(?P<filing>.+)_page_(?P<page>\d+)\.txt")


@dataclass(frozen=True, slots=True)
class Filed:
    """A question about a filing.

    Attributes:
        pages: The pages with the evidence, from 0.
        whole: Whether the filing was ingested whole.
    """

    question: str
    filing: str
    pages: frozenset[int]
    whole: bool


def run(plan: Plan) -> Iterator[Group]:
    """Measure; one group."""
    home = plan.workspace("filings")
    here = "tests.benchmarks.bench_filings"
    call(f"{here}:ingest", home=home, data=plan.data)
    yield _group(call(f"{here}:search_all", home=home, data=plan.data, most=40 if plan.quick else None).value)


# Each of these runs in a process of its own.


def ingest(home: str, data: str) -> None:
    """Take in the filings, and the pages with the evidence of the others."""
    from ui.app.app import open_app

    whole = {path.stem for path in (Path(data) / FILINGS).glob("*.pdf")}
    folder = Path(home) / "pages"
    folder.mkdir(parents=True, exist_ok=True)
    for record in _records(data):
        for evidence in record["evidence"]:
            filing, text = evidence["doc_name"], evidence.get("evidence_text_full_page")
            if text and filing not in whole:
                path = folder / f"{filing}_page_{evidence['evidence_page_num']}.txt"
                path.write_text(text, encoding="utf-8")
    app = open_app(settings_for(home))
    done = app.stores.ingest(CORPUS, [folder, Path(data) / FILINGS])
    app.close()
    if not done.added + done.unchanged:
        raise ValueError("no filing could be read")


def search_all(home: str, data: str, most: int | None) -> list[dict[str, Any]]:
    """Search for every question in every mode."""
    from rag.retrieval.retriever import SearchOptions
    from ui.app.app import open_app

    app = open_app(settings_for(home).model_copy(update={"corpus": CORPUS}))
    retriever = app.releases.retriever()
    found = []
    for asked in _questions(data)[:most]:
        case: dict[str, Any] = {"question": asked.question, "filing": asked.filing, "whole": asked.whole}
        for mode in MODES:
            places = [_place(hit) for hit in retriever.search(asked.question, SearchOptions(TOP, mode))]
            case[mode] = {
                "page": any(filing == asked.filing and page in asked.pages for filing, page in places),
                "own": statistics.mean(filing == asked.filing for filing, _ in places) if places else 0.0,
            }
        found.append(case)
    app.close()
    return found


def _questions(data: str) -> list[Filed]:
    whole = {path.stem for path in (Path(data) / FILINGS).glob("*.pdf")}
    return [
        Filed(
            record["question"],
            record["doc_name"],
            frozenset(int(evidence["evidence_page_num"]) for evidence in record["evidence"]),
            record["doc_name"] in whole,
        )
        for record in _records(data)
    ]


def _records(data: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(data) / QUESTIONS).read_text(encoding="utf-8").splitlines()]


def _place(hit: Hit) -> tuple[str, int]:
    """Return the filing and the page, from 0, of a passage."""
    path = Path(hit.passage.source)
    if found := _PAGE_FILE.fullmatch(path.name):
        return found["filing"], int(found["page"])
    return path.stem, (hit.passage.page or 0) - 1


# Here again.


def _group(cases: Sequence[dict[str, Any]]) -> Group:
    def share(name: str, some: Sequence[dict[str, Any]]) -> list[str]:
        return [f"{100 * statistics.mean(float(case[mode][name]) for case in some):.0f}" for mode in MODES]

    rows = [
        Row(f"a page with the evidence in the first {TOP}, %", *share("page", cases)),
        Row("passages of the filing that the question names, %", *share("own", cases)),
    ]
    if whole := [case for case in cases if case["whole"]]:
        rows.append(Row(f"the {len(whole)} questions about whole filings: page found, %", *share("page", whole)))
    how = f"{len(cases)} questions of FinanceBench. The columns are hybrid, dense and lexical search."
    return Group("Company filings", tuple(rows), how, {"cases": list(cases)})
