"""A sentence that a model invented is replaced by the sentence of the sources that it should have used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import QUESTION, SENTENCE, ScriptedChat, answered, assistant_with, scripted, spans_of, steps_of

from rag.answering.claim_repair import Written, faults_in, repaired
from rag.answering.steps import Draft
from rag.models.extractive.evidence_lines import EvidenceLine
from rag.models.replies import Reply
from rag.types import Hit, Passage, Replaced, Usage
from ui.app.app import App
from ui.pages.traces.trace_view import trace_html

TIDES = (
    "The tide gauge was installed in 1871 by Ida Brandt. It is read twice a day,\n  at six and at eighteen [4].\n"
    "\n- The highest water was 5.13 metres.\n- A red lamp warns of storm surges.\n"
)
BREAD = "# The oven\n\nRye dough is never kneaded. The oven must reach 250 degrees."
RIGHT = "The oven must reach 250 degrees. [2]"
LAMP = "A red lamp warns of storm surges."


def hit(text: str, title: str = "") -> Hit:
    return Hit(Passage(1, 1, "/a.md", "a.md", title, text, 0, len(text)), 1.0)


HITS = (hit(TIDES), hit(BREAD))


def repair(
    text: str, lines: Sequence[EvidenceLine] = (), hits: Sequence[Hit] = HITS
) -> tuple[str, tuple[Replaced, ...]]:
    return repaired(Written(text, hits, "What warns of storm surges?", lines))


def line(number: int, text: str) -> EvidenceLine:
    """The line of a sentence, whose first word is marked as the answer."""
    start = HITS[number - 1].passage.text.index(text)
    first, _, rest = " ".join(text.split()).partition(" ")
    return EvidenceLine(number, f"**{first}** {rest}", start, start + len(text))


LINES = (
    line(2, "The oven must reach 250 degrees."),
    line(1, "It is read twice a day,\n  at six and at eighteen [4]."),
)


def test_a_sentence_with_a_fault_becomes_a_quotation_and_is_reported() -> None:
    text, replaced = repair("Ida Brandt installed the gauge in 1872 [1].")
    assert text == "The tide gauge was installed in 1871 by Ida Brandt. [1]"
    (one,) = replaced
    assert (one.sentence, one.kind, one.words) == ("Ida Brandt installed the gauge in 1872.", "number", ("1872",))
    assert one.quotation == "The tide gauge was installed in 1871 by Ida Brandt."


@pytest.mark.parametrize(
    "text",
    [
        "Ida Brandt installed the gauge in 1871 [1]. The oven must reach 250 degrees [2].",
        "Ida Brandt [1] installed the gauge in 1871 [1].",
        "- A red lamp warns of surges.[1]\n- Dough is not kneaded [2]",
        "> Dough is never\n> kneaded. [2]",
        "Yes, a red lamp warns of storm surges [1]!",
        "",
        "...",
    ],
)
def test_a_supported_answer_is_left_as_it_was_written(text: str) -> None:
    assert repair(text) == (text, ())


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (f"{RIGHT} A green lamp warns of Napoleon [1]. Dough is never kneaded [2].",
         f"{RIGHT} {LAMP} [1] Dough is never kneaded [2]."),
        (f"{RIGHT}\n\n- A lamp warns of Napoleon. [1]\n- Dough is never kneaded. [2]\n",
         f"{RIGHT}\n\n- {LAMP} [1]\n- Dough is never kneaded. [2]"),
        ("A lamp [1] warns of Napoleon [1], [2]. Dough is never kneaded.",
         f"{LAMP} [1] Dough is never kneaded."),
        ("Run this:\n\n```sh\nlamp --storm\n```\n\nDough is never kneaded.",
         f"{LAMP} [1]\n\nDough is never kneaded."),
        ("It is read thrice a day, at six and at eighteen [1].",
         "It is read twice a day, at six and at eighteen. [1]"),
    ],
)  # fmt: skip
def test_only_the_sentence_at_fault_changes(written: str, text: str) -> None:
    assert repair(written)[0] == text


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (f"{LAMP} [1] A lamp warns of Napoleon. A red lamp warns of 9 surges.", f"{LAMP} [1]"),
        (f"A lamp warns of Napoleon [1]. {LAMP} [1]", f"{LAMP} [1]"),
        ("A lamp warns of Napoleon [1]. A red lamp warns of 9 surges.", f"{LAMP} [1]"),
        (f"{LAMP} [1]\nDough is never kneaded. [2] A lamp warns of Napoleon.",
         f"{LAMP} [1]\nDough is never kneaded. [2]"),
        (f"1. {LAMP} [1]\n2. A lamp warns of Napoleon. [1]", f"1. {LAMP} [1]"),
        (f"- {LAMP} [1]\n- A lamp warns of Napoleon. [1]\n- Dough is never kneaded. [2]",
         f"- {LAMP} [1]\n- Dough is never kneaded. [2]"),
    ],
)  # fmt: skip
def test_a_quotation_is_not_repeated(written: str, text: str) -> None:
    assert repair(written)[0] == text


def test_the_cited_passages_are_quoted_first() -> None:
    hits = (hit("The lamp is green in Bergen."), hit("The lamp is green in Oslo."))
    assert repair("The lamp is green in Paris [2].", hits=hits)[0] == "The lamp is green in Oslo. [2]"


def test_the_lines_are_what_counts_and_what_is_quoted() -> None:
    # The passages say it, but the model was not given this sentence.
    text, replaced = repair("The highest water was 5.13 metres [1].", LINES)
    assert text == "It is read twice a day, at six and at eighteen. [1]"
    assert [one.kind for one in replaced] == ["number"]
    assert (
        repair("The gauge is read two times a day [1].", LINES, (hit(TIDES, "The tide gauge"), HITS[1]))[1] == ()
    )


def test_a_brief_quotation_is_the_words_that_answer() -> None:
    brief = Written("The oven must reach 300 degrees [2].", HITS, "What warns of storm surges?", LINES, "brief")
    assert repaired(brief)[0] == "The [2]"


def test_a_sentence_that_cites_the_wrong_line_gets_the_right_one() -> None:
    text, _ = repair("The oven must reach 250 degrees [1].", LINES)
    assert text == RIGHT


def test_titles_and_headings_may_be_named() -> None:
    assert repair("In Bergen, a red lamp warns of surges [1].", hits=(hit(TIDES, "Tides of Bergen"),))[1] == ()


def test_without_anything_to_quote_a_sentence_stays_and_is_reported() -> None:
    text, replaced = repair("Aida was sung in Cairo.", hits=(hit("---\n"),))
    assert text == "Aida was sung in Cairo."
    assert [(one.kind, one.quotation) for one in replaced] == [("name", None)]


def test_a_check_alone_replaces_nothing() -> None:
    (one,) = faults_in(Written("A lamp warns of Napoleon [1].", HITS, ""))
    assert (one.kind, one.words, one.quotation) == ("name", ("Napoleon",), None)


PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            ["[1]", "[2]", "[3]", "[1] [2]", "`", "```", ". ", "\n", "\n\n", "- ", "| ", "> ", "250", " ", "Why?"]
        ),
        st.sampled_from([*TIDES.split(". "), *BREAD.split(". "), "Napoleon came in 1815.", "No, never."]),
        st.text(max_size=20),
    ),
    max_size=10,
).map("".join)


@given(PIECES, st.lists(PIECES, max_size=3), st.sampled_from([(), LINES[:1]]))
def test_any_answer_is_repaired_once(text: str, passages: list[str], lines: tuple[EvidenceLine, ...]) -> None:
    hits = tuple(hit(passage) for passage in (BREAD, *passages))
    # The lines of the second sample passage, which is the first here.
    lines = tuple(replace(one, number=1) for one in lines)
    first, replaced = repair(text, lines, hits)
    assert all(one.words for one in replaced)
    if not any(one.quotation for one in replaced):
        assert first == text.strip()


# The chain


async def test_an_answer_from_passages_keeps_its_words_and_the_trace_shows_the_fault(app: App) -> None:
    written = "The tide gauge was installed in 1817 by Ida Brandt [1]."
    answer = await answered(scripted(app, f"{written} {written.replace('1817', '1871')}"), QUESTION)
    assert answer.status == "answered"
    assert written in answer.text
    assert [(one.kind, one.words, one.quotation) for one in answer.replaced] == [("number", ("1817",), None)]
    trace = app.stores.traces.get(answer.trace_id)
    output = spans_of(trace)["ground"].output
    assert isinstance(output, dict)
    assert "1817" in json.dumps(output["replaced"])
    html = trace_html(trace)
    assert "The tide gauge was installed in 1817 by Ida Brandt" in html
    assert "number not in the sources: 1817" in html


async def test_json_is_reported_but_never_rewritten(app: App) -> None:
    release = replace(app.releases.pipeline().release, model="openai:m")
    decoding = release.decoding.model_copy(update={"json_schema": {"type": "object"}})
    told = json.dumps({"a": f"{SENTENCE} [1]", "b": "The gauge was installed in 1817 [1]."})
    model = ScriptedChat(reply=(told,))
    answer = await answered(assistant_with(app, model, release=replace(release, decoding=decoding)), QUESTION)
    assert answer.text == told
    assert [(one.kind, one.words, one.quotation) for one in answer.replaced] == [("number", ("1817",), None)]


async def test_the_extractive_reader_is_not_checked(app: App) -> None:
    answer = await answered(app, QUESTION)
    assert answer.status == "answered"
    assert answer.replaced == ()


async def test_a_reply_without_support_is_a_refusal_unless_there_are_lines_to_quote(app: App) -> None:
    steps = steps_of(app, ScriptedChat())
    text = "# Tides\n\nThe tide gauge was installed in 1871 by Ida Brandt."
    start = text.index("The")
    draft = Draft(QUESTION, (hit(text),), Reply("Aida was first sung in Cairo.", Usage()))
    refused = await steps.ground(draft, {})
    assert (refused.status, refused.replaced) == ("abstained", ())
    lines = (EvidenceLine(1, text[start:], start, len(text)),)
    answer = await steps.ground(replace(draft, lines=lines), {})
    assert (answer.status, answer.text) == ("answered", f"{SENTENCE} [1]")
    assert [(one.start, one.end) for one in answer.citations] == [(start, len(text))]
    quoting = replace(draft, reply=replace(draft.reply, quotes=True), lines=lines)
    assert (await steps.ground(quoting, {})).status == "abstained"
