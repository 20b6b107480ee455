"""The report of a run: one file that tells what was measured, whatever the texts in it are."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from chromium import Chromium
from nasty import STRINGS
from run_cells import case, cell, failed
from sqlalchemy import Engine

from rag.errors import DatabaseError, EvaluationError
from rag.evaluation.cases import Case
from rag.evaluation.gate import gate, parse_margin
from rag.evaluation.run_report import SHOWN, write_report
from rag.evaluation.run_store import Cell, CellPassage, Plan, RunStore
from rag.evaluation.summary import Summary, read_columns, summarise
from rag.evaluation.variants import Variant
from rag.types import Turn

VOID = {"meta", "br"}
KNOWN = {
    *"html head meta title style body main header section h1 h2 h3 h4 h5 p b small span div dl dt dd code".split(),
    *"table caption thead tbody tr th td figure figcaption details summary ol ul li br".split(),
    *"svg desc text line circle polyline".split(),
}
ATTRIBUTES = {
    *"class dir lang charset content name http-equiv scope title role aria-label id".split(),
    *"viewbox x y x1 x2 y1 y2 cx cy r points text-anchor".split(),
}

Write = Callable[..., str]


class Page(HTMLParser):
    """What a parser finds in a report."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def store(engine: Engine) -> RunStore:
    return RunStore(engine)


@pytest.fixture
def summarised(store: RunStore) -> Callable[..., Summary]:
    """Keeps the answers as those of a run, and makes its table."""

    def made(
        rows: Sequence[Sequence[Cell]], size: int, *, status: Any = "finished", name: str = "a or b", **told: Any
    ) -> Summary:
        names = told.pop("names", [f"variant {number}" for number in range(len(rows))])
        plan = Plan(
            variants=tuple(Variant(name=each, changes={"retrieval.k": 3}) for each in names),
            states=tuple("s" for _ in rows),
            corpus="notes",
        )
        run = store.begin(plan, name=name, dataset="notes-qa", version=4, sha256="c0ffee" * 10 + "abcd")
        for cells in filter(None, rows):
            store.keep(run.id, cells)
        store.end(run.id, status, told.pop("error", ""))
        return summarise(store, store.get(run.id), size, **told)

    return made


@pytest.fixture
def written(store: RunStore, summarised: Callable[..., Summary], tmp_path: Path) -> Write:
    """Writes a report of these answers, and gives its text."""

    def made(rows: Sequence[Sequence[Cell]], cases: Sequence[Case], verdict: Any = None, **told: Any) -> str:
        summary = summarised(rows, len(cases), **told)
        path = tmp_path / "report.html"
        write_report(path, summary, lambda number: store.cells(summary.run.id, number), iter(cases), verdict)
        assert [each.name for each in tmp_path.iterdir() if "report" in each.name] == ["report.html"]
        return path.read_bytes().decode("utf-8")

    return made


def headings(html: str) -> list[str]:
    return [" ".join(Page(each).text.split()) for each in re.findall(r"<h3>.*?</h3>", html)]


def questions(html: str) -> list[str]:
    return re.findall(r'<span class="question" dir="auto">(.*?)</span>', html)


# --- what it tells --------------------------------------------------------------------------------------------


def test_it_names_the_run_the_dataset_and_the_variants(written: Write) -> None:
    html = written([[cell(0, 0)], [cell(1, 0)]], [case(0)], name="Longer context?")
    page = Page(html)
    assert "<title>Longer context?</title>" in html
    for expected in (
        "notes-qa@4, 1 case ",
        "c0ffee" * 10 + "abcd",
        "Corpus notes",
        "retrieval.k = 3",
        "Status finished",
    ):
        assert expected in page.text
    assert "This run is" not in page.text


