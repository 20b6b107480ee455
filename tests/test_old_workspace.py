"""All that a version from before the migrations has kept is found again, and its corpus answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from old_workspace import unpack
from sqlalchemy import Engine
from terminal import call, objects, one_object

from rag.answering.conversation_store import ConversationStore
from rag.database import open_database
from rag.evaluation.candidates import CandidateStore
from rag.evaluation.dataset_store import DatasetStore
from rag.evaluation.run_store import RunStore
from rag.tracing.ledger import Ledger
from rag.tracing.trace_store import TraceStore
from rag.workspace import Workspace

RYE = "When does the mill grind rye?"
RYE_ANSWER = "The mill grinds rye on Tuesdays and wheat on Thursdays. [1]"
SUNDAYS = "When does the ferry sail on Sundays?"


@pytest.fixture(scope="module")
def old(converted_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The workspace of the older version, with its models as this version converts them."""
    workspace = unpack(tmp_path_factory.mktemp("old"))
    workspace.models.symlink_to(converted_models)
    return workspace


@pytest.fixture
def engine(old: Workspace) -> Iterator[Engine]:
    """Its database."""
    opened = open_database(old)
    yield opened
    opened.dispose()


def test_traces_have_their_spans_and_ratings(engine: Engine) -> None:
    store = TraceStore(engine)
    page = store.list(limit=20)
    assert page.total == len(page.traces) == 11
    assert [trace.status for trace in page.traces].count("abstained") == 3
    oldest = store.get(page.traces[-1].id)
    assert (oldest.question, oldest.answer) == (RYE, RYE_ANSWER)
    assert (oldest.corpus, oldest.model, oldest.prompt) == ("mill", "extractive", "answer@1")
    assert oldest.cost_usd
    # It has an evaluation, whose answers are told apart from those of people.
    assert {trace.purpose for trace in page.traces} == {"chat", "evaluation"}
    # The ledger begins with what they have cost, and with the steps of each.
    spent = Ledger(engine)
    known = [trace.cost_usd for trace in page.traces if trace.cost_usd is not None]
    assert spent.total().cost_usd == pytest.approx(sum(known))
    assert {"retrieve", "generate", "ground"} <= {row.name for row in spent.rows("step")}
    assert {"retrieve", "generate", "ground"} <= {span.name for span in oldest.spans}
    assert oldest.feedback
    assert (oldest.feedback.rating, oldest.feedback.comment) == ("down", "The answer should name the month.")
    rated = [trace.feedback.rating for trace in page.traces if trace.feedback]
    assert rated == ["up", "down"]


def test_the_conversation_has_its_answers_with_their_sources(engine: Engine) -> None:
    store = ConversationStore(engine)
    (listed,) = store.list(limit=10).conversations
    conversation = store.load(listed.id)
    assert conversation
    assert (conversation.title, conversation.corpus) == (SUNDAYS, "mill")
    first, second, unanswered = conversation.exchanges
    assert first.question == SUNDAYS
    assert first.answer
    assert first.answer.text == "On Sundays it does not sail before noon. [1]"
    # That version called it `embedded`.
    assert first.answer.model == "extractive"
    assert first.answer.hits[0].passage.name == "manuals/copy.txt"
    assert first.answer.citations
    assert second.answer
    assert second.answer.text == "The ferry crosses the river every twenty minutes. [1]"
    assert (unanswered.question, unanswered.answer) == ("What does it cost?", None)


def test_the_dataset_has_its_versions_cases_and_candidate(engine: Engine) -> None:
    store = DatasetStore(engine)
    newest, first = store.versions("river")
    assert (newest.version, newest.size, newest.by, newest.message) == (2, 4, "ida", "from a trace")
    assert (first.version, first.size, first.message) == (1, 3, "first questions")
    cases = {case.question: case for case in store.cases(newest)}
    assert cases[RYE].answers == ("on Tuesdays",)
    assert cases[RYE].tags == ("flour",)
    assert cases["Who is the ferryman?"].sources == ("manuals/staff.csv",)
    assert [case.question for case in CandidateStore(engine).waiting("river")] == [
        "How much does a sack of flour weigh?"
    ]


def test_the_run_has_its_plan_and_answers(engine: Engine, old: Workspace) -> None:
    store = RunStore(engine)
    (run,) = store.list()
    assert (run.name, run.status, run.dataset, run.dataset_version) == ("first look", "finished", "river", 1)
    assert [variant.name for variant in run.plan.variants] == ["plain", "brief"]
    assert run.plan.variants[1].changes == {"answer.style": "brief", "prompt": "answer@1"}
    cells = list(store.cells(run.id, 1))
    assert [cell.answer for cell in cells][:2] == ["four metres [1]", "Tuesdays and wheat on Thursdays [1]"]
    assert cells[0].scores
    assert cells[0].passages[0].name == "manuals/mill.md"
    shown = call(old.root, "eval", "show")
    assert shown.exit_code == 0, shown.output
    assert "plain: 3 of 3 cases" in shown.output


def test_the_prompt_has_its_version_and_label(old: Workspace) -> None:
    shown = call(old.root, "prompts", "show", "answer@staging")
    assert "Answers with the tone of the mill." in shown.output
    assert "the tone of the mill" in call(old.root, "prompts", "log", "answer").output


@pytest.mark.usefixtures("one_encoder")
def test_the_corpus_is_whole_and_answers(old: Workspace) -> None:
    (corpus,) = one_object(call(old.root, "corpora", "list", "--json"))
    assert (corpus["name"], corpus["files"], corpus["documents"], corpus["passages"]) == ("mill", 5, 6, 5)
    (answer,) = objects(call(old.root, "ask", "--corpus", "mill", "--json", RYE))
    assert answer["answer"] == RYE_ANSWER
    # Found by its record alone, so that the filter reads the documents.
    found = call(
        old.root, "search", "--corpus", "mill", "--title", "Market day", "When does the ferry carry carts?"
    )
    assert "carries no carts before nine" in found.output
