"""A written sentence passes if its sources say it, and fails where it invents, turns or says nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rag.answering.claim_check import ClaimFault, ClaimSources
from rag.documents.sentences import split_sentences

HARBOUR = (
    "The tide gauge was installed in 1871 by Ida Brandt. It is read twice a day, at six and at eighteen.\n"
    "The highest water was 5.13 metres, measured on 17 January 1976. A red lamp on the pier warns of "
    "storm surges. The lamp is switched on by the harbour master, who lives in Sankt Peter-Ording. Dogs "
    "must not board without a muzzle. The ferry to Norderney leaves every 40 minutes from pier two and "
    "carries up to 1,200 passengers. About 30 % of them are day visitors. Bicycles travel free of charge. "
    "The kiosk does not sell bread, milk, or tea. Rye dough is never kneaded, since it has hardly any "
    "gluten to develop. The museum was built by Björn Łukasz Søgård between 1914–18 and cost three "
    "million crowns."
)
MANUAL = (
    "Start the server with `ragsmith serve --port 7860` and open http://127.0.0.1:7860/docs. Traces are stored in "
    "`.ragsmith/traces.db`. GPT-4 and UTF-8 files are supported; version 2.1.3 added the DocumentLoader class. "
    "Write to help@example.org if `max_tokens` is ignored. The index cannot be opened unless the fingerprint "
    "matches. The server needs no account and works without a network. Uploads larger than 20 MB fail. "
    "Python 3.10 or newer is required."
)
SOURCES = (HARBOUR, MANUAL)
QUESTION = "When was the tide gauge of Cuxhaven installed, and is port 9000 free?"

SUPPORTED = [
    "Ida Brandt installed the tide gauge in 1871.",
    "The tide gauge was installed by Brandt in 1871 [1].",
    "In 1871, the tide gauge was installed.",
    "The tide gauge of Cuxhaven was installed in 1871.",
    "Brandt's gauge is read two times a day.",
    "The gauge is read at 6 and at 18.",
    "The answer is 1871.",
    "1871.",
    "Two.",
    "The highest water ever measured was 5.13 m.",
    "On 17 January 1976, the water was 5.13 metres high.",
    "A lamp on the pier warns of storm surges.",
    "The harbour master switches the lamp on.",
    "The harbour master of Sankt Peter-Ording switches on the lamp.",
    "Dogs must wear a muzzle to board.",
    "Dogs cannot board without a muzzle.",
    "The ferry leaves pier 2 every forty minutes.",
    "The ferry carries up to 1200 passengers.",
    "Up to 1,200, passengers that is, are carried.",
    "Ferries to Norderney carry 1 200 passengers.",
    "30 percent are day visitors.",
    "Thirty per cent of the passengers are day visitors.",
    "Bicycles are free of charge.",
    "The kiosk sells no milk.",
    "The kiosk doesn't sell tea.",
    "Rye dough is not kneaded.",
    "Rye dough has no gluten to develop.",
    "The museum was built by Bjorn Lukasz Sogard.",
    "The museum was built from 1914 to 1918.",
    "It cost 3,000,000 crowns.",
    "It cost 3 million crowns.",
    "**The gauge** was installed in *1871*.",
    "Use `--port 7860` to start the server.",
    "Open http://127.0.0.1:7860/docs to see the docs.",
    "Traces are stored in traces.db.",
    "Traces are located in `.ragsmith/traces.db`.",
    "GPT-4 is supported.",
    "UTF-8 files are supported.",
    "Version 2.1.3 added the `DocumentLoader`.",
    "The class that was added is called DocumentLoader.",
    "You can write to help@example.org.",
    "The index can be opened only if the fingerprint matches.",
    "The server does not need an account.",
    "No network is needed by the server.",
    "Uploads over 20 MB fail.",
    "Python 3.10 is required.",
]

INVENTED = [
    # Numbers
    ("The tide gauge was installed in 1872.", "number", "1872"),
    ("The gauge is read four times a day.", "number", "four"),
    ("The gauge is read thrice a day.", "number", "thrice"),
    ("The highest water was 51.3 metres.", "number", "51.3"),
    ("The highest water was 5.13 feet.", "number", "5.13"),
    ("The highest water was -5.13 metres.", "number", "-5.13"),
    ("The ferry carries 12,000 passengers.", "number", "12,000"),
    ("The ferry carries hundreds of passengers.", "number", "hundreds"),
    ("The ferry leaves every 40 hours from pier two.", "number", "40"),
    ("30 passengers are day visitors.", "number", "30"),
    ("40 % of the passengers are day visitors.", "number", "40 %"),
    ("The museum cost three crowns.", "number", "three"),
    ("The museum cost three hundred crowns.", "number", "three hundred"),
    ("The museum was built between 1914 and 1919.", "number", "1919"),
    ("The gauge is read at the twenty-first hour.", "number", "twenty-first"),
    ("Version 2.1.4 added the class.", "number", "2.1.4"),
    ("Python 3.1 is required.", "number", "3.1"),
    ("The answer is nine.", "number", "nine"),
    ("The server runs on port 8080.", "number", "8080"),
    # Names
    ("Ida Brand installed the tide gauge in 1871.", "name", "Brand"),
    ("Napoleon installed the tide gauge in 1871.", "name", "Napoleon"),
    ("Johann Meyer installed the tide gauge.", "name", "Johann"),
    ("The tide gauge was installed by Dr Brandt.", "name", "Dr"),
    ("The ferry to Borkum leaves every 40 minutes.", "name", "Borkum"),
    ("The highest water was measured on 17 May 1976.", "name", "May"),
    ("The U.S. measured the highest water.", "name", "U.S."),
    ("The NASA warns of storm surges.", "name", "NASA"),
    ("The lamp is switched on in Sankt Peter-Mording.", "name", "Peter-Mording"),
    ("GPT-5 is supported.", "name", "GPT-5"),
    ("Start the server with `--prot 7860`.", "name", "--prot"),
    ("Start it with `ragsmith launch`.", "name", "launch"),
    ("Traces are stored in spans.db.", "name", "spans.db"),
    ("Traces are stored in /var/traces.db.", "name", "/var/traces.db"),
    ("Open http://127.0.0.1:7860/api in the server.", "name", "http://127.0.0.1:7860/api"),
    ("Write to info@example.org.", "name", "info@example.org"),
    ("The option `min_tokens` is ignored.", "name", "min_tokens"),
    ("Version 2.1.3 added the DocumentReader class.", "name", "DocumentReader"),
    # Negations
    ("The lamp does not warn of storm surges.", "negation", "not"),
    ("The lamp never warns of storm surges.", "negation", "never"),
    ("Bicycles don't travel free of charge.", "negation", "n't"),
    ("Dogs may board without a muzzle.", "negation", "without"),
    ("The kiosk sells bread and milk.", "negation", "not"),
    ("The kiosk sells tea.", "negation", "not"),
    ("Rye dough is kneaded.", "negation", "never"),
    ("The index can be opened unless the fingerprint matches.", "negation", "unless"),
    ("The server needs an account.", "negation", "no"),
    ("The server cannot work without a network.", "negation", "cannot"),
    # Words
    ("The lamp is switched on by the mayor of the small town.", "words", "mayor"),
    ("Cormorants nest below the pier.", "name", "Cormorants"),
    ("The weather is usually pleasant.", "words", "weather"),
    ("The gauge is painted green each spring.", "words", "painted"),
    # Nothing said
    ("The answer is in the document.", "echo", "answer"),
    ("The answer to the question can be found in the text.", "echo", "answer"),
    ("The document contains information about the tide gauge.", "echo", "document"),
    ("Here is the information based on the provided passages.", "echo", "information"),
    ("Yes.", "echo", "Yes."),
    ("When was the gauge installed?", "echo", "When"),
    (QUESTION, "echo", "When"),
    ("when was the tide gauge of Cuxhaven installed, and is port 9000 free", "echo", "when"),
]


def check_claim(sentence: str, sources: Sequence[str], question: str) -> ClaimFault | None:
    return ClaimSources(sources, question).fault_of(sentence)


@pytest.mark.parametrize("sentence", SUPPORTED)
def test_a_supported_paraphrase_passes(sentence: str) -> None:
    assert check_claim(sentence, SOURCES, QUESTION) is None


@pytest.mark.parametrize(("sentence", "kind", "word"), INVENTED)
def test_an_invention_is_a_fault_and_names_its_words(sentence: str, kind: str, word: str) -> None:
    fault = check_claim(sentence, SOURCES, QUESTION)
    assert fault is not None
    assert fault.kind == kind
    assert word in fault.words


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("two thousand three hundred and five", "2,305"),
        ("one million two hundred thousand", "1200000"),
        ("2.5 million", "2500000"),
        ("twelve hundred", "1.2 thousand"),
        ("nineteen eighty-four", "84"),
        ("6½", "6"),
        ("1914–18", "1918"),
        ("10 to 20 %", "10 percent"),
        ("10:00", "10"),
        ("01.05.2024", "2024"),
        ("٣٤", "34"),
        ("1 000 000", "1,000,000"),
    ],
)
def test_numbers_are_equal_by_value(written: str, value: str) -> None:
    assert check_claim(f"It was {value} then.", [f"It was {written} then, or less."], "") is None
    assert check_claim("It was 77 then.", [f"It was {written} then, or less."], "") is not None


def test_only_the_given_sources_count() -> None:
    assert check_claim("The tide gauge was installed in 1871.", [HARBOUR], "") is None
    assert check_claim("The tide gauge was installed in 1871.", [MANUAL], "") == ClaimFault("number", ("1871",))


def test_a_negation_counts_in_its_own_clause() -> None:
    source = (
        "The lamp, which is not red, warns of storms. The bath is open in summer, but it is not heated in May."
    )
    for sentence in ("The lamp warns of storms.", "The bath is open in summer.", "The bath is not heated."):
        assert check_claim(sentence, [source], "") is None
    for sentence in ("The bath is heated in May.", "The bath is not open in summer."):
        fault = check_claim(sentence, [source], "")
        assert fault is not None
        assert fault.kind == "negation"


def test_a_sentence_of_the_sources_passes_even_if_it_says_little() -> None:
    assert check_claim("The answer is in the document.", ["See below. The answer is in the document!"], "") is None


TEXT = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(
            [
                *"The tide 1,000 5.13 twice two hundred -5 % [1] not never `a.b --port http://a/b U.S. ł".split(),
                *"½ ٣ 漢字 ’s “No” A/B x=1 <b> . ? ! ; , — - 1914–18 10:30 () \\ ** $ 2.5M GPT-4 and".split(),
                "\u202e",
                "\x00",
                "\ud800",
                "9" * 5000,
                "two hundred " * 500,
                "\n",
            ]
        ),
        max_size=12,
    ).map(" ".join),
)


@given(TEXT, st.lists(TEXT, max_size=3), TEXT)
def test_any_text_is_checked_without_an_error(sentence: str, sources: list[str], question: str) -> None:
    fault = check_claim(sentence, sources, question)
    assert fault is None or fault.words


@given(TEXT)
def test_a_sentence_of_the_sources_always_passes(text: str) -> None:
    for sentence in split_sentences(text):
        assume("?" not in sentence.text)
        assert check_claim(sentence.text, [text], "") is None


SENTENCES = [sentence.text for source in SOURCES for sentence in split_sentences(source)]


@given(st.sampled_from(SENTENCES), st.integers(10_000, 10**12), st.data())
def test_an_inserted_number_that_is_nowhere_always_fails(sentence: str, number: int, data: st.DataObject) -> None:
    assume(str(number) not in "".join(SOURCES))
    words = sentence.split()
    words.insert(data.draw(st.integers(0, len(words))), data.draw(st.sampled_from([f"{number}", f"{number:,}"])))
    fault = check_claim(" ".join(words), SOURCES, "")
    assert fault is not None
    assert fault.kind == "number"