@pytest.mark.parametrize(("status", "goes_on"), [("stopped", True), ("failed", True), ("running", False)])
def test_a_run_that_is_not_finished_says_so_before_any_figure(written: Write, status: str, goes_on: bool) -> None:
    html = written([[cell(0, 0)], []], [case(0), case(1)], status=status, error="the server is away")
    notice = html.index(f"This run is {status}.")
    assert notice < html.index("<h2>Figures</h2>")
    assert "1 of 4 answers are there" in html
    assert "the server is away" in html
    assert ("ragsmith eval resume" in html) == goes_on
    assert "1 case without an answer yet." in html


def test_a_sure_difference_is_named_better_or_worse_by_the_direction_of_the_measure(written: Write) -> None:
    one = [cell(0, number, 0.0, latency_s=0.1 + number / 1000) for number in range(40)]
    other = [cell(1, number, 1.0, latency_s=2.0 + number / 1000) for number in range(40)]
    page = Page(written([one, other], [case(number) for number in range(40)]))
    assert "+100.0 points better" in page.text
    assert "+1.90 s worse" in page.text
    assert "+100.0 points worse" not in page.text


def test_a_difference_that_may_be_none_is_named_neither(written: Write) -> None:
    rows = [[cell(0, number, number % 2) for number in range(20)], [cell(1, n, (n + 1) % 2) for n in range(20)]]
    rows[1][0] = cell(1, 0, 0.0)
    html = written(rows, [case(number) for number in range(20)])
    changes = re.findall(r'<span class="change ([\w-]+)">([^<]+)</span>', html)
    assert ("is-open", "−5.0 points") in changes
    assert {look for look, text in changes if text.endswith("points")} == {"is-open"}


def test_the_baseline_comes_first_and_is_marked(written: Write) -> None:
    html = written([[cell(0, 0)], [cell(1, 0)]], [case(0)], baseline=1)
    rows = re.findall(r"<th scope=row>(.*?)</th>", html)
    assert "variant 1" in rows[0]
    assert "baseline" in rows[0]
    assert "variant 0" in rows[1]
    assert "baseline" not in rows[1]


def test_a_cost_that_is_unknown_is_not_zero(written: Write) -> None:
    html = written([[cell(0, 0)], [cell(1, 0)]], [case(0)])
    assert "<td class=n>unknown</td>" in html
    assert "cost unknown" in html
    assert "$0" not in html
    free = written([[cell(0, 0, cost_usd=0.0, cached=True)], [cell(1, 0, cost_usd=0.0025)]], [case(0)])
    assert "$0.0025" in free
    assert "from the cache" in free


def test_figures_tell_on_how_many_cases_they_rest(written: Write) -> None:
    cases = [case(0), case(1), case(2)]
    same = written([[cell(0, n) for n in range(3)], [cell(1, n) for n in range(3)]], cases)
    assert "F1<small>n 3</small>" in same
    other = written([[cell(0, n) for n in range(3)], [cell(1, 0)]], cases)
    assert "F1<small></small>" in other
    assert "<small>n 3</small>" in other
    assert "<small>n 1</small>" in other


def test_the_gate_s_reasons_are_told(written: Write, store: RunStore, summarised: Callable[..., Summary]) -> None:
    rows = [[cell(0, n, 1.0) for n in range(40)], [cell(1, n, 0.0) for n in range(40)]]
    run = summarised(rows, 40).run
    columns = [read_columns(store, run, number) for number in range(2)]
    verdict = gate(columns[0], columns[1], [parse_margin("f1=0.02")])
    assert not verdict.passed
    page = Page(written(rows, [case(number) for number in range(40)], verdict))
    assert "✗ The gate is not passed" in page.text
    assert f"✗ {verdict.checks[0].reason}" in page.text
    passed = Page(written(rows, [case(number) for number in range(40)], replace(verdict, passed=True)))
    assert "✓ The gate is passed" in passed.text


