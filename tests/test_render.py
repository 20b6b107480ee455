from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_cells import case, cell, failed

from prompts import Move, PromptLibrary
from prompts.diff import Change, Piece
from rag.answering.conversation_store import ConversationPage, ConversationSummary
from rag.errors import FilterSyntaxError
from rag.evaluation.case_answers import Answered
from rag.evaluation.grid import GridPage
from rag.evaluation.metric_definitions import BY_NAME
from rag.evaluation.run_store import CellPassage, Plan, Run
from rag.evaluation.runner import EvaluationProgress
from rag.evaluation.statistics import Estimate
from rag.evaluation.summary import Figure, Summary, VariantSummary
from rag.evaluation.variants import Variant
from rag.tracing.saved_filters import SavedFilter
from rag.tracing.trace_comparison import compare_traces
from rag.tracing.trace_query import Listing
from rag.tracing.trace_series import Tails
from rag.tracing.trace_store import Feedback, Span, Trace, TracePage
from rag.types import Answer, AnswerStatus, Citation, Hit, Passage, Turn, Usage
from ui.app.health import Health
from ui.pages.chat.answer_html import (
    answer_html,
    document_url,
    draft_html,
    footer_html,
    question_html,
    step_line,
)
from ui.pages.chat.conversation_view import ago, listing_html
from ui.pages.chat.sources_panel import sources_html
from ui.pages.evaluate import runs_view
from ui.pages.health_strip import notices_html, strip_html
from ui.pages.prompts.prompt_editor import bar_html
from ui.pages.prompts.prompt_listing import Export, PromptEntry, VersionEntry, VersionPage
from ui.pages.prompts.prompts_view import (
    changes_html,
    entries_html,
    head_html,
    moves_html,
    template_html,
    used_html,
    versions_html,
)
from ui.pages.safe_markup import Reference, markdown, note, passage_html, plain_with_citations
from ui.pages.traces.comparison_view import comparison_html
from ui.pages.traces.list_state import ListState
from ui.pages.traces.list_view import chips_html, count_html, error_html, list_html
from ui.pages.traces.other_views import session_html
from ui.pages.traces.trace_view import trace_html

TEXT = "Before it. The cited sentence. After it."
PASSAGE = Passage(1, 7, "/d/guide.md", "guide.md", "Guide", TEXT, 100, 100 + len(TEXT), ("Top", "Sub"))
HIT = Hit(PASSAGE, 0.0325, 1, 0.7123, 2, 12.34)
OTHER = Hit(replace(PASSAGE, id=2, document_id=8, source="/d/b.pdf", name="b.pdf", page=3), 0.016, 4, 0.41)
CITED = Citation(1, HIT, 111, 130, 0.83)
ANSWER = Answer(
    "The answer [1].",
    "answered",
    hits=(HIT, OTHER),
    citations=(CITED,),
    support=0.83,
    trace_id="0193-t",
    latency_s=1.93,
    usage=Usage(700, 112),
    cost_usd=0.00012,
    prompt="answer@1",
    model="openai:gpt",
)

NASTY = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.sampled_from(
            [
                "<script>alert(1)</script>",
                "<img src=x onerror=alert(1)>",
                "![a](http://e.org/x.png)",
                "[a](javascript:alert(1))",
                "[a](JaVaScRiPt:alert(1))",
                "<javascript:alert(1)>",
                "[1]",
                "[1](http://e.org)",
                "[x]: http://e.org",
                "\n\n",
                "\n",
                "```",
                "```html\n",
                "`",
                "    ",
                "| a | b |\n|---|---|\n| 1 | 2 |\n",
                "&lt;b&gt;",
                "&#60;script&#62;",
                "<!--",
                "-->",
                "<![CDATA[",
                "<?php",
                "]]>",
                "</div>",
                "</textarea>",
                "<style>",
                "<svg onload=alert(1)>",
                "[![a](b)](data:text/html,x)",
                "[a](data:text/html;base64,xx)",
                "\u202e",
                "\x00",
                '"',
                "'",
                ">",
                "<",
                "&",
                "\\",
                "[a](<java\nscript:x>)",
                "[a](&#106;avascript:x)",
                "<a href='//e.org'>",
                "[a](//e.org)",
                "[a](/etc)",
                "[a](vbscript:x)",
                "* ",
                "# ",
                "> ",
                "1. ",
                "~~",
                "**",
            ]
        ),
    ),
    max_size=14,
).map("".join)

