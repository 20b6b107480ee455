"""Killed in the middle of many questions, a process leaves all that it had reported."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from rag.database import open_database
from rag.tracing.trace_store import TraceStore
from rag.workspace import Workspace

QUESTIONS = 200
# The last reports before the kill are not compared: an answer waits for the writer at most a millisecond,
# and where so many end at once, the writer may be later.
MARGIN_S = 0.1

# Every question takes its own time; a line for each step and answer when it is reported.
DRIVER = """
import asyncio, os, sys, time
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, sys.argv[2])
from langchain_core.runnables import RunnableLambda
from scripted_chain import PRICES, as_answer, as_prompt, search
from rag.answering.assistant import Assistant, Pipeline
from rag.database import open_database
from rag.tracing.trace_store import TraceStore
from rag.types import Ask, Done, Started, StepFinished
from rag.workspace import Workspace

store = TraceStore(open_database(Workspace(Path(sys.argv[1]))))
release = SimpleNamespace(corpus="c", model="extractive", prompt="answer@1", prompt_sha256="", name="r1")

def report(*words):
    os.write(1, (" ".join(map(str, (time.time(), *words))) + chr(10)).encode())

async def ask(number):
    async def generate(messages):
        await asyncio.sleep(0.5 + 0.05 * number)
        return messages[0]

    steps = {"retrieve": search, "prompt": as_prompt, "generate": generate, "ground": as_answer}
    retrieve, *others = (RunnableLambda(step).with_config(run_name=name) for name, step in steps.items())
    chain = retrieve.pipe(*others).with_config(run_name="answer")
    assistant = Assistant(lambda _: Pipeline(release, chain), store, PRICES)
    trace_id = ""
    async for event in assistant.start(Ask(f"question {number}")):
        if isinstance(event, Started):
            trace_id = event.trace_id
        elif isinstance(event, StepFinished):
            report("step", trace_id, event.step)
        elif isinstance(event, Done):
            report("done", trace_id, event.answer.status)

async def main():
    await asyncio.gather(*(ask(number) for number in range(200)))
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.slow
def test_what_was_reported_before_a_kill_is_stored(workspace: Workspace) -> None:
    open_database(workspace).dispose()
    tests = Path(__file__).parent
    command = [sys.executable, "-c", DRIVER, str(workspace.root), str(tests)]
    said: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tests.parent) as process:
        assert process.stdout is not None
        while sum(" done " in line for line in said) < QUESTIONS // 4:
            said.append(process.stdout.readline())
            assert said[-1], "the process ended early"
        process.kill()
        killed = time.time()
        said += process.stdout.readlines()
    reports = [line.split() for line in said if line.endswith("\n")]
    old = [words[1:] for words in reports if float(words[0]) < killed - MARGIN_S]
    finished = {trace_id for kind, trace_id, _ in old if kind == "done"}
    steps = {(trace_id, step) for kind, trace_id, step in old if kind == "step"}

    engine = open_database(workspace)
    store = TraceStore(engine)
    store.recover()
    stored = {trace.id: store.get(trace.id) for trace in store.list(limit=QUESTIONS).traces}
    engine.dispose()
    late = [words[2] for words in reports if words[1] == "done" and words[2] not in finished]
    lost = [trace_id for trace_id in late if stored[trace_id].status != "ok"]
    print(f"{len(finished)} finished; of {len(late)} later ones, {len(lost)} are not stored as finished")
    assert len(stored) == QUESTIONS
    assert len(finished) + len(late) >= QUESTIONS // 4
    assert {stored[trace_id].status for trace_id in finished} == {"ok"}
    assert {trace.status for trace in stored.values()} == {"ok", "interrupted"}
    assert steps <= {(trace.id, span.name) for trace in stored.values() for span in trace.spans}
    interrupted = [trace for trace in stored.values() if trace.status == "interrupted"]
    assert all(trace.spans for trace in interrupted)