def test_a_case_tells_the_question_what_was_expected_and_every_answer(written: Write) -> None:
    asked = case(
        0,
        history=(Turn("Before?", "Earlier."),),
        answers=("about 200", "two hundred"),
        sources=("guide.md p.2",),
        tags=("size",),
        notes="Asked often.",
    )
    passages = (CellPassage("docs/guide.md", "The guide", 2, "A passage aims at 200.", cited=True),)
    rows = [[cell(0, 0, answer="200 [1].", passages=passages, input_tokens=9)], [failed(1, 0)]]
    page = Page(written(rows, [asked]))
    for expected in (
        "Before?",
        "Earlier.",
        "about 200",
        "two hundred",
        "guide.md p.2",
        "size",
        "Asked often.",
        "200 [1].",
        "docs/guide.md p.2 cited expected",
        "The guide",
        "A passage aims at 200.",
        "500 ms · 9 tok · cost unknown · trace trace-0-0",
        "✓ answered, right",
        "! failed",
        "no connection",
    ):
        assert expected in page.text


# --- which cases ----------------------------------------------------------------------------------------------


def test_what_needs_a_look_comes_first(written: Write) -> None:
    one = [cell(0, 0), cell(0, 1, 0.0), cell(0, 2, answer="yes, sir"), cell(0, 3, 0.0), cell(0, 4)]
    other = [cell(1, 0), cell(1, 1, 0.0), cell(1, 2), cell(1, 3, 1.0), failed(1, 4)]
    html = written([one, other], [case(number) for number in range(5)])
    assert headings(html) == [
        "A variant failed 1",
        "Right in one variant, wrong in another 1",
        "Answers or scores differ 1",
        "Wrong in every variant 1",
        "All others 1",
    ]
    assert questions(html) == [f"Question {number}?" for number in (4, 3, 2, 1, 0)]
    assert "All 5 cases with an answer" in html


def test_a_large_run_says_what_it_does_not_show_and_how_to_see_it(written: Write) -> None:
    size = SHOWN + 100
    rows = [[cell(0, number, float(number < SHOWN + 50)) for number in range(size)]]
    html = written(rows, [case(number) for number in range(size)])
    assert headings(html) == ["Wrong in every variant 50", f"All others {SHOWN - 50} of {SHOWN + 50} shown"]
    shown = questions(html)
    assert len(shown) == SHOWN
    assert shown[:50] == [f"Question {number}?" for number in range(SHOWN + 50, size)]
    assert shown[50:] == [f"Question {number}?" for number in range(SHOWN - 50)]
    assert f"Shown are {SHOWN} of {size} cases" in html
    assert re.search(r"<code>ragsmith eval show [0-9a-f]{12} --json --cells</code>", html)
    assert html.endswith("</html>\n")


