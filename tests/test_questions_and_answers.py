"""Lists of questions and answers: the answer is quoted, never the question, and they stay together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from evidence_samples import REFUSAL, evidence_of, lexical_at, replied

from rag.documents.chunking import ChunkingRule, chunk_document
from rag.documents.loaders import load
from rag.documents.sentences import asks, split_sentences
from rag.models.extractive.extractive_chat import ExtractiveReader
from rag.models.extractive.sentence_ranking import SentenceRanking

if TYPE_CHECKING:
    from rag.encoders import Encoder

ANSWERS = {
    "When does the swimming hall open?": "At seven, on Sundays at nine.",
    "Who mends torn sails?": "Henrik in the loft, by appointment.",
    "What does a locker cost?": "Six crowns a week, paid to the guard.",
    "Can I bring a dinghy?": "Only before noon, and only a small one.",
}


def repeated(layout: str) -> str:
    return "".join(layout.format(n=n, q=q, a=a) for n, (q, a) in enumerate(ANSWERS.items(), 1))


LAYOUTS = {
    "labels.txt": repeated("Q: {q}\nA: {a}\n\n"),
    "numbers.txt": repeated("Q{n}: {q}\nA{n}: {a}\n"),
    "german.txt": repeated("Frage: {q}\n\nAntwort: {a}\n\n"),
    "dots.txt": repeated("Q. {q}\nA. {a}\n\n"),
    "lines.txt": repeated("{q}\n{a}\n"),
    "paragraphs.txt": repeated("{q}\n\n{a}\n\n"),
    "bold.md": repeated("**{q}**\n\n{a}\n\n"),
    "both.md": repeated("**Q: {q}**\n**A:** {a}\n\n"),
    "list.md": repeated("{n}. {q}\n   {a}\n"),
    "headings.md": repeated("## {q}\n\n{a}\n\n"),
    "table.md": "| Question | Answer |\n|---|---|\n" + repeated("| {q} | {a} |\n"),
    "table.csv": "question,answer\n" + repeated('"{q}","{a}"\n'),
    "bare.csv": repeated('"{q}","{a}"\n'),
    "bare.html": f"<table>{repeated('<tr><td>{q}<td>{a}')}</table>",
    "details.html": repeated("<details><summary>{q}</summary>{a}</details>"),
    "buttons.html": repeated("<h3><button class='acc'>{q}</button></h3><div><p>{a}</p></div>"),
    "terms.html": f"<dl>{repeated('<dt>{q}</dt><dd>{a}</dd>')}</dl>",
    "records.jsonl": "\n".join(json.dumps({"question": q, "answer": a}) for q, a in ANSWERS.items()),
    "names.json": json.dumps(ANSWERS),
    "titles.jsonl": "\n".join(json.dumps({"title": q, "text": a}) for q, a in ANSWERS.items()),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_question_of_the_documents_is_answered_by_what_follows_it(
    encoder: Encoder, tmp_path: Path, name: str
) -> None:
    ranking = SentenceRanking(encoder, lexical_at(tmp_path))
    reader = ExtractiveReader(ranking=ranking, tokens=encoder.tokens, min_confidence=0.5)
    texts = [document.text for document in load(Path(name), LAYOUTS[name].encode())]
    titles = [document.title or "" for document in load(Path(name), LAYOUTS[name].encode())]
    for question, answer in ANSWERS.items():
        evidence = evidence_of(encoder, question, texts, titles)
        reply = replied(reader, evidence).text
        assert reply.startswith(f"{answer} [")
        assert "?" not in reply


def test_the_same_question_in_other_words_is_answered_too(encoder: Encoder, tmp_path: Path) -> None:
    ranking = SentenceRanking(encoder, lexical_at(tmp_path))
    ranked = ranking.rank(evidence_of(encoder, "How much do I pay for a locker?", [LAYOUTS["labels.txt"]]))
    assert ranked[0].sentence.text == ANSWERS["What does a locker cost?"]
    assert ranking.confidence(ranked) > 0.5


def test_questions_without_answers_are_not_quoted(encoder: Encoder, tmp_path: Path) -> None:
    reader = ExtractiveReader(
        ranking=SentenceRanking(encoder, lexical_at(tmp_path)), tokens=encoder.tokens, min_confidence=0.0
    )
    asked = "When does the swimming hall open?"
    texts = ["\n\n".join(ANSWERS), asked.removesuffix("?")]
    assert replied(reader, evidence_of(encoder, asked, texts)).text == REFUSAL


def test_labels_of_questions_and_answers_are_mark_up() -> None:
    found = split_sentences("**Q1:** Opening hours\n**A1:** From nine. Until six.\nReply: none")
    assert [(each.text, each.question) for each in found] == [
        ("Opening hours", True), ("From nine.", False), ("Until six.", False), ("none", False)
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["Why?", "**Who pays?**", "Q: The price", "« Combien ? »", "何時ですか？"])
def test_a_paragraph_of_nothing_but_a_question_asks(text: str) -> None:
    assert asks(text)


@pytest.mark.parametrize("text", ["Why? Because.", "Note: it is wet.", "Quiet hours: none", "A: The price", ""])
def test_other_paragraphs_do_not_ask(text: str) -> None:
    assert not asks(text)


class Words:
    """Counts a word as a token."""

    def count(self, texts: list[str]) -> list[int]:
        return [len(text.split()) for text in texts]


@pytest.mark.parametrize("size", range(15, 30))
def test_no_passage_ends_with_a_question(size: int) -> None:
    (document,) = load(Path("a.txt"), LAYOUTS["paragraphs.txt"].encode())
    for chunk in chunk_document(document, Words(), ChunkingRule(size, size)):  # type: ignore[arg-type]
        assert not document.text[chunk.start : chunk.end].endswith("?")
