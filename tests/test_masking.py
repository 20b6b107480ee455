"""With ``tracing.mask``, personal data is written nowhere but in the documents that contain it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import inspect, text
from tiny import CORPUS, QUESTION, SENTENCE, answered, open_tiny, scripted, spans_of, written

from rag.encoders import Encoder
from rag.evaluation.cache import AnswerCache
from rag.evaluation.cases import Case, masked_case
from rag.evaluation.run_store import Cell, Plan, RunStore
from rag.evaluation.variants import Variant
from rag.masking import MARKS, Masker
from rag.redaction import MASK
from rag.tracing.span_json import kept_text
from rag.tracing.trace_masking import TraceMasker
from rag.tracing.trace_types import Trace
from rag.types import Answer, Citation, Claim, Hit, MaskedKind, Passage, Turn
from ui.app.log_file import open_log

ALL: tuple[MaskedKind, ...] = ("email", "phone", "card", "iban", "ip", "secret")
EVERYTHING = Masker(ALL)

# The text with a value in braces, and the kind of the value.
VALUES: list[tuple[str, MaskedKind]] = [
    ("Write to {ida.brandt+tides@mail.harbour.example}.", "email"),
    ("mailto:{o'neill@harbour.example}?subject=x", "email"),
    ("<{ida@harbour.example}>, {joe@harbour.example};", "email"),
    ("{+49 4932 555 012} or {0049 4932 555012}", "phone"),
    ("Fax {(541) 555-0123}, {541.555.0123x459}", "phone"),
    ("({07700 900 966})", "phone"),
    ("call me at {467 3395} or {9472 7916}", "phone"),
    ("{(37) 788-063}-Office", "phone"),
    ("card {4111 1111 1111 1111} 123, {378282246310005}.", "card"),
    ("to {GB29 NWBK 6016 1331 9268 19} from us, or {de89370400440532013000}", "iban"),
    ("{203.0.113.9}:8000 and [{2001:db8::7}]", "ip"),
    ("password={hunter22}", "secret"),
]
# What is similar to personal data and is none.
PROSE = [
    "ragsmith 5.6.0 of 2026-11-30 04:32:58 listens on 127.0.0.1:7860, or on ::1.",
    "It grew from 1 234 567 to 9 876 543; version 1.2.3.4 needs 541 555 files.",
    "A decorator is written @app.get, and numbers[1::2] is a slice; std::vec and 12:30:45 are none.",
    "The order 4111111111111112 of 03.01.1976 has the number 054-28-6917 and a hash of 0000000042.",
    "A card, an IBAN, a phone and a call are words; [email] and [phone] are marks.",
]


@pytest.mark.parametrize(("marked", "kind"), VALUES)
def test_values_of_every_kind_become_its_mark(marked: str, kind: MaskedKind) -> None:
    parts = marked.replace("}", "{").split("{")
    expected = "".join(MARKS[kind] if number % 2 else part for number, part in enumerate(parts))
    plain = "".join(parts)
    assert Masker((kind,)).text(plain) == expected
    assert EVERYTHING.text(plain) == expected
    assert Masker(set(ALL) - {kind}).text(plain) == plain
    assert Masker().text(plain) == plain


@pytest.mark.parametrize("prose", PROSE)
def test_what_is_no_personal_data_stays(prose: str) -> None:
    assert EVERYTHING.text(prose) == prose


PIECES = (
    "call |phone: |467 3395|+46 8 928 571 38|a@b.org|4111 1111 1111 1111|GB29 NWBK 6016 1331 9268 19|10.1.2.3"
    "|2001:db8::1| or |, |. |\n|x12|(08) 8747 6301|-|12| fax|[phone]|[email]|password=|541-714-1388|0| |:|@|+|."
).split("|")


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text(max_size=200))
@example("541-714-1388. 541-714-1388+a@b.org")
def test_masking_never_fails_and_masking_twice_changes_nothing_more(given_text: str) -> None:
    once = EVERYTHING.text(given_text)
    assert EVERYTHING.text(once) == once


WORDS = (
    "the call phone card iban of is 512 3.5 2024 wir über 東京 don't e-mail re-ranked fe80 (see) 10:30 §7".split()
)


@given(st.lists(st.sampled_from(WORDS), max_size=40).map(", ".join))
def test_any_text_without_a_value_stays(given_text: str) -> None:
    assert EVERYTHING.text(given_text) == given_text


def test_a_value_whose_kind_only_a_word_shows_is_masked_in_every_later_part() -> None:
    masking = TraceMasker(EVERYTHING)
    assert masking.text("Call 467 3395.") == "Call [phone]."
    assert masking.json({"of 467 3395": ["It is 467 3395", 4673395]}) == {"of [phone]": ["It is [phone]", 4673395]}


def test_the_beginning_of_a_truncated_value_is_not_written() -> None:
    long = kept_text("ab " * 100 + "ida.brandt@harbour.example", limit=320)
    masked = TraceMasker(EVERYTHING).text(long)
    assert "ida" in long
    assert masked == f"… [{326} characters left out]"


def test_offsets_into_a_masked_text_are_dropped_and_all_others_stay() -> None:
    from rag.answering.conversation_store import answer_schema

    hits = [
        Hit(Passage(number, 1, "a.md", "a.md", "A", words, 0, len(words)), 1.0)
        for number, words in enumerate(("Write to ida@harbour.example.", "The lamp is red."))
    ]
    answer = Answer(
        "Write to ida@harbour.example. [1] The lamp is red. [2]",
        "answered",
        hits=tuple(hits),
        citations=(Citation(1, hits[0], 0, 29, 1.0), Citation(2, hits[1], 0, 16, 1.0)),
        claims=(Claim((1,), 1.0, 0, 33),),
        spans=((9, 28),),
    )
    masked = TraceMasker(EVERYTHING).json(answer_schema().dump_python(answer, mode="json"))
    read = answer_schema().validate_python(masked)
    assert read.text == "Write to [email]. [1] The lamp is red. [2]"
    assert [(citation.start, citation.end) for citation in read.citations] == [(None, None), (0, 16)]
    assert (read.claims[0].start, read.spans) == (None, ())


TYPED = {
    "email": "ida.brandt@harbour.example",
    "phone": "467 3395",
    "card": "4111 1111 1111 1111",
    "iban": "GB29 NWBK 6016 1331 9268 19",
    "ip": "203.0.113.9",
    "secret": "hunter22",
}
IN_A_PAGE = "office@harbour.example"
# What people add themselves is kept: the documents.
DOCUMENTS = {"texts", "passages"}


def test_masked_data_is_in_no_file_of_the_workspace(
    converted_models: Path, encoder: Encoder, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    app = open_tiny(
        home, converted_models, encoder=encoder, tracking={"wandb": "offline"}, tracing={"mask": list(ALL)}
    )
    page = {"office.md": f"# The office\n\nThe office of the harbour answers at {IN_A_PAGE}.\n"}
    app.stores.ingest(CORPUS, [written(tmp_path / "more", page)])
    values = "; ".join(TYPED.values())
    question = f"{QUESTION} Call me at {TYPED['phone']}, password={TYPED['secret']}; {values}"
    store = app.stores.conversations
    conversation = store.new(CORPUS)

    async def ask(assistant: object, asked: str, **fields: object) -> Answer:
        place = store.append(conversation, asked)
        got = await answered(assistant, asked, conversation_id=conversation, **fields)  # type: ignore[arg-type]
        store.finish(conversation, place, got)
        return got

    with open_log(app.workspace, app.stores.masker):
        first = asyncio.run(ask(scripted(app, f"{SENTENCE} It is {values}"), question))
        asyncio.run(
            ask(scripted(app, "no", error=ValueError(f"{values} is wrong")), question, user=TYPED["email"])
        )
        asyncio.run(ask(app, "Who is reading it?", history=(Turn(question, first.text),)))
        found = asyncio.run(ask(app, "Where does the office of the harbour answer?"))
        logging.getLogger("rag").warning("Refused %s of %s", TYPED["card"], TYPED["ip"])
    app.stores.traces.rate(first.trace_id, "down", f"Ask {TYPED['email']}", f"Call {TYPED['phone']}.")
    store.rename(conversation, f"About {TYPED['email']}")
    app.tracking.start()
    trace = app.stores.traces.get(first.trace_id)
    cited = app.stores.traces.get(found.trace_id)
    loaded = store.load(conversation)
    engine = app.stores.engine
    tables = [name for name in inspect(engine).get_table_names() if name not in DOCUMENTS]
    with engine.connect() as connection:
        rows = {name: str(connection.execute(text(f"SELECT * FROM {name}")).all()) for name in tables}
    app.close()

    assert first.text.count(TYPED["email"]) == 1
    assert trace.question.endswith("password=[redacted]; [email]; [phone]; [card]; [iban]; [ip]; [redacted]")
    assert trace.answer.endswith("[email]; [phone]; [card]; [iban]; [ip]; [redacted]")
    assert "[email]" in str(spans_of(cited)["retrieve"].output)
    assert loaded is not None
    assert loaded.exchanges[0].question == trace.question
    assert loaded.title == "About [email]"
    for name, content in rows.items():
        assert IN_A_PAGE not in content, name
    files = [path for path in home.rglob("*") if path.is_file() and not path.is_symlink()]
    written_here = {path.name for path in files} | {path.suffix for path in files}
    assert {".wandb", "ragsmith.db", "ragsmith.log"} <= written_here
    for path in files:
        content = path.read_bytes()
        for value in TYPED.values():
            assert value.encode() not in content, (value, path)
        if path.suffix in (".wandb", ".log"):
            assert IN_A_PAGE.encode() not in content, path


def test_evaluations_store_masked_answers_and_cache_none_with_a_value(tmp_path: Path) -> None:
    from rag.database import open_database
    from rag.workspace import open_workspace

    engine = open_database(open_workspace(tmp_path / "home"))
    runs = RunStore(engine, EVERYTHING)
    plan = Plan(variants=(Variant(name="now", changes={}),), states=("x",), corpus=CORPUS)
    run = runs.begin(plan, name="for ida@harbour.example", dataset="d", version=1, sha256="0")
    runs.keep(run.id, [Cell(0, 0, "answered", "Call 467 3395.", rationale="467 3395 is right.")])
    (cell,) = runs.cells(run.id, 0)
    assert (cell.answer, cell.rationale) == ("Call [phone].", "[phone] is right.")
    assert runs.get(run.id).name == "for [email]"
    cache = AnswerCache(engine, EVERYTHING)
    cache.put("a", Answer("Call 467 3395.", "answered"))
    cache.put("b", Answer("The lamp is red.", "answered"))
    engine.dispose()
    assert cache.get("a") is None
    assert cache.get("b") is not None
    case = Case(id="c", question="Who is ida@harbour.example?", answers=("password=hunter22",))
    shown = masked_case(case, EVERYTHING)
    assert (shown.question, shown.answers) == ("Who is [email]?", (f"password={MASK}",))


def test_without_the_setting_a_trace_is_the_same_object() -> None:
    trace = Trace("id", 0.0, "ok", question="ida@harbour.example")
    assert TraceMasker(Masker()).trace(trace) is trace
