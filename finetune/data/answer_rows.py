"""Rows for the writer: prompts with evidence as the chain fills them, and the answers to learn."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from finetune.data.answer_wordings import Style, choose_refusal, worded_texts
from finetune.data.chat_rows import as_line
from finetune.data.found_evidence import FoundEvidence, FoundLine, Source
from finetune.data.instructions import Instruction
from finetune.data.sentence_forms import is_copyable, is_self_contained
from finetune.data.splits import plain
from finetune.data.target_filter import has_answer
from finetune.data.written_target import WrittenTarget
from prompts import Message, PromptTemplate, find_prompt
from rag.models.extractive.evidence_lines import MARK

Form = Literal["shipped"] | Style
Kind = Form | Literal["copied", "refusal", "general"]

PROMPT = "answer-from-evidence"
SHARES: Mapping[Form, float] = {
    "shipped": 0.56,
    "sentence": 0.14,
    "bare": 0.03,
    "short": 0.08,
    "explained": 0.06,
    "quote": 0.04,
    "bullets": 0.03,
    "json": 0.03,
    "steps": 0.03,
}
"""Forms of the rows with a written sentence; the shipped prompt asks for sentences, the other forms are worded."""
COPIED_SHARES: Mapping[Form, float] = {
    "shipped": 0.60,
    "sentence": 0.15,
    "quote": 0.10,
    "explained": 0.08,
    "bullets": 0.07,
}
COPIED_ROWS: Mapping[Source, int] = {"policyqa": 350, "documents": 900}
"""Maximum rows of the sources whose sentences are answers as they are."""
# Probability of the reader below which a written question is not taken to be answered.
ANSWERED = 0.5
MOST_GENERAL = 280
# Many refusals teach a small model to refuse what it could answer.
REFUSALS = 0.05
SHIPPED_REFUSALS = 0.7
# Unanswerable questions for which the reader is less sure are refused without the model.
SURE = 0.3
# The other questions are as they were typed, without a capital or a question mark.
TIDY = 0.85
# Copied sentences in an answer in sentences.
MOST_COPIED = 2
_LIST = re.compile(r",\s*(?:and\s+)?|\s+and\s+")


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """A prompt and the answer to learn.

    Attributes:
        kind: The form of the answer, or where the row is from; rows are counted by it.
        question: The question as it was asked; all rows with it belong to the same split.
    """

    kind: Kind
    question: str
    turns: tuple[Message, ...]
    completion: str

    @property
    def as_json(self) -> str:
        """A line as ``finetune.data.chat_rows`` reads it."""
        return as_line(self.turns, self.completion)


def answer_rows(
    evidence: Sequence[FoundEvidence],
    targets: Sequence[WrittenTarget],
    instructions: Sequence[Instruction],
    seed: int,
) -> list[AnswerRow]:
    """Return rows of all kinds in a random order.

    Args:
        evidence: What was found for the questions.
        targets: What was written for some of them.
        instructions: General instructions; held-out ones are left out.
        seed: Decides forms, wordings, choice and order. A row does not change when others are added.
    """
    found = {one.id: one for one in evidence}
    rows = [
        row
        for target in targets
        if target.id in found and (row := target_row(found[target.id], target, _rng(seed, target.id)))
    ]
    for source, most in COPIED_ROWS.items():
        copied = (copied_row(one, _rng(seed, one.id)) for one in evidence if one.source == source)
        rows += [row for row in copied if row][:most]
    refused = [one for one in evidence if not one.answers and one.lines and one.confidence > SURE]
    refused.sort(key=lambda one: one.id)
    rows += [refusal_row(one, _rng(seed, one.id)) for one in refused[: round(REFUSALS * len(rows))]]
    general = [one for one in instructions if not one.held_out][:MOST_GENERAL]
    rows += [
        AnswerRow("general", one.text, (Message(role="user", content=one.text),), one.reply) for one in general
    ]
    return _rng(seed, "order").sample(rows, len(rows))


def target_row(evidence: FoundEvidence, target: WrittenTarget, rng: random.Random) -> AnswerRow | None:
    """Build a row with a written sentence, or with the sentence of the evidence where none was kept.

    Returns:
        None if the sentence of the evidence cannot be understood alone.
    """
    sentence = target.sentence or (target.line if is_self_contained(target.line) else "")
    if not sentence:
        return None
    form = _choose(SHARES, rng)
    question = target.question if rng.random() < TIDY else evidence.question
    completion = _completion(form, sentence, target)
    return AnswerRow(form, evidence.question, _turns(form, question, evidence.lines, rng), completion)


def copied_row(evidence: FoundEvidence, rng: random.Random) -> AnswerRow | None:
    """Build a row that copies the sentences of a document that answer; None if there are none."""
    if evidence.source == "documents" and evidence.confidence < ANSWERED:
        return None
    lines = [(line.number, line.text.replace(MARK, "")) for line in evidence.lines]
    copied = [
        (number, text)
        for number, text in lines
        if is_copyable(text)
        and any(has_answer(text, answer) or plain(text) in plain(answer) for answer in evidence.answers)
    ]
    if not copied:
        return None
    form = _choose(COPIED_SHARES, rng)
    cited = [f"{text} [{number}]" for number, text in copied]
    if form == "quote":
        completion = f'"{copied[0][1]}" [{copied[0][0]}]'
    elif form == "bullets":
        completion = "\n".join(f"- {text}" for text in cited)
    else:
        completion = " ".join(cited[: {"shipped": MOST_COPIED, "sentence": 1}.get(form)])
    return AnswerRow("copied", evidence.question, _turns(form, evidence.question, evidence.lines, rng), completion)


def refusal_row(evidence: FoundEvidence, rng: random.Random) -> AnswerRow:
    """Build a row whose evidence does not answer."""
    form: Form = "shipped" if rng.random() < SHIPPED_REFUSALS else "sentence"
    refusal = choose_refusal(_shipped_refusal(), rng)
    turns = _turns(form, evidence.question, evidence.lines, rng, refusal)
    return AnswerRow("refusal", evidence.question, turns, refusal)


def _completion(form: Form, sentence: str, target: WrittenTarget) -> str:
    """Return the answer in its form, with the number of its evidence."""
    number, line, answer = target.number, target.line, target.answer
    cited = f"{sentence} [{number}]"
    if form == "bare":
        return sentence
    if form == "short":
        return f"{_capitalised(answer)} [{number}]"
    if form == "explained":
        ended = line if line.endswith((".", "!", "?")) else f"{line}."
        return cited if plain(line) == plain(sentence) else f"{cited} {ended} [{number}]"
    if form == "quote":
        return f'"{line}" [{number}]'
    if form == "bullets":
        parts = [part.strip() for part in _LIST.split(answer) if part.strip()]
        points = [_capitalised(part) for part in parts] if len(parts) > 1 else [sentence]
        return "\n".join(f"- {point} [{number}]" for point in points)
    if form == "json":
        return json.dumps({"answer": answer, "source": number}, ensure_ascii=False)
    if form == "steps":
        return f"1. The evidence says: {line} [{number}]\n2. {cited}"
    return cited


def _turns(
    form: Form, question: str, lines: Sequence[FoundLine], rng: random.Random, refusal: str | None = None
) -> tuple[Message, ...]:
    """Return the prompt: the shipped one, or one in other words.

    Args:
        form: The form of the answer.
        question: The question.
        lines: The evidence.
        rng: Decides the wording, and the refusal if there is none.
        refusal: The answer of a row that refuses.
    """
    prompt = _prompt()
    entries = "\n".join(
        prompt.fragment("evidence", {"number": str(line.number), "title": line.title, "text": line.text}).strip()
        for line in lines
    )
    must_refuse = refusal is not None
    refusal = refusal if refusal is not None else choose_refusal(_shipped_refusal(), rng)
    if form == "shipped":
        values = {"evidence": entries, "question": question, "refusal": refusal}
        return prompt.render(values)
    texts = worded_texts(
        form, evidence=entries, question=question, refusal=refusal, must_refuse=must_refuse, rng=rng
    )
    return (
        (Message(role="system", content=texts[0]), Message(role="user", content=texts[1]))
        if len(texts) > 1
        else (Message(role="user", content=texts[0]),)
    )


def _choose(shares: Mapping[Form, float], rng: random.Random) -> Form:
    return rng.choices(list(shares), list(shares.values()))[0]


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


@cache
def _prompt() -> PromptTemplate:
    return find_prompt(PROMPT)


def _shipped_refusal() -> str:
    return _prompt().fragment("refusal", {}).strip()


def _rng(seed: int, part: str) -> random.Random:
    return random.Random(f"{seed} answers {part}")