TAGS = {
    "a",
    "blockquote",
    "br",
    "code",
    "del",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "li",
    "ol",
    "p",
    "pre",
    "s",
    "strong",
    "table",
    "tbody",
    "td",
    "th",
    "thead",
    "tr",
    "ul",
}
ATTRIBUTES = {"class", "href", "title", "target", "rel", "start", "style"}
HREF = re.compile(r"(https?:|mailto:|/documents/\d+\?[a-z0-9=&]*#cited$)", re.IGNORECASE)


class Markup(HTMLParser):
    """Collects what a browser would see as markup."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.other: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_comment(self, data: str) -> None:
        self.other.append(data)

    def handle_decl(self, decl: str) -> None:
        self.other.append(decl)

    def handle_pi(self, data: str) -> None:
        self.other.append(data)

    def unknown_decl(self, data: str) -> None:
        self.other.append(data)

    def handle_data(self, data: str) -> None:
        self.text += data


def known(number: int) -> Reference | None:
    return Reference(document_url(7, 1, 2), 'a "name" <b>') if number == 1 else None


@given(NASTY)
def test_no_markdown_becomes_markup_of_its_own(text: str) -> None:
    html = markdown(text, known)
    seen = Markup(html)
    assert not seen.other
    assert "\n" not in html
    for tag, attributes in seen.tags:
        assert tag in TAGS
        assert set(attributes) <= ATTRIBUTES
        assert not attributes.get("style") or re.fullmatch(r"text-align:\w+", attributes["style"] or "")
        if tag == "a":
            assert HREF.match(attributes["href"] or ""), attributes


@given(NASTY)
def test_citations_in_plain_text_are_its_only_tags(text: str) -> None:
    seen = Markup(plain_with_citations(text, known))
    assert {tag for tag, _ in seen.tags} <= {"a"}
    assert all(attributes["href"] == "/documents/7?start=1&end=2#cited" for _, attributes in seen.tags)


HOSTILE = "\"'><script>alert(1)</script><i onclick='x' \u202e\n"


def chat_page() -> str:
    passage = replace(PASSAGE, text=HOSTILE, source=HOSTILE, name=HOSTILE, headings=(HOSTILE,))
    hit = Hit(passage, 0.1)
    shown = replace(
        ANSWER,
        text=HOSTILE,
        error=HOSTILE,
        prompt=HOSTILE,
        trace_id=HOSTILE,
        citations=(Citation(1, hit, 101, 103, 0.5),),
    )
    statuses: tuple[AnswerStatus, ...] = ("answered", "abstained", "failed", "cancelled")
    answers = [replace(shown, status=status, hits=(hit,)) for status in statuses]
    return "".join(
        [
            question_html(HOSTILE, 3),
            draft_html(HOSTILE, (hit,), (), "extractive", HOSTILE),
            *(answer_html(answer) + sources_html(answer, 0.6) for answer in answers),
            listing_html(ConversationPage((ConversationSummary(HOSTILE, HOSTILE, "notes", 1.0),), 1), ""),
        ]
    )


def traces_page() -> str:
    data = {HOSTILE: [HOSTILE]}
    span = Span("s", None, 0, HOSTILE, "llm", "error", 1.0, 2.0, data, data, HOSTILE, attributes=data)
    named = dict.fromkeys(("prompt", "model", "corpus", "release"), HOSTILE)
    liked = Feedback("up", HOSTILE, 1.0)
    trace = Trace(HOSTILE, 1.0, "ok", HOSTILE, HOSTILE, HOSTILE, spans=(span,), feedback=liked, **named)
    state = ListState(HOSTILE, range=HOSTILE)
    return "".join(
        [
            list_html([trace], state),
            count_html(Listing((trace,), None, 1, 1), 1),
            chips_html(state, Tails(1.0, 1.0), [SavedFilter(HOSTILE, HOSTILE)]),
            error_html(FilterSyntaxError(HOSTILE, start=1, end=5), HOSTILE),
            trace_html(replace(trace, replay_of=HOSTILE, conversation_id=HOSTILE, user_name=HOSTILE)),
            session_html([trace], HOSTILE),
            comparison_html(compare_traces(trace, replace(trace, answer="x", model="y"))),
        ]
    )


def prompts_page() -> str:
    prompt = PromptLibrary().load("answer@1")
    message = prompt.messages[0].model_copy(update={"content": HOSTILE})
    hostile = prompt.model_copy(update={"messages": (message,), "description": HOSTILE, "tags": (HOSTILE,)})
    move = Move(label="staging", version=1, by=HOSTILE, at=datetime.now(UTC), message=HOSTILE)
    version = VersionEntry(1, (HOSTILE,), HOSTILE, None, HOSTILE)
    change = Change(HOSTILE, "", HOSTILE, (Piece("added", HOSTILE),))
    return "".join(
        [
            entries_html([PromptEntry(HOSTILE, 1, {HOSTILE: 1})], ""),
            versions_html(VersionPage((version,), 1, 1), 1),
            head_html(hostile, (HOSTILE,), ships=False),
            template_html(hostile, [Export(HOSTILE, None, HOSTILE)]),
            changes_html([change], HOSTILE, HOSTILE),
            moves_html([move], HOSTILE),
            used_html(TracePage((), 0), HOSTILE),
            bar_html(HOSTILE),
        ]
    )


def evaluate_page() -> str:
    asked = case(0, question=HOSTILE, answers=(HOSTILE,), notes=HOSTILE, history=(Turn(HOSTILE, HOSTILE),))
    passage = CellPassage(HOSTILE, HOSTILE, 1, HOSTILE, cited=True)
    answered = cell(0, 0, answer=HOSTILE, rationale=HOSTILE, trace_id=HOSTILE, passages=(passage,))
    row = Answered(0, asked, (answered, failed(1, 0)))
    variants = (Variant(name=HOSTILE, changes={"model": HOSTILE}), Variant(name="other"))
    plan = Plan(variants=variants, states=("", ""), corpus=HOSTILE)
    run = Run(HOSTILE, HOSTILE, 1.0, "failed", HOSTILE, 1, "", plan, error=HOSTILE)
    figure = Figure(Estimate(0.5, 0.4, 0.6, 10), Estimate(0.1, 0.05, 0.2, 10))
    shown = tuple(
        VariantSummary(each.name, each.changes, 1, 1, 1, {"contains": figure}, HOSTILE) for each in variants
    )
    summary = Summary(run, 1, 0, (BY_NAME["contains"],), shown)
    return "".join(
        [
            runs_view.runs_html([run], [1], [2], "", 3),
            runs_view.head_html(run, 1, EvaluationProgress(1, 2, 1, 1, 9.0), (HOSTILE,)),
            runs_view.table_html(summary),
            runs_view.grid_html(GridPage((row,), 0, 1), summary, "0:0"),
            *(runs_view.cell_html(row, number, HOSTILE) for number in range(2)),
        ]
    )


def frame() -> str:
    health = Health(HOSTILE, True, HOSTILE, False, HOSTILE, True, (HOSTILE,), HOSTILE, False)
    return strip_html(health) + notices_html(health) + note(HOSTILE)


@pytest.mark.parametrize("page", [chat_page, traces_page, prompts_page, evaluate_page, frame])
def test_no_text_of_others_becomes_markup(page: Callable[[], str]) -> None:
    html = page()
    seen = Markup(html)
    assert "<script>alert(1)</script>" in seen.text
    assert "\u202e" not in html
    assert "\n" not in html
    assert not seen.other
    assert not [tag for tag, attributes in seen.tags if tag == "script" or "onclick" in attributes]


def test_a_marker_leads_to_its_sentence() -> None:
    html = answer_html(ANSWER)
    assert 'href="/documents/7?start=111&amp;end=130#cited"' in html
    assert 'title="guide.md"' in html


def test_a_marker_whose_sentence_was_not_found_leads_to_the_passage_and_marks_nothing() -> None:
    lost = Citation(1, HIT, None, None, 0.4)
    assert 'href="/documents/7?at=100#cited"' in answer_html(replace(ANSWER, citations=(lost,)))
    panel = sources_html(replace(ANSWER, citations=(lost,)), 0.3)
    assert "<mark>" not in panel
    assert "nothing is marked" in panel


def test_a_marker_without_a_passage_stays_text() -> None:
    html = answer_html(replace(ANSWER, text="See [9] and [0]."))
    assert "See [9] and [0]." in html


def test_a_text_cannot_give_a_marker_another_target() -> None:
    html = markdown("[1](http://e.org) and [1]\n\n[1]: http://e.org", known)
    assert "e.org" not in "".join(str(attributes.get("href")) for _, attributes in Markup(html).tags)


def test_code_is_left_alone() -> None:
    html = markdown("```html\n<b>[1]</b>\n\n&amp;\n```", known)
    assert "<pre><code>&lt;b&gt;[1]&lt;/b&gt;&#10;&#10;&amp;amp;&#10;</code></pre>" in html


def test_images_become_their_text_and_relative_links_too() -> None:
    html = markdown("![a chart](http://e.org/c.png) in [the guide](guide.md) or [there](https://e.org)", known)
    assert "<img" not in html
    assert "a chart in the guide or" in html
    assert 'rel="noopener noreferrer nofollow"' in html


def test_the_reader_quotes_plain_sources_letter_by_letter() -> None:
    text = "Call __init__ with *args. [2]"
    quoted = replace(ANSWER, text=text, model="extractive", citations=())
    assert "Call __init__ with *args." in answer_html(quoted)
    assert "<strong>init</strong>" in answer_html(replace(quoted, model="openai:gpt"))
    # Of a Markdown source the marks are marks.
    assert "<strong>init</strong>" in answer_html(replace(quoted, text=text.replace("[2]", "[1]")))


@pytest.mark.parametrize(
    ("status", "badge"),
    [("cancelled", "Stopped"), ("failed", "Failed"), ("abstained", "Not in these documents"), ("answered", None)],
)
def test_an_answer_looks_like_what_became_of_it(status: str, badge: str | None) -> None:
    html = answer_html(replace(ANSWER, status=status, error="The server is away."))
    assert f"rs-{status}" in html
    assert (badge in html) if badge else ("rs-badge" not in html)
    assert ("The server is away." in html) == (status == "failed")


def test_the_footer_says_time_tokens_cost_prompt_and_trace() -> None:
    shown = Markup(footer_html(ANSWER)).text
    assert shown == "1.9 s · 812 tok · $0.00012 · answer@1 · trace ↗ · + case · playground · copy"


def test_what_is_not_known_is_not_shown_as_nothing() -> None:
    shown = Markup(footer_html(replace(ANSWER, cost_usd=None, usage=Usage()))).text
    assert "cost unknown" in shown
    assert "tokens unknown" in shown
    assert "12 tok" in footer_html(replace(ANSWER, usage=Usage(None, 12)))


def test_cited_evidence_comes_first_with_its_sentence_marked() -> None:
    panel = sources_html(replace(ANSWER, hits=(OTHER, HIT), citations=(replace(CITED, marker=2),)), 0.5)
    assert "<mark>The cited sentence.</mark>" in panel
    assert panel.index("guide.md") < panel.index("b.pdf p. 3")
    assert "Retrieved, not cited (1)" in panel
    assert "0.83 of 1" in panel
    states = re.findall(r'<span class="rs-score" title="[^"]+">([^<]+)', panel)
    assert states == ["cited", "read"]
    assert "0.712 (rank 1)" in panel
    assert "12.3 (rank 2)" in panel
    assert "Low support" not in panel


MARKDOWN = "## Files\n\nIt is **one** `file` here. [More](https://e.org).\n\n| a | b |\n|---|---|\n| 1 | two |\n"


@pytest.mark.parametrize(
    ("cited", "shown"),
    [
        ("It is **one** `file` here.", "<mark>It is </mark><strong><mark>one</mark></strong>"),
        ("## Files", "<h2><mark>Files</mark></h2>"),
        ("| 1 | two |", "<td><mark>1</mark></td>"),
        # A mark that ended here would end the link.
        ("More]", "[<mark>More]</mark>(https://e.org)"),
    ],
)
def test_a_passage_is_rendered_and_its_cited_sentence_stays_marked(cited: str, shown: str) -> None:
    start = MARKDOWN.index(cited)
    passage = replace(PASSAGE, text=MARKDOWN, start=0, end=len(MARKDOWN))
    citation = Citation(1, replace(HIT, passage=passage), start, start + len(cited), 0.9)
    panel = sources_html(replace(ANSWER, citations=(citation,)), 0.1)
    assert shown in panel
    plain = sources_html(
        replace(ANSWER, citations=(replace(citation, hit=Hit(replace(passage, source="a.txt"), 0.1)),)), 0.1
    )
    assert f"<mark>{cited}</mark>" in plain


@given(NASTY, st.integers(0, 60), st.integers(0, 60))
def test_no_passage_becomes_markup_of_its_own(text: str, start: int, end: int) -> None:
    html = passage_html(text, [(min(start, end), max(start, end))], formatted=True)
    assert {tag for tag, _ in Markup(html).tags} <= TAGS | {"mark", "div"}
    assert all(HREF.match(attributes["href"] or "") for _, attributes in Markup(html).tags if "href" in attributes)


def test_low_support_is_told() -> None:
    assert "Low support" in sources_html(ANSWER, 0.9)
    assert "Low support" not in sources_html(replace(ANSWER, status="abstained"), 0.9)


def test_a_refusal_shows_the_nearest_passages() -> None:
    panel = sources_html(replace(ANSWER, status="abstained", citations=()), 0.5)
    assert "Nearest passages" in panel
    assert "<mark>" not in panel


def test_a_mark_stays_inside_its_passage() -> None:
    wide = Citation(1, HIT, 0, 10_000, 0.5)
    assert f"<mark>{TEXT}</mark>" in sources_html(replace(ANSWER, citations=(wide,)), 0.1)
    elsewhere = Citation(1, HIT, 5_000, 5_010, 0.5)
    assert "<mark>" not in sources_html(replace(ANSWER, citations=(elsewhere,)), 0.1)


def test_what_goes_on_is_said_in_words() -> None:
    assert step_line("retrieve", 0) == "Searching"
    assert step_line("generate", 1) == "Writing from 1 passage"
    assert step_line("generate", 5) == "Writing from 5 passages"


def test_a_question_keeps_its_lines_and_its_position() -> None:
    html = question_html("a\n<b>", 4)
    assert "a&#10;&lt;b&gt;" in html
    assert 'value="4"' in html


def test_the_tree_of_a_trace_shows_every_step_even_without_its_parent() -> None:
    spans = (
        Span("root", None, 0, "answer", "chain", "ok", 10.0, 12.0, {"q": 1}, {"a": 2}),
        Span("child", "root", 1, "retrieve", "retriever", "ok", 10.0, 10.5),
        Span("lost", "gone", 2, "orphan", "tool", "cancelled", 11.0, None),
        Span("model", "child", 3, "generate", "llm", "ok", 10.5, 11.0, input_tokens=5, output_tokens=None),
    )
    html = trace_html(Trace("id-1", 10.0, "ok", "Q?", "A.", latency_s=2.0, spans=spans))
    for name in ("answer", "retrieve", "orphan", "generate"):
        assert f">{name}<" in html
    assert "500 ms" in html
    assert "not finished" in html
    assert "<span>5 + ? tok</span><span>cost unknown</span>" in html
    assert "--depth:2" in html


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(5, "now"), (61, "1 min"), (7300, "2 h"), (90_000, "1 d"), (40 * 86_400, "1 mo")],
)
def test_ages(seconds: float, shown: str) -> None:
    assert ago(seconds) == shown
