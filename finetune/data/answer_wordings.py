"""Instructions for an answer from evidence: a model that is trained on one wording follows no other."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Literal

Style = Literal["sentence", "bare", "short", "explained", "quote", "bullets", "json", "steps"]

INSTRUCTIONS: Mapping[Style, tuple[str, ...]] = {
    "sentence": (
        "Answer the question in one full sentence from the evidence, with the number of the evidence as [1].",
        "Use only the evidence. Write a complete sentence that answers the question and end it with the number of "
        "the evidence, like [2].",
        "You answer questions about documents. Reply with one or two sentences from the evidence, each followed "
        "by its number in brackets.",
        "Read the evidence and answer in full sentences. Cite the evidence by number.",
        "Write a short, complete answer. Cite the evidence that you used, as [1].",
    ),
    "bare": (
        "Answer in one full sentence from the evidence. Do not cite.",
        "Answer the question in a complete sentence, without the numbers of the evidence.",
    ),
    "short": (
        "Answer with a few words from the evidence and its number, as [1].",
        "Answer in as few words as possible, then give the number of the evidence in brackets.",
        "Give only the name, number or phrase that answers, with the number of the evidence.",
        "Reply with the shortest correct answer and cite it, as [2].",
    ),
    "explained": (
        "Answer the question in a full sentence, then explain it with what the evidence says. Cite after each "
        "sentence, as [1].",
        "Explain the answer in two or three sentences from the evidence, with their numbers.",
        "First give the answer in a sentence, then the sentence of the evidence that shows it. Cite each by "
        "number.",
    ),
    "quote": (
        "Answer only with a quotation: the sentence of the evidence that answers, in quotation marks, with its "
        "number.",
        "Quote the sentence that answers the question, word for word, and add its number, as [1].",
    ),
    "bullets": (
        "Answer as a bullet list, one point on each line, each with the number of the evidence.",
        "Write the answer as a list with dashes. Cite each point, as [1].",
    ),
    "json": (
        'Answer as a JSON object with the keys "answer" and "source".',
        'Reply with JSON only: {"answer": "…", "source": number of the evidence}.',
    ),
    "steps": (
        "Answer step by step: first what the evidence says, then the answer. Cite by number.",
        "Answer in two steps: the evidence that matters, then the answer, each with its number.",
    ),
}
REFUSING = (
    "If the evidence does not answer it, reply: ",
    "When it is not in the evidence, say: ",
    "Without an answer in the evidence, write exactly: ",
)
OTHER_REFUSALS = (
    "I do not know.",
    "Not in these documents.",
    "The evidence does not say.",
    "No answer found.",
)
# Share of the prompts with the shipped refusal.
USUAL_REFUSAL = 0.6
# Share of the worded prompts that say how to refuse, and that have a system message.
SAYS_HOW_TO_REFUSE, WITH_SYSTEM = 0.6, 0.8
_FORMS = (
    "{evidence}\n\nQuestion: {question}",
    "Evidence:\n{evidence}\n\nQuestion: {question}",
    "Question: {question}\n\nEvidence:\n{evidence}",
)
_FORM_SHARES = (0.6, 0.2, 0.2)


def choose_refusal(shipped: str, rng: random.Random) -> str:
    """Return the shipped refusal, or another one."""
    return shipped if rng.random() < USUAL_REFUSAL else rng.choice(OTHER_REFUSALS)


def worded_texts(
    style: Style, *, evidence: str, question: str, refusal: str, must_refuse: bool, rng: random.Random
) -> tuple[str, ...]:
    """Compose a randomly worded prompt; returns the system message, if there is one, and the user's.

    Args:
        style: The form of the answer.
        evidence: The numbered sentences.
        question: The question.
        refusal: The text to reply with if there is no answer.
        must_refuse: Whether the prompt always says how to refuse.
        rng: Decides the wording.
    """
    system = rng.choice(INSTRUCTIONS[style])
    if must_refuse or rng.random() < SAYS_HOW_TO_REFUSE:
        system = f"{system} {rng.choice(REFUSING)}{refusal}"
    user = rng.choices(_FORMS, _FORM_SHARES)[0].format(evidence=evidence, question=question)
    # Some self-hosted servers have no system message: everything then goes into one message.
    return (system, user) if rng.random() < WITH_SYSTEM else (f"{system}\n\n{user}",)
