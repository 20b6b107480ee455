"""The handbook is the first corpus a user meets: its pages, questions and answers belong together."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rag.settings import Settings

HANDBOOK = Path(__file__).resolve().parent.parent / "corpora" / "handbook"
PAGES = sorted((HANDBOOK / "pages").glob("*.md"))
# One page would be too long.
REFERENCE = ("settings-reference.md", "settings-reference-answers.md", "alerts.md")

FENCE = re.compile(r"^```.*?^```\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def records(name: str) -> list[dict[str, Any]]:
    lines = (HANDBOOK / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def prose(page: Path) -> list[str]:
    """The paragraphs and list items of a page: each stands on one line, headings and code left out."""
    lines = FENCE.sub("", page.read_text(encoding="utf-8")).splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def sentences(page: Path) -> list[str]:
    return [sentence.lower() for line in prose(page) for sentence in SENTENCE_END.split(line)]


QUESTIONS = records("questions.jsonl")
ANSWERABLE = [question for question in QUESTIONS if question["answerable"]]
UNANSWERABLE = [question for question in QUESTIONS if not question["answerable"]]
FOLLOWUPS = records("followups.jsonl")


def test_enough_pages_and_a_licence() -> None:
    assert len(PAGES) >= 25
    assert "CC BY 4.0" in (HANDBOOK / "LICENSE").read_text(encoding="utf-8")


def test_every_page_has_one_title_sections_substance_and_links_that_resolve() -> None:
    for page in PAGES:
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1, page
        assert text.startswith("# "), page
        assert len(re.findall(r"^## ", text, re.MULTILINE)) >= 3, page
        assert 350 <= len(page.read_text(encoding="utf-8").split()) <= 900, page
        for target in LINK.findall(text):
            assert (page.parent / target.partition("#")[0]).is_file(), (page, target)


def test_every_page_is_linked_from_another() -> None:
    linked = {
        target
        for page in PAGES
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if target != page.name
    }
    assert {page.name for page in PAGES} - linked - {"overview.md"} == set()


def test_enough_questions_with_ids_of_their_own() -> None:
    assert len(ANSWERABLE) >= 60
    assert len(UNANSWERABLE) >= 20
    everything = [*QUESTIONS, *FOLLOWUPS]
    assert len({record["id"] for record in everything}) == len(everything)
    assert len({record["question"].lower() for record in QUESTIONS}) == len(QUESTIONS)


def test_every_page_has_a_question() -> None:
    assert {question["source"] for question in ANSWERABLE} == {page.name for page in PAGES}


def test_every_answer_stands_in_one_sentence_of_its_source() -> None:
    by_page = {page.name: sentences(page) for page in PAGES}
    everywhere = [sentence for found in by_page.values() for sentence in found]
    for question in ANSWERABLE:
        accepted = question.get("answers", [question["answer"]])
        assert question["answer"] in accepted, question["id"]
        found = by_page[question["source"]]
        assert any(question["answer"].lower() in sentence for sentence in found), question["id"]
        for answer in accepted:
            assert 1 <= len(answer.split()) <= 6, answer
            assert not set(answer) & set("`*[]|"), "markup would depend on how the page is read"
            assert any(answer.lower() in sentence for sentence in everywhere), answer


def test_unanswerable_questions_expect_nothing() -> None:
    for question in UNANSWERABLE:
        assert set(question) == {"id", "question", "answerable"}


def test_followups_lean_on_a_conversation() -> None:
    assert len(FOLLOWUPS) >= 10
    for followup in FOLLOWUPS:
        assert (HANDBOOK / "pages" / followup["source"]).is_file()
        assert followup["history"]
        for turn in followup["history"]:
            assert turn["question"]
            assert turn["answer"]


def default_as_written(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if value == ():
        return "empty"
    return str(value)


def fields(model: type[BaseModel], prefix: str = "") -> list[tuple[str, object]]:
    """Names and defaults as a user writes them: ``section.field`` or ``field``."""
    found: list[tuple[str, object]] = []
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            found += fields(type(field.default), f"{name}.")
        else:
            found.append((prefix + name, field.default))
    return found


def test_reference_states_every_setting_and_its_default() -> None:
    reference = [line for page in REFERENCE for line in prose(HANDBOOK / "pages" / page)]
    for name, default in fields(Settings):
        lines = [line for line in reference if f"`{name}`" in line]
        assert lines, f"{' and '.join(REFERENCE)} do not mention {name}"
        if default is not None:
            assert any(default_as_written(default) in line for line in lines), name
