"""Versions of datasets, and the candidates for them, in a real database."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event, func, select

from rag import tables as db
from rag.database import open_database, reading
from rag.errors import DatasetError
from rag.evaluation.candidates import CandidateStore, draw_passages, propose
from rag.evaluation.cases import Case, make_id
from rag.evaluation.dataset_store import DatasetStore
from rag.evaluation.traced import case_of_trace, replayed_cases
from rag.indexing.corpora import Corpora
from rag.tracing.trace_store import Feedback, Span, Trace
from rag.types import Turn
from rag.workspace import Workspace, open_workspace


@pytest.fixture
def datasets(engine: Engine) -> DatasetStore:
    return DatasetStore(engine)


@pytest.fixture
def candidates(engine: Engine) -> CandidateStore:
    return CandidateStore(engine)


def case(number: int, **parts: object) -> Case:
    return Case.model_validate({"id": f"c{number}", "question": f"Question {number}?"} | parts)


def held(datasets: DatasetStore, reference: str) -> list[Case]:
    return list(datasets.cases(datasets.resolve(reference)))


def count(engine: Engine, table: str) -> int:
    with reading(engine) as connection:
        return connection.scalar(select(func.count()).select_from(db.metadata.tables[table])) or 0


def test_versions_stay_as_they_were_saved(datasets: DatasetStore) -> None:
    first = datasets.save("faq", [case(1), case(2)], by="ida", message="begun")
    second = datasets.save("faq", [case(2), case(1)], by="bo", message="turned round")
    assert (first.label, second.label) == ("faq@1", "faq@2")
    assert first.sha256 != second.sha256
    assert held(datasets, "faq@1") == [case(1), case(2)]
    assert held(datasets, "faq") == [case(2), case(1)]
    assert datasets.resolve("faq@1") == first
    assert datasets.versions("faq") == (second, first)
    (told,) = datasets.list()
    assert (told.name, told.version, told.size, told.message) == ("faq", 2, 2, "turned round")
    assert abs(told.saved - time.time()) < 60


def test_what_is_the_same_is_no_new_version(datasets: DatasetStore, engine: Engine) -> None:
    first = datasets.save("faq", [case(1)], by="ida", message="begun")
    assert datasets.save("faq", [case(1)], by="bo", message="again") == first
    # An older version may come back: the newest one is another.
    datasets.save("faq", [case(2)], by="bo", message="")
    assert datasets.save("faq", [case(1)], by="bo", message="back").version == 3
    assert count(engine, "cases") == 2


def test_cases_come_in_pages_and_in_order(datasets: DatasetStore) -> None:
    cases = [case(number) for number in range(1203)]
    version = datasets.save("long", cases, by="ida", message="")
    assert list(datasets.cases(version)) == cases
    assert list(datasets.cases(version, 499, 502)) == cases[499:1001]
    assert list(datasets.cases(version, 1200, 50)) == cases[1200:]
    assert list(datasets.cases(version, 5000)) == []
    assert datasets.find(version, "c1202") == cases[1202]
    with pytest.raises(DatasetError, match="long@1 has no case c1203"):
        datasets.find(version, "c1203")


def test_a_large_version_takes_statements_by_the_part_and_not_by_the_case(
    datasets: DatasetStore, engine: Engine
) -> None:
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *told: statements.append(told[2]))
    datasets.save("long", [case(number) for number in range(10_000)], by="ida", message="")
    assert len(statements) < 100


@pytest.mark.parametrize(
    "reference", ["none", "none@1", "faq@2", "faq@0", "faq@", "faq@x", "faq@-1", "faq@" + "9" * 30]
)
def test_what_is_not_there_is_told(datasets: DatasetStore, reference: str) -> None:
    datasets.save("faq", [case(1)], by="ida", message="")
    with pytest.raises(DatasetError, match="There is no"):
        datasets.resolve(reference)


@pytest.mark.parametrize("name", ["", "Faq", "1faq", "a b", "a@1", "a_b", "x" * 121, "faq\n", "é"])
def test_a_name_that_cannot_be_one_is_refused(
    datasets: DatasetStore, candidates: CandidateStore, engine: Engine, name: str
) -> None:
    with pytest.raises(DatasetError, match="is not a valid name"):
        datasets.save(name, [case(1)], by="ida", message="")
    with pytest.raises(DatasetError, match="is not a valid name"):
        datasets.add(name, [case(1)], by="ida", message="")
    with pytest.raises(DatasetError, match="is not a valid name"):
        candidates.put(name, [case(1)])
    assert count(engine, "datasets") == 0


def test_an_id_that_is_there_twice_is_refused(datasets: DatasetStore) -> None:
    for act in (datasets.save, datasets.add):
        with pytest.raises(DatasetError, match="Several cases have the id c1"):
            act("faq", [case(1), case(1, notes="other")], by="ida", message="")


def test_who_saves_after_an_older_version_is_told_and_nothing_is_lost(datasets: DatasetStore) -> None:
    first = datasets.save("faq", [case(1)], by="ida", message="", after=0)
    second = datasets.save("faq", [case(2)], by="bo", message="", after=first.version)
    with pytest.raises(DatasetError, match="faq@2 was saved in the meantime"):
        datasets.save("faq", [case(3)], by="ida", message="", after=first.version)
    with pytest.raises(DatasetError, match="in the meantime"):
        datasets.save("faq", [case(3)], by="ida", message="", after=0)
    assert datasets.newest("faq") == second


def together(count: int, act: Callable[[int], object]) -> None:
    """Do something from several threads at once, and let none of them fail."""
    ready = Barrier(count)

    def run(number: int) -> None:
        ready.wait()
        act(number)

    with ThreadPoolExecutor(count) as threads:
        list(threads.map(run, range(count)))


def test_savers_at_once_lose_no_version(workspace: Workspace, datasets: DatasetStore) -> None:
    shared = case(0)

    def save(number: int) -> None:
        # An engine of its own, as another process has.
        engine = open_database(workspace)
        DatasetStore(engine).save("faq", [shared, case(number + 1)], by=str(number), message="")
        engine.dispose()

    together(6, save)
    versions = datasets.versions("faq")
    assert [each.version for each in versions] == [6, 5, 4, 3, 2, 1]
    assert {each.by for each in versions} == set("012345")


def test_what_is_added_at_once_is_all_there(workspace: Workspace, datasets: DatasetStore) -> None:
    def add(number: int) -> None:
        engine = open_database(workspace)
        DatasetStore(engine).add("faq", [case(number)], by="", message="")
        engine.dispose()

    together(6, add)
    assert {each.id for each in held(datasets, "faq")} == {f"c{number}" for number in range(6)}
    assert datasets.resolve("faq").version == 6


def test_adding_replaces_what_has_the_same_id_and_says_so(datasets: DatasetStore) -> None:
    assert datasets.add("faq", [case(1), case(2)], by="ida", message="").added == ("c1", "c2")
    made = datasets.add("faq", [case(3), case(1, notes="new"), case(2)], by="ida", message="")
    assert (made.added, made.replaced, made.unchanged) == (("c3",), ("c1",), ("c2",))
    assert held(datasets, "faq") == [case(1, notes="new"), case(2), case(3)]
    again = datasets.add("faq", [case(3)], by="ida", message="")
    assert (again.version, again.unchanged) == (made.version, ("c3",))


def test_removing_takes_all_or_nothing(datasets: DatasetStore) -> None:
    datasets.save("faq", [case(1), case(2), case(3)], by="ida", message="")
    with pytest.raises(DatasetError, match="faq@1 has no case c9"):
        datasets.remove("faq", ["c1", "c9"], by="ida", message="")
    assert datasets.remove("faq", ["c1", "c3", "c1"], by="ida", message="").size == 1
    assert held(datasets, "faq") == [case(2)]
    assert held(datasets, "faq@1") == [case(1), case(2), case(3)]
    assert datasets.remove("faq", ["c2"], by="ida", message="").size == 0
    with pytest.raises(DatasetError, match="no dataset other"):
        datasets.remove("other", ["c2"], by="ida", message="")


NUMBERS = st.lists(st.integers(0, 5), unique=True)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["save", "add", "remove"]), NUMBERS), max_size=8))
def test_any_sequence_of_changes_leaves_what_it_says(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, list[int]]]
) -> None:
    engine = open_database(open_workspace(tmp_path_factory.mktemp("steps")))
    store = DatasetStore(engine)
    store.save("faq", [], by="", message="")
    expected: list[Case] = []
    kept = {1: expected}
    for what, numbers in steps:
        some = [case(number) for number in numbers]
        if what == "save":
            expected = some
            version = store.save("faq", some, by="", message="")
        elif what == "add":
            expected = expected + [each for each in some if each not in expected]
            version = store.add("faq", some, by="", message="").version
        else:
            there = [each for each in some if each in expected]
            expected = [each for each in expected if each not in there]
            version = store.remove("faq", [each.id for each in there], by="", message="")
        kept[version.version] = expected
    assert {each.version for each in store.versions("faq")} == set(kept)
    assert all(held(store, f"faq@{number}") == cases for number, cases in kept.items())
    engine.dispose()


def test_what_databases_dislike_is_kept(datasets: DatasetStore) -> None:
    odd = Case(
        id="'; DROP TABLE cases; --",
        question="\U0001f4a9 \u202e \u2028 % _ \\",
        history=(Turn("a\tb", ""),),
        notes='{"a": 1}',
    )
    version = datasets.save("odd", [odd], by="'", message='"')
    assert list(datasets.cases(version)) == [odd]
    assert datasets.find(version, odd.id) == odd


PASSAGE = "# The gauge\n\nIt is old. The tide gauge was installed in 1871 by Ida Brandt of Norden. It ticks."


def test_a_question_is_proposed_about_the_sentence_that_says_most() -> None:
    asked: list[list[str]] = []

    def write(sentences: list[str]) -> list[str]:
        asked.append(sentences)
        return ["When was the\ngauge installed?"] * len(sentences)

    passages = [(PASSAGE, "tides.md"), ("Too short.", "b.md"), (PASSAGE, "copy.md"), (PASSAGE, "third.md")]
    (made,) = propose(passages, write, batch=2)
    sentence = "The tide gauge was installed in 1871 by Ida Brandt of Norden."
    assert asked == [[sentence, sentence], [sentence]]
    assert made == Case(
        id=make_id("When was the gauge installed?"),
        question="When was the gauge installed?",
        answers=(sentence,),
        sources=("tides.md",),
        tags=("candidate",),
    )


@pytest.mark.parametrize("written", ["", "?", " ?! ?", "No question.", "Where is it?\nWhen?"])
def test_what_is_no_question_is_not_proposed(written: str) -> None:
    assert list(propose([(PASSAGE, "tides.md")], lambda _: [written])) == []


def test_what_was_decided_is_not_proposed_again(candidates: CandidateStore, datasets: DatasetStore) -> None:
    datasets.save("faq", [case(0)], by="ida", message="")
    assert candidates.put("faq", [case(number) for number in range(4)]) == 3
    assert [each.id for each in candidates.waiting("faq")] == ["c1", "c2", "c3"]
    made = candidates.accept("faq", ["c2", "c2"], by="bo")
    assert (made.added, made.version.by, made.version.message) == (("c2",), "bo", "accepted 1 candidate")
    assert held(datasets, "faq") == [case(0), case(2)]
    assert candidates.reject("faq", ["c3"]) == 1
    assert [each.id for each in candidates.waiting("faq")] == ["c1"]
    # Also not about another passage, and not after it left the dataset.
    datasets.remove("faq", ["c2"], by="ida", message="")
    assert candidates.put("faq", [case(number, sources=["b.md"]) for number in range(5)]) == 1
    assert [each.id for each in candidates.waiting("faq")] == ["c1", "c4"]
    assert candidates.waiting("other") == ()


def test_only_what_waits_is_decided_on(candidates: CandidateStore, datasets: DatasetStore) -> None:
    candidates.put("faq", [case(1), case(2)])
    candidates.reject("faq", ["c2"])
    for act in (
        lambda: candidates.accept("faq", ["c1", "c2"], by=""),
        lambda: candidates.reject("faq", ["c1", "c9"]),
    ):
        with pytest.raises(DatasetError, match=r"There is no undecided candidate c[29] of faq\."):
            act()
    assert [each.id for each in candidates.waiting("faq")] == ["c1"]
    assert datasets.list() == ()


def test_candidates_may_begin_a_dataset(candidates: CandidateStore, datasets: DatasetStore) -> None:
    assert candidates.put("new", [case(1)]) == 1
    assert datasets.newest("new") is None
    assert datasets.save("new", [case(9)], by="", message="", after=0).version == 1
    assert candidates.accept("new", ["c1"], by="ida").version.version == 2


def test_what_is_proposed_at_once_waits_once(workspace: Workspace, candidates: CandidateStore) -> None:
    def put(_: int) -> None:
        engine = open_database(workspace)
        CandidateStore(engine).put("faq", [case(1), case(2)])
        engine.dispose()

    together(5, put)
    assert [each.id for each in candidates.waiting("faq")] == ["c1", "c2"]


def test_passages_are_drawn_each_once_with_the_name_a_case_gives(
    corpora: Corpora, engine: Engine, tmp_path: Path
) -> None:
    from corpus_stores import take_in, write

    records = '{"id": "q7", "text": "Rye dough is never kneaded at all."}\n'
    pages = {f"{number}.md": f"Page {number} tells its own story here.\n" for number in range(5)}
    index = corpora.ensure("notes")
    take_in(index, write(tmp_path / "in", pages | {"faq.jsonl": records, "later/0.md": pages["0.md"]}))
    drawn = list(draw_passages(engine, index.id))
    expected = ["0.md", "1.md", "2.md", "3.md", "4.md", "faq.jsonl#q7"]
    assert sorted(name for _, name in drawn) == [f"in/{name}" for name in expected]
    assert drawn == list(draw_passages(engine, index.id))
    assert drawn != list(draw_passages(engine, index.id, seed=1))
    assert dict(drawn)["Page 3 tells its own story here."] == "in/3.md"
    assert list(draw_passages(engine, index.id + 1)) == []


def trace(**parts: object) -> Trace:
    cited = {"marker": 1, "hit": {"passage": {"name": "report.pdf", "page": 3}}}
    root = Span(
        id="s",
        parent_id=None,
        position=0,
        name="answer",
        kind="chain",
        status="ok",
        started=1.0,
        input={"question": "And then?", "history": [{"question": "First?", "answer": "This."}]},
        output={"citations": [cited, {"hit": {"passage": {"name": "a.md", "page": None}}}, cited]},
    )
    child = Span(id="t", parent_id="s", position=1, name="x", kind="chain", status="ok", started=1.0)
    told: dict[str, object] = {"question": "And then?", "spans": (child, root)} | parts
    return Trace(id="trace-1", started=1.0, status="ok", **told)  # type: ignore[arg-type]


def test_a_trace_gives_its_question_history_and_cited_sources() -> None:
    made = case_of_trace(trace(), answers=["That."], notes="wrong in May")
    assert made == Case(
        id=make_id("And then?", [Turn("First?", "This.")]),
        question="And then?",
        history=(Turn("First?", "This."),),
        answers=("That.",),
        sources=("report.pdf p.3", "a.md"),
        notes="wrong in May",
    )
    assert case_of_trace(trace(), sources=["b.md"]).sources == ("b.md",)
    refused = case_of_trace(trace(), must_refuse=True)
    assert (refused.must_refuse, refused.sources) == (True, ())


@pytest.mark.parametrize(
    "shown", [None, "clipped", {"history": 3, "citations": [1, {"hit": 2}, {}]}, {"history": ["x"]}]
)
def test_a_trace_whose_steps_were_not_kept_gives_its_question(shown: object) -> None:
    root = Span(
        id="s",
        parent_id=None,
        position=0,
        name="answer",
        kind="chain",
        status="ok",
        started=1.0,
        input=shown,  # type: ignore[arg-type]
        output=shown,  # type: ignore[arg-type]
    )
    assert case_of_trace(trace(spans=(root,))) == Case(id=make_id("And then?"), question="And then?")
    assert case_of_trace(trace(spans=())).question == "And then?"


def test_a_trace_without_a_question_gives_no_case() -> None:
    with pytest.raises(DatasetError, match="trace-1 cannot become a case: question: it must not be empty"):
        case_of_trace(trace(question=""))
    with pytest.raises(DatasetError, match="it must not have answers if it must be refused"):
        case_of_trace(trace(), must_refuse=True, answers=["x"])


def test_questions_to_replay_keep_what_people_said_of_their_answers() -> None:
    up, down = Feedback("up", "", 0.0), Feedback("down", "", 0.0, correction="In 1871.")
    cited = trace()
    assert case_of_trace(cited).sources
    liked, disliked, plain = replayed_cases(
        replace(cited, question=question, feedback=said, spans=cited.spans if said is up else ())
        for question, said in (("A?", up), ("B?", down), ("C?", None), ("C?", None))
    )
    assert liked.sources == case_of_trace(cited).sources
    assert (disliked.answers, disliked.sources) == (("In 1871.",), ())
    assert (plain.answers, plain.sources) == ((), ())
