"""The training data of the writer: sentences that answer and add nothing, and rows as the chain would ask."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from terminal import assert_one_line, call
from tiny_lm import MESSAGES, make_adapter
from tuning_data import OF_HELD_OUT, OF_MANUALS, OF_XQUAD, fact, write_data

from finetune.data.answer_rows import AnswerRow, answer_rows, copied_row, refusal_row, target_row
from finetune.data.chat_rows import read_chat_rows
from finetune.data.document_questions import WrittenQuestion, document_sentences, searching_documents
from finetune.data.found_evidence import FoundEvidence, FoundLine, asked_about, asked_questions
from finetune.data.instructions import DOLLY, Instruction
from finetune.data.record_file import RecordFile
from finetune.data.splits import plain
from finetune.data.target_filter import TargetFilter, recase
from finetune.data.writer_data import ABOUT, ANSWERS, VALIDATION, WriterData, split_rows
from finetune.data.written_target import WrittenTarget, target_request
from finetune.text_sampler import Drawing, TextSampler
from prompts import Message, find_prompt
from rag.errors import TuningError
from rag.models.local.local_adapters import AdapterFiles
from rag.models.local.local_files import locate_local
from rag.workspace import Workspace

LINE = "The Vossberg ferry, which Marta Olsen designed in 1911, does not carry lorries heavier than 12 tonnes."
QUESTION = "Who designed the Vossberg ferry?"
TITLE = "Ferries of Lake Karsk"
LIMIT = "How heavy may a lorry on the Vossberg ferry be?"
POLICY = "We share your e-mail address with our advertising partners."

# Sentences


@pytest.mark.parametrize(
    "sentence",
    [
        "The Vossberg ferry was designed by Marta Olsen.",
        "Marta Olsen designed the Vossberg ferry in 1911.",
        LINE,
    ],
)
def test_a_sentence_that_answers_from_its_source_is_kept(sentence: str) -> None:
    assert TargetFilter(QUESTION, "Marta Olsen", [LINE, TITLE]).fault_of(sentence) is None


@pytest.mark.parametrize(
    ("sentence", "fault"),
    [
        ("", "lines"),
        ("Marta Olsen designed the ferry.\nShe was an engineer.", "lines"),
        ("Marta Olsen designed the Vossberg ferry, which", "ending"),
        ("Did Marta Olsen design the Vossberg ferry?", "ending"),
        ("Marta Olsen.", "length"),
        ("Marta Olsen designed the Vossberg ferry " + "for the lake " * 12 + ".", "length"),
        ("Marta Olsen designed the ferry as Marta Olsen designed the ferry.", "repetition"),
        ("The Vossberg ferry was designed in 1911.", "answer"),
        ("Marta Olsen designed the Vossberg ferry in 1912.", "number"),
        ("Marta Olsen of Bergen designed the Vossberg ferry.", "name"),
        ("Marta Olsen never designed the Vossberg ferry.", "negation"),
        ("Marta Olsen quickly sketched every wooden Vossberg hull drawing herself.", "words"),
        ("Marta Olsen appears in 1911 with 12 tonnes.", "question"),
        ("The ferry was designed by Marta Olsen.", "names"),
    ],
)
def test_a_sentence_is_dropped_for_its_first_fault(sentence: str, fault: str) -> None:
    assert TargetFilter(QUESTION, "Marta Olsen", [LINE, TITLE]).fault_of(sentence) == fault


def test_a_number_inside_another_is_no_answer() -> None:
    judge = TargetFilter(
        "How many cars does the Vossberg ferry carry?", "8", ["The Vossberg ferry carries 8 cars."]
    )
    assert judge.fault_of("The Vossberg ferry carries 18 cars.") == "answer"


def test_names_get_the_capitals_that_the_sources_always_give_them() -> None:
    sources = ["In May, the ferry of Karsk met Will Anders.", "He may know the will of the town."]
    assert recase("the ferry of karsk may meet anders.", sources) == "The ferry of Karsk may meet Anders."


# Rows


def found(
    question: str = QUESTION,
    answer: str = "Marta Olsen",
    text: str = LINE,
    source: str = "squad",
    confidence: float = 0.9,
) -> FoundEvidence:
    shown = text.replace(answer, f"**{answer}**") if answer else text
    lines = (FoundLine(number=2, title=TITLE, text=shown),)
    answers = (answer,) if answer else ()
    return FoundEvidence.model_validate(
        {
            "source": source,
            "question": question,
            "answers": answers,
            "passage": text,
            "lines": lines,
            "confidence": confidence,
        }
    )


def written(evidence: FoundEvidence, sentence: str) -> WrittenTarget:
    request = target_request(evidence)
    assert request is not None
    return WrittenTarget(
        id=request.id,
        question=request.question,
        answer=request.answer,
        number=request.number,
        line=request.line,
        sentence=sentence,
        origin="greedy" if sentence else "none",
    )


def many(count: int = 400) -> list[AnswerRow]:
    """Rows about as many questions, of all kinds."""
    pairs = []
    for number in range(count):
        one = fact(number)
        evidence = found(one.questions[0][0], one.builder, one.sentences[0], "open-questions")
        pairs.append((evidence, written(evidence, f"{one.builder} built the {one.thing} of {one.town}.")))
    others = [found(f"Who sold boat {number}?", "", LINE) for number in range(count)]
    policies = [found(f"Which partners get {number}?", POLICY, POLICY, "policyqa") for number in range(40)]
    instructions = [Instruction(f"Name {number} lakes.", "Karsk.") for number in range(30)]
    return answer_rows([*(one for one, _ in pairs), *others, *policies], [t for _, t in pairs], instructions, 1)


def test_every_kind_has_rows_of_its_form() -> None:
    rows: dict[str, list[AnswerRow]] = {}
    for row in many():
        rows.setdefault(row.kind, []).append(row)
    sentence = r"^[A-Z].* built the .*\.{}$"
    forms = {
        "shipped": sentence.format(r" \[2\]"),
        "sentence": sentence.format(r" \[2\]"),
        "bare": sentence.format(""),
        "short": r"^[A-Z]\w+ \w+ \[2\]$",
        "explained": r"^.* \[2\] .* \[2\]$",
        "quote": r'^".*" \[2\]$',
        "bullets": r"^- .* \[2\]$",
        "json": r'^\{"answer": ".*", "source": 2\}$',
        "steps": r"^1\. The evidence says: .* \[2\]\n2\. .* \[2\]$",
        "copied": POLICY.replace(".", r"\."),
        "refusal": r"^(?:The documents do not answer|I do not know|Not in|The evidence does not|No answer)",
        "general": r"^Karsk\.$",
    }
    assert rows.keys() == forms.keys()
    for kind, form in forms.items():
        for row in rows[kind]:
            assert re.search(form, row.completion), (kind, row.completion)


def test_the_shipped_prompt_is_filled_as_the_chain_fills_it() -> None:
    row = next(row for row in many() if row.kind == "shipped")
    shipped = find_prompt("answer-from-evidence").messages
    before, after = shipped[0].content.split("{{refusal}}")
    assert row.turns[0].content.startswith(before)
    assert row.turns[0].content.endswith(after)
    assert [turn.role for turn in row.turns] == ["system", "user"]
    assert row.turns[1].content.startswith(f"[2] {TITLE}: **")
    assert "{{" not in row.turns[1].content


def test_the_evidence_answers_where_no_sentence_was_kept_unless_it_needs_the_one_before() -> None:
    alone = found(text="Marta Olsen designed it in the town of Karsk.")
    row = target_row(alone, written(alone, ""), random.Random(1))
    assert row is not None
    assert "Marta Olsen designed it in the town of Karsk." in row.completion
    dependent = found(text="It was Marta Olsen who designed the ferry.")
    assert target_row(dependent, written(dependent, ""), random.Random(1)) is None


def test_a_policy_that_does_not_answer_gives_no_row() -> None:
    other = found("Who gets my address?", "our sister companies", POLICY, "policyqa")
    assert copied_row(other, random.Random(1)) is None


def test_a_written_question_is_answered_by_its_sentence_where_the_reader_finds_it() -> None:
    asked = asked_about(LINE, QUESTION)
    assert [asked.row.passage[start:end] for start, end in asked.row.answers] == [LINE]
    for confidence, is_kept in ((0.8, True), (0.4, False)):
        row = copied_row(found(QUESTION, LINE, LINE, "documents", confidence), random.Random(1))
        assert (row is not None) == is_kept
        assert row is None or LINE in row.completion
    assert target_request(found(QUESTION, LINE, LINE, "documents")) is None


def test_a_refusal_is_what_its_prompt_asks_for() -> None:
    for seed in range(20):
        row = refusal_row(found("Who sold it?", "", LINE), random.Random(seed))
        assert any(row.completion in turn.content for turn in row.turns)


def test_refusals_are_few_and_only_where_the_reader_is_sure() -> None:
    rows = many()
    refusals = [row for row in rows if row.kind == "refusal"]
    others = len(rows) - len(refusals) - sum(row.kind == "general" for row in rows)
    assert len(refusals) == round(0.05 * others)
    unsure = found("Who sold it?", "", LINE, confidence=0.2)
    assert answer_rows([unsure], [], [], 1) == []


def test_the_same_seed_gives_the_same_rows_and_another_one_others() -> None:
    assert many() == many()
    evidence = found()
    target = written(evidence, "Marta Olsen designed the Vossberg ferry.")
    drawn = {answer_rows([evidence], [target], [], seed)[0].as_json for seed in range(8)}
    assert len(drawn) > 1


def test_validation_never_shares_a_question_with_training() -> None:
    rows = many()
    again = [AnswerRow(row.kind, row.question.upper(), row.turns, row.completion) for row in rows]
    training, validation = split_rows([*rows, *again])
    assert len(training) + len(validation) == 2 * len(rows)
    assert validation
    assert not {plain(row.question) for row in training} & {plain(row.question) for row in validation}


# Questions


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_data(tmp_path_factory.mktemp("data") / "data")
    (folder / DOLLY).parent.mkdir()
    record = {"prompt": "Do it.\n\n### Instruction:\nName a lake.\n\n### Response:\n", "response": "Karsk."}
    (folder / DOLLY).write_text(json.dumps(record) + "\n", encoding="utf-8")
    return folder


def test_no_question_is_about_held_out_text(data: Path) -> None:
    asked = asked_questions(data, 1)
    held_out = {one.paragraph for told in OF_HELD_OUT.values() for one in told}
    held_out |= {one.paragraph for one in OF_XQUAD}
    assert {one.source for one in asked} == {"squad", "open-questions", "policyqa"}
    assert not held_out & {one.row.passage for one in asked}
    assert asked == asked_questions(data, 1)
    assert len(asked_questions(data, 1, 3)) == 9


@pytest.mark.usefixtures("one_encoder")
def test_questions_are_written_about_whole_sentences_of_documents_without_addresses(data: Path) -> None:
    with searching_documents(data) as retriever:
        sentences = document_sentences(retriever, 1, 10)
        assert document_sentences(retriever, 1, 2) == sentences[:2]
    assert len(sentences) == len(OF_MANUALS)
    assert all(any(sentence in told.sentences for told in OF_MANUALS) for sentence in sentences)


# The folder


def test_a_torn_last_line_is_dropped_and_a_malformed_one_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "evidence.jsonl"
    records = RecordFile(path, FoundEvidence)
    records.append([found(), found(LIMIT, "12 tonnes")])
    path.write_bytes(path.read_bytes()[:-30])
    assert records.read() == [found()]
    records.append([found(LIMIT, "12 tonnes")])
    assert records.read() == [found(), found(LIMIT, "12 tonnes")]
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(TuningError, match="line 1 is malformed"):
        records.read()


@pytest.mark.slow
@pytest.mark.usefixtures("one_encoder")
def test_a_stopped_run_continues_and_ends_in_the_same_rows(
    data: Path, tiny_lm: Path, ready_workspace: Workspace, tmp_path: Path
) -> None:
    def make(folder: Path) -> None:
        base = locate_local(str(tiny_lm))
        WriterData(data, folder, ready_workspace, questions=3, base=base).make(lambda _: None)

    make(tmp_path / "whole")
    (tmp_path / "torn").mkdir()
    for name in (ABOUT, "questions.jsonl", "evidence.jsonl", "targets.jsonl"):
        content = (tmp_path / "whole" / name).read_bytes()
        (tmp_path / "torn" / name).write_bytes(content if name == ABOUT else content[:-20])
    make(tmp_path / "torn")
    for name in ("questions.jsonl", "evidence.jsonl", "targets.jsonl", ANSWERS, VALIDATION, ABOUT):
        assert (tmp_path / "torn" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    about = json.loads((tmp_path / "whole" / ABOUT).read_bytes())
    rows = list(read_chat_rows(tmp_path / "whole", "answers"))
    assert about["files"][ANSWERS]["rows"] == len(rows) > 0
    evidence = RecordFile(tmp_path / "whole" / "evidence.jsonl", FoundEvidence).read()
    questions = RecordFile(tmp_path / "whole" / "questions.jsonl", WrittenQuestion).read()
    assert len({one.sentence for one in questions}) == 3
    assert any(line.text.count("**") == 2 for one in evidence for line in one.lines)


def test_a_folder_of_other_data_is_refused(data: Path, workspace: Workspace, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / ABOUT).write_text("{}", encoding="utf-8")
    arguments = ("tune", "prepare", "writer", "--data", data, "--to", target)
    assert_one_line(call(workspace.root, *arguments), f"The folder {target} was made from other data")


def test_one_process_at_a_time_works_on_a_folder(data: Path, workspace: Workspace, tmp_path: Path) -> None:
    from filelock import FileLock

    with FileLock(tmp_path / "lock"):
        result = call(workspace.root, "tune", "prepare", "writer", "--data", data, "--to", tmp_path)
    assert_one_line(result, f"Another process is making the data in {tmp_path}.")


def test_missing_data_are_named(workspace: Workspace, tmp_path: Path) -> None:
    result = call(workspace.root, "tune", "prepare", "writer", "--data", tmp_path, "--to", tmp_path / "to")
    assert_one_line(result, "cs224n-dev-v2.0.json cannot be read", "--data")


# Sampling


@pytest.mark.slow
def test_texts_are_drawn_by_their_own_seeds_and_greedy_ones_are_served_ones(
    tiny_lm: Path, workspace: Workspace
) -> None:
    sampler = TextSampler(locate_local(str(tiny_lm)), workspace.models)
    turns = tuple(Message(role="user", content=str(message.content)) for message in MESSAGES)
    drawn = (turns, Drawing(3, 0.9, 8, seed=5))
    greedy = (turns[1:], Drawing(max_tokens=6))
    three, one = sampler.texts([drawn, greedy])
    assert len(three) == 3
    assert len(one) == 1
    assert sampler.texts([greedy, drawn]) == [one, three]
    assert sampler.texts([]) == []


@pytest.mark.slow
def test_an_adapter_changes_what_is_written(tiny_lm: Path, workspace: Workspace, tmp_path: Path) -> None:
    files = locate_local(str(tiny_lm))
    adapter = AdapterFiles("tiny", make_adapter(tiny_lm, tmp_path / "tiny"))
    turns = tuple(Message(role="user", content=str(message.content)) for message in MESSAGES)
    base, tuned = (
        TextSampler(files, workspace.models, one).texts([(turns, Drawing(max_tokens=8))])
        for one in (None, adapter)
    )
    assert base != tuned
