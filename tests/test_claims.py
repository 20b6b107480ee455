"""Each sentence of an answer that its sources do not support is marked, wherever the answer is shown."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from streams import stream_of
from tiny import QUESTION, SENTENCE, ScriptedChat, answered, assistant_with, scripted

from rag.answering.conversation_store import ConversationStore
from rag.answering.grounding import ground, moved, with_citations
from rag.database import open_database
from rag.encoders import Encoder
from rag.settings import CitationStyle
from rag.types import Answer, Claim, Done, Event, Hit, Passage, Token
from rag.workspace import Workspace
from ui.app.app import App
from ui.app.claims import claims_of
from ui.commands._answers import print_answer, show
from ui.openai_shapes import extra
from ui.pages.chat.answer_html import answer_html
from ui.pages.chat.sources_panel import sources_html

TRUE = "The berth fee for ferries is 70 crowns a night"
FORGED = "The berth fee for yachts is 9000 crowns a night and must be sent to account 666"
RULE = f"{TRUE}. Ask at the office for more."


def hit(text: str, number: int = 1) -> Hit:
    return Hit(Passage(number, number, f"{number}.md", f"{number}.md", "Tariffs", text, 0, len(text)), 1.0)


HITS = (hit("The harbour is open in summer.", 1), hit(RULE, 2))


def checked(text: str, encoder: Encoder, hits: Sequence[Hit] = HITS, where: CitationStyle = "inline") -> Answer:
    """An answer with this text, as the chain checks it at its usual threshold."""
    found = ground(text, hits, encoder, 0.35)
    return Answer(
        with_citations(found.text, where),
        "answered",
        hits=tuple(hits),
        citations=found.citations,
        claims=moved(found.claims, found.text, where),
        support=found.support,
        model="openai:m",
    )


def words(answer: Answer) -> list[str]:
    return [answer.words_of(claim) for claim in answer.claims]


@pytest.mark.parametrize("where", ["inline", "end", "none"])
def test_a_forged_sentence_beside_a_true_one_is_marked_and_the_true_one_is_not(
    encoder: Encoder, where: CitationStyle
) -> None:
    answer = checked(f"{TRUE} [2]. {FORGED} [2].", encoder, where=where)
    assert [answer.words_of(claim) for claim in answer.unsupported_claims] == [FORGED]
    assert [claim.supported for claim in answer.claims] == [True, False]
    html = answer_html(answer)
    underlined = '<span class="rs-doubt" title="Not supported by the sources">'
    assert re.findall(rf"{underlined}(.*?)</span>", html) == [FORGED]
    assert "⚠ 1 sentence is not supported by the sources." in html
    assert "Low support" in sources_html(answer, 0.35)


async def test_the_chain_hands_on_what_is_not_supported(app: App) -> None:
    answer = await answered(scripted(app, f"{SENTENCE} [1] {FORGED} [1]."), QUESTION)
    assert answer.status == "answered"
    assert [answer.words_of(claim) for claim in answer.unsupported_claims] == [FORGED]
    assert answer.support_note == "1 sentence is not supported by the sources"
    assert [(fault.sentence, fault.kind) for fault in answer.replaced] == [(f"{FORGED}.", "number")]


SENTENCES = (
    "The ferry leaves at seven.",
    "- An item",
    "Read `args[0]` first.",
    "# Tides",
    "Is it so?",
    "Yes.",
    "ü 😀 e",
)
PIECES = st.lists(
    st.sampled_from([*SENTENCES, "[1]", " [2][1]", "[7]", " ", "\n\n", "[1]_", "  [2]", ". "]), max_size=12
)


@given(PIECES.map("".join), st.sampled_from(["inline", "end", "none"]))
def test_a_claim_lies_where_it_stands_in_the_text_that_is_shown(
    encoder: Encoder, text: str, where: CitationStyle
) -> None:
    plain = checked(text, encoder)
    answer = checked(text, encoder, where=where)
    assert len(words(answer)) == len(words(plain))
    for shown, written in zip(words(answer), words(plain), strict=True):
        kept = written if where == "inline" else with_citations(written, "none").removeprefix("_")
        assert shown.split() == kept.split()
    places = [(claim.start, claim.end) for claim in answer.claims]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("Run it:\n\n```sh\nmake run\n```\n\nThen wait.", ["Run it:", "make run", "Then wait."]),
        ("- One fee [1]\n- Two fees [2]\n1. Three", ["One fee", "Two fees", "Three"]),
        ("| Boat | Fee |\n|---|---|\n| Yacht | 45 |\n", ["Boat | Fee", "Yacht | 45"]),
        ("## Fees\nIt is **45 crowns**. So.", ["Fees", "It is **45 crowns**.", "So."]),
        ("> It is 45.\n> Or 46.", ["It is 45.", "Or 46."]),
    ],
)
def test_lists_tables_headings_and_code_are_claims_of_their_own(
    encoder: Encoder, text: str, claims: list[str]
) -> None:
    assert words(checked(text, encoder)) == claims


async def test_the_texts_of_a_json_answer_have_no_place(app: App) -> None:
    release = replace(app.releases.pipeline().release, model="openai:m")
    decoding = release.decoding.model_copy(update={"json_schema": {"type": "object"}})
    told = json.dumps({"a": f"{SENTENCE} [1]", "b": f"{FORGED} [1]."})
    model = ScriptedChat(reply=(told,))
    assistant = assistant_with(app, model, release=replace(release, decoding=decoding))
    answer = await answered(assistant, QUESTION)
    assert [(claim.start, claim.end, claim.supported) for claim in answer.claims] == [
        (None, None, True),
        (None, None, False),
    ]
    assert answer.support_note in answer_html(answer)


# The page


def without_lines(html: str) -> str:
    """HTML without what underlines."""
    html = re.sub(r'<span class="rs-doubt"[^>]*>(.*?)</span>', r"\1", html)
    return re.sub(r'<div class="rs-doubts">.*?</div>&#10;', "", html)


MARKDOWN = (
    "It is **45 crowns**. ",
    '**Note:** "quoted". ',
    "*Both* are _so_.",
    "- Item one.\n- **Item** two.\n",
    "1. First.\n",
    "| a | b |\n|---|---|\n| c. D | e |\n",
    "```py\nx = 1. Y\n```\n",
    "Code `a. B` here. ",
    "# Head\n",
    "\n\n",
    "See [a. Link](http://e.org/a.b). ",
    "[r]: http://e.org/x\n",
    "<b>raw. Html</b> ",
    "![alt. Text](http://e.org/i.png) ",
    "Quote: > no. ",
    "> quoted. Lines\n> more.\n",
    "A & B < C. ",
    "[1] ",
    "⸨odd⸩ ",
    "<http://e.org/x.y> ",
    "&amp; e. ",
    "\\*not\\*. ",
    "Line  \nbreak. ",
    "***\n",
    "    indented. Code\n",
)


@given(st.lists(st.sampled_from(MARKDOWN), min_size=1, max_size=8).map("".join), st.booleans())
def test_underlining_changes_nothing_else(encoder: Encoder, text: str, every: bool) -> None:
    answer = checked(text, encoder)
    claims = tuple(replace(each, supported=not every and at % 2 == 0) for at, each in enumerate(answer.claims))
    marked = answer_html(replace(answer, claims=claims))
    assert without_lines(marked) == answer_html(replace(answer, claims=()))
    assert not re.search("[\u2e28\u2e29]|%E2%B8", marked)


@pytest.mark.parametrize(
    "text",
    [
        "**It is 9000.**",
        "It is **9000**.",
        "- It is *9000*",
        "`It is 9000`",
        "It is [9000](http://e.org).",
        "| It | 9000 |",
    ],
)
def test_a_sentence_with_mark_up_in_it_is_underlined_whole(encoder: Encoder, text: str) -> None:
    html = answer_html(checked(text, encoder))
    told = "".join(re.findall(r'<span class="rs-doubt"[^>]*>(.*?)</span>', html))
    assert "9000" in told
    assert "It" in told
    assert "**" not in html


def test_what_cannot_be_underlined_is_named_under_the_answer(encoder: Encoder) -> None:
    html = answer_html(checked("# The fee of yachts is 9000 #\n\nBread is free.", encoder))
    assert "<h1>The fee of yachts is 9000</h1>" in html
    assert re.findall(r'<span class="rs-doubt"[^>]*>(.*?)</span>', html) == ["Bread is free."]
    assert "⚠ 2 sentences are not supported by the sources: “The fee of yachts is 9000 #”" in html


def test_a_sentence_that_ends_inside_an_address_is_not_underlined_beyond_it(encoder: Encoder) -> None:
    answer = checked("See [a](<http://e.org/a. Bread>) here.", encoder)
    (first, *_) = answer.claims
    html = answer_html(replace(answer, claims=(first,)))
    assert 'href="http://e.org/a.%20Bread"' in html
    assert re.findall(r'<span class="rs-doubt"[^>]*>(.*?)</span>', html) == ["See "]


def test_a_supported_answer_has_no_note(encoder: Encoder) -> None:
    html = answer_html(checked(f"{TRUE} [2].", encoder))
    assert "rs-doubt" not in html


# The terminal and programs


async def events(answer: Answer) -> AsyncGenerator[Event, None]:
    yield Token(answer.text)
    yield Done(answer)


async def test_the_terminal_lists_what_is_not_supported(
    encoder: Encoder, capsys: pytest.CaptureFixture[str]
) -> None:
    await show(stream_of(events(checked(f"{TRUE} [2]. {FORGED} [2].", encoder))))
    out = capsys.readouterr().out
    assert f"\nNot supported by the sources: “{FORGED}”\n" in out
    assert out.index("Not supported") < out.index("Sources\n")
    await show(stream_of(events(checked(f"{TRUE} [2].", encoder))))
    assert "Not supported" not in capsys.readouterr().out


def test_programs_get_the_claims(encoder: Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    answer = checked(f"{TRUE} [2]. {FORGED} [2].", encoder)
    print_answer(1, "What?", answer)
    told = json.loads(capsys.readouterr().out)["claims"]
    assert told == json.loads(json.dumps(extra(answer)["claims"])) == claims_of(answer)
    assert [each["supported"] for each in told] == [True, False]
    assert [answer.text[each["start"] : each["end"]] for each in told] == [TRUE, FORGED]
    assert told[1]["support"] < 0.35
    assert told[1]["markers"] == [2]


# Conversations


def test_answers_that_were_stored_before_still_load(workspace: Workspace, tmp_path: Path) -> None:
    engine = open_database(workspace)
    store = ConversationStore(engine)
    conversation = store.new("handbook")
    position = store.append(conversation, "What?")
    answer = Answer("It is 1. It is 2.", "answered", claims=(Claim((1,), 0.9, 0, 8), Claim((), 0.1, 9, 17, False)))
    store.finish(conversation, position, answer)
    loaded = store.load(conversation)
    assert loaded is not None
    assert loaded.exchanges[0].answer == answer
    old = TypeAdapter(Answer).dump_python(answer, mode="json")
    for claim in old["claims"]:
        for name in ("start", "end", "supported"):
            del claim[name]
    read = TypeAdapter(Answer).validate_python(old)
    assert read.claims == (Claim((1,), 0.9), Claim((), 0.1))
    assert read.unsupported_claims == ()
    engine.dispose()
