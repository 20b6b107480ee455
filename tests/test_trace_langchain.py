"""The LangChain code of other people is traced by one line."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from sqlalchemy import Engine
from tracked import ROOT

from rag.database import reading
from rag.errors import WorkspaceError
from rag.redaction import MASK
from rag.settings import CostSettings
from rag.trace_tables import ledger, measures
from rag.tracing import external_tracer, trace_langchain
from rag.tracing.cost import load_prices
from rag.tracing.external_tracer import ExternalTracer
from rag.tracing.trace_store import TraceStore
from rag.workspace import Workspace


class Shelves(BaseRetriever):
    def _get_relevant_documents(self, query: str, **_options: Any) -> list[Document]:
        return [Document("Orders ship on Monday.", metadata={"page": 3})]


class Priced(GenericFakeChatModel):
    """A model with the name and the usage of one in the price list."""

    def _get_ls_params(self, *_arguments: Any, **_options: Any) -> Any:
        return {"ls_provider": "openai", "ls_model_type": "chat", "ls_model_name": "gpt-4o"}


@pytest.fixture
def tracer(store: TraceStore) -> ExternalTracer:
    return ExternalTracer(store.save, load_prices(CostSettings()))


def test_a_chain_is_stored_with_its_steps_tokens_and_cost(
    store: TraceStore, engine: Engine, tracer: ExternalTracer
) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
    model = Priced(messages=iter([AIMessage("On Monday.", usage_metadata=usage)]))  # type: ignore[typeddict-item]
    template = ChatPromptTemplate.from_template("{found}\n\n{question}")
    chain = {"found": Shelves(), "question": RunnablePassthrough()} | template | model

    config = {"callbacks": [tracer], "metadata": {"thread_id": "t-1", "user": "bo", "purpose": "chat"}}
    assert chain.invoke("When does it ship?", config).content == "On Monday."  # type: ignore[arg-type]

    (listed,) = store.list(limit=5).traces
    trace = store.get(listed.id)
    assert (trace.question, trace.answer, trace.status) == ("When does it ship?", "On Monday.", "ok")
    assert (trace.purpose, trace.conversation_id, trace.user_name) == ("external", "t-1", "bo")
    assert (trace.model, trace.input_tokens, trace.output_tokens) == ("gpt-4o", 1000, 100)
    assert trace.cost_usd == pytest.approx(0.0035)
    steps = {span.name: span for span in trace.spans}
    assert steps["Shelves"].kind == "retriever"
    assert "Orders ship on Monday." in str(steps["Shelves"].output)
    assert steps["Shelves"].cost_usd is None
    assert steps["Priced"].cost_usd == trace.cost_usd
    with reading(engine) as connection:
        assert not connection.execute(ledger.select()).all()
        assert not connection.execute(measures.select()).all()
    assert store.undelivered(9) == ()


def test_an_unknown_price_is_unknown_and_not_zero(store: TraceStore, tracer: ExternalTracer) -> None:
    FakeListChatModel(responses=["Yes."]).invoke("Really?", {"callbacks": [tracer]})
    trace = store.get(store.list(limit=1).traces[0].id)
    assert (trace.question, trace.answer, trace.cost_usd) == ("Really?", "Yes.", None)


def test_a_secret_in_a_message_is_masked_everywhere(store: TraceStore, tracer: ExternalTracer) -> None:
    def echo(state: dict[str, Any]) -> dict[str, Any]:
        return {"messages": [*state["messages"], AIMessage("You said hunter2secret9.")]}

    asked = {"messages": [HumanMessage("My password: hunter2secret9")]}
    RunnableLambda(echo).with_config(run_name="agent").invoke(asked, {"callbacks": [tracer]})
    trace = store.get(store.list(limit=1).traces[0].id)
    assert "hunter2secret9" not in str(trace)
    assert (trace.question, trace.answer) == (f"My password: {MASK}", f"You said {MASK}.")


def test_a_failure_is_stored_and_reaches_the_caller(store: TraceStore, tracer: ExternalTracer) -> None:
    def fail(_given: object) -> None:
        raise ValueError("no such order")

    with pytest.raises(ValueError, match="no such order"):
        RunnableLambda(fail).invoke({"input": "Where?"}, {"callbacks": [tracer]})
    trace = store.list(limit=1).traces[0]
    assert (trace.question, trace.status, trace.error) == ("Where?", "error", "ValueError: no such order")


PROGRAM = """
import sys
from rag.tracing import trace_langchain
assert not {"langchain_core", "sqlalchemy", "rag.settings"} & sys.modules.keys()
from langchain_core.runnables import RunnableLambda
chain = RunnableLambda(lambda text: text.upper())
for text in ("one", "two"):
    chain.invoke(text, config={"callbacks": [trace_langchain(sys.argv[1])]})
"""


@pytest.mark.slow
def test_one_line_in_another_program_is_enough(workspace: Workspace, store: TraceStore) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM, str(workspace.root)], check=True, cwd=ROOT)
    found = [(trace.question, trace.answer, trace.purpose) for trace in store.list(limit=5).traces]
    assert found == [("two", "TWO", "external"), ("one", "ONE", "external")]


def test_a_folder_that_cannot_be_used_is_reported_at_once(workspace: Workspace) -> None:
    file = workspace.root / "file"
    file.write_text("no folder")
    with pytest.raises(WorkspaceError, match="file"):
        trace_langchain(file)


def test_personal_data_is_masked_as_the_settings_say(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGSMITH_TRACING__MASK", '["email"]')
    mail = "ida@harbour.example"
    config = {"callbacks": [trace_langchain(workspace.root)], "metadata": {"user": mail}}
    RunnableLambda(lambda asked: f"{asked}?").invoke(f"Who is {mail}", config)  # type: ignore[arg-type]
    store = external_tracer._store(workspace.root.resolve(), None, ("email",))
    store.close()
    store.engine.dispose()
    files = [path for path in workspace.root.rglob("*") if path.is_file()]
    assert any(b"Who is [email]" in path.read_bytes() for path in files)
    assert not any(mail.encode() in path.read_bytes() for path in files)
