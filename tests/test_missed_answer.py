"""An answer that lacks the words that the reader marked gives way to what the reader found."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny import QUESTION, ScriptedChat, steps_of

from rag.answering.missed_answer import SURE, misses_answer, quotation_of
from rag.answering.steps import Draft
from rag.models.extractive.evidence_lines import EvidenceLine
from rag.models.replies import Reply
from rag.types import Hit, Passage, Usage
from ui.app.app import App

TEXT = "It stands on the quay. The tide gauge was installed in 1871 by Ida Brandt."
START = TEXT.index("The tide")
LINES = (
    EvidenceLine(1, "It stands on the quay.", 0, START - 1),
    EvidenceLine(1, "The tide gauge was installed in **1871** by Ida Brandt.", START, len(TEXT), best=True),
)
HITS = (Hit(Passage(1, 1, "/a.md", "a.md", "Tides", TEXT, 0, len(TEXT)), 1.0),)
QUOTATION = "The tide gauge was installed in 1871 by Ida Brandt. [1]"


@pytest.mark.parametrize(
    ("answer", "marked", "missed"),
    [
        ("It was installed in 1871.", "1871", False),
        ("It was installed in 1817.", "1871", True),
        ("Ida Brandt read it.", "by Ida Brandt", False),
        ("A keeper read it.", "Ida Brandt", True),
        ("It is read two times a day.", "twice a day, at six and at eighteen", True),
        ("Storms are announced by the lamp.", "the red lamp announces a storm", False),
    ],
)
def test_a_short_answer_has_the_marked_words_or_misses_them(answer: str, marked: str, missed: bool) -> None:
    text = f"Before **{marked}** after."
    assert misses_answer(answer, [EvidenceLine(1, text, 0, len(text), best=True)]) == missed


@pytest.mark.parametrize(
    ("answer", "missed"),
    [
        ("The tide gauge of the harbour was installed by Ida Brandt in 1871. [1]", False),
        ("The gauge that they call the tide gauge has been there since 1871. [1]", True),
        ("It stands on the quay and was there in 1871 already, says the page. [1]", True),
        ("The tide gauge was installed by Ida Brandt, many years before the war. [1]", True),
    ],
)
def test_an_answer_in_a_sentence_says_most_of_the_best_sentence(answer: str, missed: bool) -> None:
    assert misses_answer(answer, LINES) == missed


def test_a_style_says_how_much_is_quoted() -> None:
    both = (replace(LINES[0], text="It stands on **the quay**."), LINES[1])
    assert quotation_of(both, HITS) == f"It stands on the quay. [1] {QUOTATION}"
    assert quotation_of(both, HITS, "sentence") == QUOTATION
    assert quotation_of(both, HITS, "brief") == "1871 [1]"
    unmarked = replace(LINES[1], text=LINES[1].text.replace("**", ""))
    assert quotation_of([unmarked], HITS, "brief") == QUOTATION


def test_without_a_best_sentence_nothing_is_missed() -> None:
    assert not misses_answer("Anything at all.", ())
    assert not misses_answer("Anything at all.", [replace(LINES[1], best=False)])


def test_without_marked_words_a_short_answer_says_half_of_the_best_sentence() -> None:
    line = EvidenceLine(1, "The red lamp announces a storm.", 0, 31, best=True)
    assert not misses_answer("A storm: the red lamp.", [line])
    assert misses_answer("A lamp.", [line])


def test_the_quotation_leaves_out_what_only_explains() -> None:
    assert quotation_of(LINES, HITS) == QUOTATION
    assert quotation_of((), HITS) == ""


async def test_an_answer_without_the_marked_words_is_quoted_and_reported(app: App) -> None:
    steps = steps_of(app, ScriptedChat())
    draft = Draft(QUESTION, HITS, Reply("The tide gauge was installed by Ida Brandt. [1]", Usage()), LINES)
    answer = await steps.ground(draft, {})
    assert (answer.status, answer.text) == ("answered", QUOTATION)
    assert [(one.kind, one.words, one.quotation) for one in answer.replaced] == [("answer", ("1871",), QUOTATION)]


@pytest.mark.parametrize(
    ("named", "kept"), [(" (Tides)", " (Tides)"), (" (Tides).", " (Tides)"), (" (Fares)", "")]
)
async def test_a_quotation_keeps_the_name_of_its_page_with_which_the_answer_ended(
    app: App, named: str, kept: str
) -> None:
    steps = steps_of(app, ScriptedChat())
    reply = Reply(f"The tide gauge was installed by Ida Brandt. [1]{named}", Usage())
    answer = await steps.ground(Draft(QUESTION, HITS, reply, LINES), {})
    assert (answer.text, answer.support) == (f"{QUOTATION}{kept}", 1.0)
    assert answer.replaced[0].quotation == QUOTATION


async def test_a_refusal_stands_unless_the_reader_is_rather_sure(app: App) -> None:
    steps = steps_of(app, ScriptedChat())
    refusal = Draft(QUESTION, HITS, Reply(steps.refusal, Usage(), SURE - 0.01), LINES)
    assert (await steps.ground(refusal, {})).status == "abstained"
    sure = replace(refusal, reply=replace(refusal.reply, confidence=SURE))
    answer = await steps.ground(sure, {})
    assert (answer.text, answer.replaced[0].kind) == (QUOTATION, "refusal")


async def test_marks_that_the_model_copies_are_removed(app: App) -> None:
    steps = steps_of(app, ScriptedChat())
    draft = Draft(
        QUESTION, HITS, Reply("The tide gauge was installed in **1871** by Ida Brandt. [1]", Usage()), LINES
    )
    answer = await steps.ground(draft, {})
    assert (answer.text, answer.replaced) == (QUOTATION, ())