def test_the_answers_are_never_held_all_at_once(summarised: Callable[..., Summary], tmp_path: Path) -> None:
    size, length = 400, 40_000
    summary = summarised([[cell(0, 0)]], size)

    def cells(_: int) -> Iterator[Cell]:
        return (cell(0, number, answer=f"{number} " + "long " * (length // 5)) for number in range(size))

    tracemalloc.start()
    write_report(tmp_path / "report.html", summary, cells, (case(number) for number in range(size)))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < size * length / 2


# --- texts that nobody may trust ------------------------------------------------------------------------------


def hostile(texts: Iterable[str]) -> tuple[list[list[Cell]], list[Case]]:
    cases, one, other = [], [], []
    for number, text in enumerate(texts):
        # What a dataset refuses, a model may still say.
        safe = text.replace("\x00", "").encode("utf-8", "ignore").decode() or "blank"
        safe = safe if safe.strip() else "blank"
        cases.append(
            case(
                number,
                id=safe[:150].strip() or "blank",
                question=safe,
                history=(Turn(safe, safe),),
                answers=(safe,),
                sources=(safe,),
                tags=(safe,),
                notes=safe,
            )
        )
        passage = CellPassage(text, text, None, text, cited=True)
        one.append(cell(0, number, answer=text, passages=(passage,), trace_id=text))
        other.append(replace(failed(1, number), error=text))
    return [one, other], cases


def test_hostile_texts_become_no_markup(
    store: RunStore, summarised: Callable[..., Summary], tmp_path: Path
) -> None:
    texts = [*STRINGS, "\ud800half", "</style></details></main><script>x</script>", "' onclick=x \" onload=y"]
    rows, cases = hostile(texts)
    name = "</title><script>x</script>"
    summary = summarised(
        [[], []], len(cases), names=[texts[-1], texts[-2]], name=name, error=texts[-2], status="failed"
    )
    path = tmp_path / "report.html"
    write_report(path, summary, lambda number: iter(rows[number]), cases)
    html = path.read_bytes().decode("utf-8")
    page = Page(html)
    assert page.tags <= KNOWN
    assert page.attributes <= ATTRIBUTES
    assert not page.unbalanced
    assert not page.open
    assert "[bold red]markup[/bold red]" in page.text
    assert "<script>alert(1)</script><img src=x onerror=alert(2)>" in page.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)


def test_secrets_are_not_in_a_file_that_is_sent_on(written: Write) -> None:
    secret = "sk-proj-abcdefghij0123456789"
    quoted = 'password = "correct horse"'
    passage = CellPassage("a.md", "A", None, quoted, cited=False)
    rows = [[cell(0, 0, answer=f"It is {secret}.", passages=(passage,))]]
    html = written(rows, [case(0, question=f"Is it {secret}?")], name=secret, names=[secret])
    assert secret not in html
    assert "correct horse" not in html
    assert "It is [redacted]." in html


# --- the file -------------------------------------------------------------------------------------------------


def test_it_asks_nobody_for_anything(written: Write) -> None:
    html = written([[cell(0, 0)]], [case(0)])
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in unescape(html)
    page = Page(html)
    assert not page.tags & {"script", "link", "img", "iframe", "a"}
    assert not page.attributes & {"src", "href", "srcset", "action"}
    assert "@import" not in html
    assert "url(" not in html


def test_a_report_that_breaks_off_leaves_the_old_one(summarised: Callable[..., Summary], tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("the old one")

    def broken(_: int) -> Iterator[Cell]:
        yield cell(0, 0)
        raise DatabaseError("The database is away.")

    with pytest.raises(DatabaseError):
        write_report(path, summarised([[cell(0, 0)]], 1), broken, [case(0), case(1)])
    assert path.read_text() == "the old one"
    assert [each.name for each in tmp_path.iterdir() if "report" in each.name] == ["report.html"]


def test_a_folder_that_is_missing_is_told(summarised: Callable[..., Summary], tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"cannot be written: No such file") as told_:
        write_report(tmp_path / "none" / "r.html", summarised([[cell(0, 0)]], 1), lambda _: iter(()), [case(0)])
    assert told_.value.fix


def test_a_run_without_any_answer_has_a_report(written: Write) -> None:
    html = written([[], []], [case(0)], status="stopped")
    assert "0 of 2 answers are there" in html
    assert not Page(html).unbalanced


@pytest.mark.parametrize("width", [1440, 1024, 390])
def test_a_browser_shows_it_whole_without_scripts_or_requests(
    browser: Chromium, summarised: Callable[..., Summary], tmp_path: Path, width: int
) -> None:
    rows, cases = hostile(STRINGS)
    names = ["baseline", "brief answers of the second prompt, lexical search only, and twelve passages"]
    summary = summarised(
        [[cell(0, n) for n in range(9)], [cell(1, n, n % 2) for n in range(9)]], len(cases), names=names
    )
    path = tmp_path / "report.html"
    write_report(path, summary, lambda number: iter(rows[number]), cases)
    context = browser.new_context(viewport={"width": width, "height": 900}, java_script_enabled=True)
    page = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda line: complaints.append(line.text))
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("document.scripts.length") == 0
    assert page.locator(".case").count() == len(cases)
    clipped = (
        "[...document.querySelectorAll('.tables .scroll')].filter(each => each.scrollWidth > each.clientWidth)"
    )
    if width > 1000:
        assert page.evaluate(f"{clipped}.length") == 0
    context.close()
    assert asked == [path.as_uri()]
    assert not complaints
