"""The traces tab without a browser: its state and address, the list, the charts, and the view of every step."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from rag.database import open_database
from rag.errors import FeedbackError, FilterError, FilterSyntaxError, ReplayError
from rag.tracing.saved_filters import SavedFilter
from rag.tracing.trace_comparison import compare_traces
from rag.tracing.trace_query import Listing, Neighbours, PassageAnswers, query_of
from rag.tracing.trace_series import Bucket, Series, Tails
from rag.tracing.trace_store import Feedback, Span, Trace, TraceStore
from rag.types import Hit, Passage
from rag.workspace import open_workspace
from ui.app.list_replay import listed_traces, replay_of
from ui.pages.traces.comparison_view import comparison_html
from ui.pages.traces.list_state import ListState, act, range_label, state_of
from ui.pages.traces.list_view import chips_html, count_html, error_html, list_html
from ui.pages.traces.other_views import passage_html_of, session_html
from ui.pages.traces.rating_form import LONGEST, GivenRating, read_rating
from ui.pages.traces.raw_traces import trace_routes
from ui.pages.traces.step_views import journey_of, step_view
from ui.pages.traces.trace_charts import charts_html
from ui.pages.traces.trace_view import trace_html

# State and address


_words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(str.strip)


@given(
    st.builds(
        ListState,
        filter=_words,
        sort=st.sampled_from(["", "cost", "latency:asc"]),
        range=st.sampled_from(["", "today", "7d", "2026-05-31T16:00..2026-05-31T17:00"]),
        compare=st.sampled_from(["", "trace-1"]),
        steps=st.sampled_from(["tree", "timeline"]),
    ),
    st.sampled_from([("", ""), ("trace", "trace-2"), ("session", "c 1"), ("passage", "7")]),
)
def test_an_address_names_the_whole_view(state: ListState, beside: Any) -> None:
    shown = state.opened(*beside)
    address = dict(parse_qsl(shown.address(), keep_blank_values=True))
    assert state_of(address) == shown


def test_other_addresses_are_not_meant() -> None:
    assert state_of({"tab": "prompts", "filter": "x"}) is None
    assert state_of({}) is None
    assert state_of({"tab": "traces"}) == ListState()
    assert state_of({"tab": "traces", "steps": "no"}) == ListState()


def test_a_chip_is_added_and_removed() -> None:
    once = act(ListState(filter="refund"), "chip", "status = error")
    assert once.filter == "refund and status = error"
    assert act(once, "chip", "status = error").filter == "refund"


def test_a_header_sorts_the_largest_first_and_then_turns() -> None:
    state = ListState()
    orders = []
    for column in ("cost", "cost", "cost", "started", "started", "started"):
        state = act(state, "sort", column)
        orders.append(state.sort)
    assert orders == ["cost", "cost:asc", "cost", "", "started:asc", ""]


def test_a_zoom_becomes_a_range_of_the_list() -> None:
    day = datetime(2026, 5, 31, 16)
    state = act(ListState(), "zoom", f"{day.timestamp() + 3600} {day.timestamp()}")
    assert state.range == "2026-05-31T16:00..2026-05-31T17:00"
    assert (state.query().since, state.query().until) == (day.timestamp(), day.timestamp() + 3600)
    assert range_label(state) == "31 May 16:00 – 17:00"
    assert range_label(replace(state, range="2026-05-31..2026-06-01")) == "31 May"
    assert range_label(replace(state, range="2026-05-30..2026-06-01")) == "30 May – 31 May"
    with pytest.raises(FilterError, match="range"):
        replace(state, range="whenever").query()


def test_a_named_range_moves_with_the_time() -> None:
    now = datetime(2026, 5, 31, 12).timestamp()
    midnight = datetime(2026, 5, 31).timestamp()
    yesterday = ListState(range="yesterday").query(now)
    assert (yesterday.since, yesterday.until) == (midnight - 86_400, midnight)
    assert ListState(range="7d").query(now).since == now - 7 * 86_400


# The list


def test_the_chips_say_what_they_add_and_which_hold() -> None:
    state = ListState(filter="latency >= 3.2s")
    html = chips_html(state, Tails(4.0, 0.00002), [SavedFilter("mine", "a & b")])
    assert 'data-value="chip latency &gt;= 3.2s" title="latency &gt;= 3.2s" aria-pressed="true"' in html
    assert 'title="cost &gt;= $0.000020" aria-pressed="false"' in html
    assert 'data-value="filter a &amp; b"' in html
    assert "Save this filter" in html
    quiet = chips_html(ListState(), Tails(None, None), ())
    assert "Slow" not in quiet
    assert "Save this filter" not in quiet


def test_every_chip_is_a_filter_that_is_understood() -> None:
    for seconds in (0.0004, 0.0851, 1.94, 61.0, 5_000.0):
        html = chips_html(ListState(), Tails(seconds, seconds / 1e6), ())
        for part in html.split('data-value="chip ')[1:]:
            query_of(part.partition('"')[0].replace("&gt;", ">"))


def test_the_count_says_what_is_hidden() -> None:
    trace = Trace("t", 1.0, "ok", "Q")
    assert "51–51 of 1,204" in count_html(Listing((trace,), None, 1204, 0), 51)
    hidden = count_html(Listing((trace,), None, 1, 1500), 1)
    assert "1,500 hidden: evaluation and lab" in hidden
    assert 'data-value="chip purpose = any"' in hidden
    assert "No matching traces" in count_html(Listing((), None, 0, 0), 1)


def test_the_sorted_column_shows_its_order() -> None:
    html = list_html([Trace("t", 1.0, "ok", "Q")], ListState(sort="cost:asc"))
    assert html.count("aria-sort") == 1
    assert 'class="rs-cost-col" aria-sort="ascending"' in html


def test_the_word_that_is_not_understood_is_marked() -> None:
    with pytest.raises(FilterSyntaxError) as caught:
        query_of("refund and latncy > 2")
    html = error_html(caught.value, "refund and latncy > 2")
    assert "refund and <u>latncy</u> &gt; 2" in html
    assert "Did you mean latency?" in html


def test_a_chart_has_a_place_for_every_bucket_even_an_empty_one() -> None:
    buckets = (Bucket(0.0, 9, 1, 1.0, 3.0, 0.5, 2), Bucket(3600.0), Bucket(7200.0, 1, 0, 0.1, 0.1, 0.0, 1))
    html = charts_html(Series(3600.0, buckets))
    assert html.count("rs-slot") == 9
    assert 'data-value="zoom 0.0 3600.0"' in html
    assert "10, 1 error" in html
    assert "$0.5000, 3 unknown" in html
    assert charts_html(Series(1.0)) == ""


# One trace


def hit(number: int, score: float, rerank: float | None = None) -> Hit:
    passage = Passage(number, 70 + number, f"/docs/f{number}.txt", f"f{number}.txt", "T", f"Text {number}.", 0, 7)
    return Hit(passage, score, 1, 0.8, None, None, rerank)


def as_stored(value: Any) -> Any:
    return json.loads(json.dumps(asdict(value)))


def span(name: str, position: int, given: Any = None, found: Any = None, **more: Any) -> Span:
    parent = None if name == "answer" else "answer"
    began = 10.0 + position
    values = {"kind": "chain", "status": "ok", "started": began, "ended": began + 0.5} | more
    return Span(id=name, parent_id=parent, position=position, name=name, input=given, output=found, **values)


HITS = [hit(1, 0.9), hit(2, 0.8), hit(3, 0.7)]
DROPPED = [
    {"hit": as_stored(hit(4, 0.85)), "reason": "near-duplicate", "better": 1},
    {"hit": as_stored(hit(5, 0.1)), "reason": "rank", "better": None},
]
ANSWER = {"text": "So [1].", "citations": [{"marker": 1}], "claims": [
    {"support": 0.9, "markers": [1], "start": 0, "end": 7, "supported": True},
    {"support": 0.1, "markers": [], "start": None, "end": None, "supported": False},
]}  # fmt: skip
TRACE = Trace(
    "trace-1",
    10.0,
    "ok",
    "Why?",
    "So [1], and [9].",
    latency_s=6.0,
    cost_usd=0.01,
    conversation_id="c1",
    spans=(
        span("answer", 0, {"question": "Why?"}, ANSWER, ended=16.0, cost_usd=0.01),
        span("retrieve", 1, {}, {"hits": [as_stored(each) for each in HITS], "dropped": DROPPED}),
        span(
            "prompt",
            2,
            {},
            {
                "hits": [as_stored(each) for each in HITS[:2]],
                "template": [{"role": "system", "content": "Answer {{ question }}"}],
                "variables": {"question": "Why?"},
                "messages": [{"role": "human", "content": "Answer Why?"}],
            },
        ),
        span(
            "ChatOpenAI",
            3,
            {"messages": [{"role": "human", "content": "Answer Why?"}]},
            {"content": "So [1].", "usage_metadata": {"output_token_details": {"reasoning": 40}}},
            kind="llm",
            ended=16.0,
            cost_usd=0.01,
            input_tokens=100,
            cached_tokens=64,
            output_tokens=50,
            attributes={"temperature": 0.0},
        ),
        span("ground", 4, {}, ANSWER),
    ),
)


def test_a_search_says_what_became_of_every_passage() -> None:
    view = step_view(TRACE.spans[1], journey_of(TRACE))
    assert [(card.rank, card.marker, card.state) for card in view.cards] == [
        (1, 1, "cited"),
        (2, 2, "read"),
        (3, 0, "over budget"),
    ]
    assert [(card.state, card.why) for card in view.dropped] == [
        ("like [1]", "Nearly the same words as [1], which ranks higher"),
        ("outranked", "Enough passages ranked higher"),
    ]
    assert ("dense", "0.800 (rank 1)") in view.cards[0].scores
    assert ("lexical", "not found") in view.cards[0].scores


def test_a_reranker_shows_the_ranks_before_it() -> None:
    stored = [as_stored(hit(2, 0.2, 9.0)), as_stored(hit(1, 0.9, 1.0))]
    view = step_view(span("retrieve", 1, {}, {"hits": stored, "dropped": DROPPED}), journey_of(TRACE))
    assert view.reranked
    assert [(card.rank, card.before) for card in view.cards] == [(1, 3), (2, 1)]


def test_a_prompt_keeps_template_variables_and_messages_apart() -> None:
    view = step_view(TRACE.spans[2], journey_of(TRACE))
    assert [one.text for one in view.template] == ["Answer {{ question }}"]
    assert view.variables == (("question", "Why?"),)
    assert [(one.role, one.text) for one in view.messages] == [("user", "Answer Why?")]


def test_a_model_shows_its_settings_and_its_kinds_of_tokens() -> None:
    pairs = dict(step_view(TRACE.spans[3], journey_of(TRACE)).pairs)
    assert pairs == {
        "temperature": "0.0",
        "tokens read": "100",
        "of these cached": "64",
        "tokens written": "50",
        "of these reasoning": "40",
    }


def test_a_check_shows_every_claim_with_its_support() -> None:
    claims = step_view(TRACE.spans[4], journey_of(TRACE)).claims
    assert [(claim.text, claim.support, claim.supported) for claim in claims] == [
        ("So [1].", 0.9, True),
        ("", 0.1, False),
    ]


@pytest.mark.parametrize(
    "stored", [None, [], "text", {"hits": 3}, {"hits": [None, {"passage": {}}], "lines": [1]}]
)
@pytest.mark.parametrize("name", ["condense", "retrieve", "read", "prompt", "ground", "model"])
def test_a_step_of_another_form_is_shown_by_its_json_alone(name: str, stored: Any) -> None:
    odd = span(name, 0, stored, stored, kind="llm" if name == "model" else "chain")
    html = trace_html(Trace("t", 10.0, "ok", "Q?", spans=(odd,)))
    assert "Raw JSON" in html


def test_a_citation_leads_to_its_passage_and_back() -> None:
    html = trace_html(TRACE)
    assert 'href="#rs-passage-1"' in html
    assert 'id="rs-passage-1"' in html
    assert 'href="#rs-said">cited in the answer' in html
    assert ", and [9]." in html
    assert 'data-value="passage 1"' in html


def test_the_slow_and_the_costly_step_stand_out() -> None:
    html = trace_html(TRACE)
    assert html.count("rs-bar is-hot") == 1
    assert html.count("rs-cost-bar is-hot") == 1


def test_the_head_leads_to_neighbours_the_conversation_and_the_raw_trace() -> None:
    html = trace_html(TRACE, Neighbours("", "next-1"))
    assert 'value="" disabled' in html
    assert 'value="next-1" title' in html
    assert 'data-value="session c1"' in html
    assert 'href="/traces/trace-1"' in html


def test_a_large_value_is_shown_in_part_and_linked_in_whole() -> None:
    large = span("tool", 0, "x" * 10_000)
    html = trace_html(Trace("t/1", 10.0, "ok", "Q?", spans=(large,)))
    assert len(html) < 9_000
    assert "6,002 more characters" in html
    assert 'href="/traces/t%2F1/0/input"' in html


def test_the_timeline_places_steps_in_time() -> None:
    assert "margin-left:50.0%" in trace_html(TRACE, state=ListState(steps="timeline"))
    assert "margin-left:50.0%" not in trace_html(TRACE)


# Beside it


def test_a_conversation_is_shown_in_order_with_whole_answers() -> None:
    long = "word " * 100
    traces = [
        Trace("a", 1.0, "ok", "First?", long, feedback=Feedback("up", "", 2.0)),
        Trace("b", 2.0, "ok", "Then?"),
    ]
    html = session_html(traces, "c1")
    assert html.index("First?") < html.index("Then?")
    assert long.strip() in html
    assert "2 questions" in html
    assert "No trace belongs" in session_html([], "c1")


def test_the_answers_with_a_passage_say_whether_they_cite_it_and_how_they_were_rated() -> None:
    traces = (Trace("a", 1.0, "ok", "One?", feedback=Feedback("down", "old", 2.0)), Trace("b", 1.0, "ok", "Two?"))
    html = passage_html_of(PassageAnswers(traces, frozenset({"b"}), 250), "7")
    assert "250 answers used this passage, the newest 2 shown" in html
    assert "1 cite it · 0 rated up, 1 rated down" in html
    assert "No stored answer" in passage_html_of(PassageAnswers((), frozenset(), 0), "7")


def test_two_traces_show_which_steps_differ() -> None:
    changed = replace(TRACE, answer="So and so.", prompt="answer@2")
    other = replace(changed, id="other-trace-2", latency_s=7.0, cost_usd=0.0105)
    html = comparison_html(compare_traces(TRACE, other))
    assert "Steps: 0 of 4 differ" in html
    assert "answer@2" in html
    assert "+1.00 s" in html
    assert "+$0.00050" in html
    assert "<ins>" in html


def test_raw_values_are_whole_plain_and_guarded(tmp_path: Path) -> None:
    engine = open_database(open_workspace(tmp_path / "home"))
    traces = TraceStore(engine)
    traces.save(TRACE)
    web = FastAPI()
    web.include_router(trace_routes(SimpleNamespace(traces=traces)))  # type: ignore[arg-type]
    client = TestClient(web)
    whole = client.get("/traces/trace-1")
    assert whole.json()["spans"][1]["name"] == "retrieve"
    assert whole.headers["content-type"].startswith("text/plain")
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert client.get("/traces/trace-1/2/output").json()["variables"] == {"question": "Why?"}
    for missing in ("/traces/nothing-here", "/traces/trace-1/99/output", "/traces/trace-1/1/error"):
        assert client.get(missing).status_code == 404
    engine.dispose()


# What is done with a trace or a list


@given(st.text() | st.dictionaries(st.text(), st.text()).map(json.dumps))
def test_a_rating_in_another_form_is_refused_in_one_sentence(sent: str) -> None:
    with pytest.raises(FeedbackError, match="cannot be read"):
        read_rating(sent)


def test_a_rating_is_read_without_white_space_at_its_ends_and_is_no_longer_than_in_the_chat() -> None:
    sent = {"trace": "a", "rating": "", "comment": " Curt. ", "correction": ""}
    assert read_rating(json.dumps(sent)) == GivenRating(trace="a", rating="", comment="Curt.")
    with pytest.raises(FeedbackError):
        read_rating(json.dumps(sent | {"comment": "x" * (LONGEST + 1)}))


def test_a_list_is_replayed_with_its_distinct_questions_in_the_time_that_they_took(tmp_path: Path) -> None:
    from rag.tracing.trace_query import TraceQueries

    engine = open_database(open_workspace(tmp_path))
    store = TraceStore(engine)
    for number, question in enumerate(("One?", "Two?", "One?", " ")):
        trace = Trace(f"trace-{number}", float(number), "ok", question, latency_s=number + 1.0, corpus="handbook")
        store.save(trace)
    stores: Any = SimpleNamespace(traces=store, trace_queries=TraceQueries(engine, store))
    traces, more = listed_traces(stores, query_of("", "started:asc"), 3)
    assert ([trace.id for trace in traces], more) == (["trace-0", "trace-1", "trace-2"], True)
    replay = replay_of(traces)
    assert ([case.question for case in replay.cases], replay.traces) == (["One?", "Two?"], 3)
    assert (replay.corpus, replay.seconds) == ("handbook", 4.0)
    assert not listed_traces(stores, query_of("", "started:asc"), 4)[1]
    engine.dispose()


def test_traces_of_several_corpora_are_replayed_one_corpus_at_a_time() -> None:
    traces = [Trace(f"trace-{name}", 1.0, "ok", f"{name}?", corpus=name) for name in ("b", "a", "")]
    with pytest.raises(ReplayError, match="several corpora: a, b"):
        replay_of(traces)
    assert [case.question for case in replay_of(traces, "b").cases] == ["b?", "?"]
    # Traces that never ended have no time.
    assert replay_of(traces, "b").seconds == 0
