"""From accepted corrections to an adapter in use, with a real training of a tiny model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from terminal import assert_one_line, call, jsonl, one_object, start
from tiny import CORPUS

from finetune.chat_features import ChatEncoder
from finetune.data.chat_rows import as_line, read_chat_rows
from finetune.lesson import Lesson, LessonFolder, lessons, lineage
from finetune.lesson_rows import CORRECTIONS, KEPT, VALIDATION, recipe_text, write_lesson_data
from finetune.recipe import SftRecipe, parse_recipe
from prompts import Message, PromptLibrary
from rag.database import open_database
from rag.errors import TuningError
from rag.models.local.local_adapters import find_lora
from rag.models.local.local_files import locate_local
from rag.models.local.local_tokenizer import load_tokenizer
from rag.tracing.trace_store import Trace, TraceStore
from rag.workspace import Workspace
from ui.app.lesson_work import doubt_of

WRONG = ("When is the tide gauge read?", "How often is the tide gauge read?")
RIGHT = "It is read twice a day, at six and at eighteen."
GOOD = ("When was the tide gauge installed?", "What warns of storm surges?", "Who switches on the lamp?")
CASES = [{"question": question, "answers": ["1871"]} for question in ("Since when is there a gauge?", "Who?")]


LESSON = Lesson(
    name="taught-1",
    started=1.0,
    state="judged",
    model="smollm2",
    adapter="writer",
    prompt="answer-from-evidence@1",
    corpus=CORPUS,
    dataset="few@1",
    traces=("a", "b", "c"),
)


def row(question: str, completion: str = "Yes. [1]") -> str:
    return as_line([Message(role="user", content=question)], completion)


def test_what_is_rehearsed_or_held_out_is_never_what_is_corrected(tmp_path: Path) -> None:
    corrections = [row("Why?", "Because. [1]")]
    kept = [row("Why?"), *(row(f"What is {number}?") for number in range(20)), row("What is 3?")]
    write_lesson_data(tmp_path, corrections, kept)
    asked = {
        name: {line.turns[0].content for line in read_chat_rows(tmp_path, name)}
        for name in (CORRECTIONS, KEPT, VALIDATION)
    }
    assert asked[CORRECTIONS] == {"Why?"}
    assert (len(asked[KEPT]), len(asked[VALIDATION])) == (18, 2)
    assert not asked[KEPT] & asked[VALIDATION]
    with pytest.raises(TuningError, match="fewer than two good answers"):
        write_lesson_data(tmp_path, corrections, [row("Why?"), row("How?")])


def test_what_is_rehearsed_does_not_teach_where_an_answer_ends(tiny_lm: Path, tmp_path: Path) -> None:
    files = locate_local(str(tiny_lm), download=False)
    turns = [Message(role="user", content="Why?")]
    lines = [as_line(turns, "Because."), as_line(turns, "Because.", ends=False)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    encoder = ChatEncoder(files, load_tokenizer(files))
    whole, rehearsed = map(encoder.feature, read_chat_rows(tmp_path, "rows"))
    assert whole.second == rehearsed.second < len(rehearsed.ids)
    assert whole.ids[: len(rehearsed.ids)] == rehearsed.ids
    assert len(whole.ids) == len(rehearsed.ids) + 1


def test_the_recipe_continues_the_adapter_with_its_own_rank(tiny_lm: Path) -> None:
    files = find_lora(str(tiny_lm.parent / "adapters" / "citer"), tiny_lm)
    recipe = parse_recipe(recipe_text("taught-1", "smollm2", files), "it")
    assert isinstance(recipe, SftRecipe)
    assert (recipe.lora.rank, recipe.lora.alpha, recipe.start) == (4, 8, str(files.folder))
    fresh = parse_recipe(recipe_text("taught-1", 'local:a "folder"', None), "it")
    assert isinstance(fresh, SftRecipe)
    assert (fresh.start, fresh.base) == (None, 'local:a "folder"')


def test_corrections_that_teach_to_invent_are_a_reason_to_refuse() -> None:
    assert doubt_of(LESSON) == ""
    doubt = doubt_of(LESSON.model_copy(update={"unsupported": ("Why?",)}))
    assert doubt.startswith("1 of 3 corrections says what the sources do not contain, such as that of 'Why?'")


def test_an_adapter_has_learnt_what_the_lessons_before_it_taught(tmp_path: Path) -> None:
    for name, adapter in (("taught-1", "writer"), ("taught-2", "taught-1"), ("taught-3", "writer")):
        folder = LessonFolder(tmp_path / name)
        folder.path.mkdir()
        folder.write(LESSON.model_copy(update={"name": name, "adapter": adapter}))
    assert [lesson.name for lesson in lineage(tmp_path, "taught-2")] == ["taught-2", "taught-1"]
    assert lineage(tmp_path, "writer") == ()
    (tmp_path / "taught-2" / "lesson.json").write_text("{}", encoding="utf-8")
    with pytest.raises(TuningError, match="damaged"):
        lessons(tmp_path)


class Lessons:
    """A workspace with a tiny model, whose nonsense counts as answers, some of them rated."""

    def __init__(self, home: Path, model: Path) -> None:
        self.home = home
        self.model = f"local:{model}"
        self.arguments = ("--model", self.model)

    def call(self, *arguments: str | Path, **given: Any) -> Any:
        return call(self.home, *self.arguments, *arguments, **given)

    def ask(self, question: str) -> Trace:
        assert self.call("ask", question, "--corpus", CORPUS).exit_code == 0
        engine = open_database(Workspace(self.home))
        store = TraceStore(engine)
        try:
            return store.get(store.list(limit=1).traces[0].id)
        finally:
            store.close()
            engine.dispose()

    def rate(self, trace: Trace, *said: str) -> None:
        engine = open_database(Workspace(self.home))
        store = TraceStore(engine)
        store.rate(trace.id, *said)  # type: ignore[arg-type]
        store.close()
        engine.dispose()

    @property
    def newest(self) -> LessonFolder:
        return lessons(self.home / "runs")[0]


@pytest.fixture
def taught(harbour: Path, tiny_lm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lessons:
    settings = {
        "LOCAL__ADAPTER": str(tiny_lm.parent / "adapters" / "citer"),
        "LOCAL__DEVICE": "cpu",
        "LOCAL__RUNTIME": "torch",
        "LOCAL__DTYPE": "f32",
        "GROUNDING__MIN_SUPPORT": "0",
        "DECODING__MAX_TOKENS": "12",
        "DECODING__CONTEXT_TOKENS": "150",
        "CORPUS": CORPUS,
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"RAGSMITH_{name}", value)
    found = Lessons(shutil.copytree(harbour, tmp_path / "home", symlinks=True), tiny_lm)
    assert found.call("datasets", "import", "few", jsonl(tmp_path / "few.jsonl", CASES)).exit_code == 0
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("one_encoder")
def test_accepted_corrections_become_an_adapter_that_is_used_and_rolled_back(taught: Lessons) -> None:
    assert_one_line(taught.call("teach", "--dataset", "few"), "There is no accepted correction to learn")
    for question in GOOD:
        taught.rate(taught.ask(question), "up")
    corrected = [taught.ask(question) for question in WRONG]
    for trace in corrected:
        taught.rate(trace, "down", "wrong", RIGHT)
        assert taught.call("feedback", "review", trace.id, "--accept").exit_code == 0

    # Killed while it trains, it goes on.
    with start(taught.home, *taught.arguments, "teach", "--dataset", "few") as process:
        until = time.monotonic() + 120
        while time.monotonic() < until and not (lessons(taught.home / "runs") and taught.newest.lesson.training):
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
    lesson = taught.newest.lesson
    assert (lesson.state, lesson.traces) == ("training", tuple(trace.id for trace in corrected))
    result = taught.call("teach", "--json")
    assert result.exit_code == 0, result.stderr
    judged = one_object(result)
    assert judged["lesson"]["state"] == "judged"
    assert judged["lesson"]["training"] == lesson.training
    assert {"Contains", "Failed"} <= {metric["title"] for metric in judged["metrics"]}
    taught_row, _ = map(json.loads, (taught.newest.data / "corrections.jsonl").read_text().splitlines())
    assert taught_row["completion"].startswith(f"{RIGHT} [")
    assert taught_row["messages"][-1]["content"].count(WRONG[0]) == 1
    assert_one_line(taught.call("teach", "--dataset", "few"), "waits for a decision", "teach use")

    # On so few cases of nonsense, either verdict may be.
    assert taught.call("teach", "use").exit_code == (0 if judged["lesson"]["passed"] else 1)
    if not judged["lesson"]["passed"]:
        assert taught.call("teach", "use", "--force").exit_code == 2
        assert taught.call("teach", "use", "--force", "--message", "A test.").exit_code == 0
    answer = taught.ask(WRONG[0])
    assert answer.prompt == "answer@2"
    (llm,) = (span for span in answer.spans if span.kind == "llm")
    assert llm.output["response_metadata"]["adapter"] == lesson.name  # type: ignore[index,call-overload]
    assert PromptLibrary(taught.home / "prompts").find("answer").settings.adapter == lesson.name
    # It has learnt them, so there is nothing new.
    assert_one_line(taught.call("teach", "--dataset", "few"), "There is no accepted correction to learn")
    assert taught.call("prompts", "label", "answer", "production", "1").exit_code == 0
    assert taught.ask(WRONG[0]).prompt == "answer@1"
