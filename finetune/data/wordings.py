"""Alternative wordings of the prompts: a model trained on a single wording follows no other."""

from __future__ import annotations

import random

from prompts import Message, find_prompt

# Share of the rows that use the shipped prompts.
SHIPPED = 0.4
# Share of those that also use the shipped refusal, the first of ``REFUSALS``.
USUAL = 0.7

SHORT = (
    "in a few words",
    "with a name, a number or a short phrase",
    "as briefly as you can",
    "in at most ten words",
    "with the shortest answer that is right",
)
SENTENCE = (
    "in one full sentence",
    "with one sentence from the passages",
    "with the sentence that says it",
    "in a complete sentence",
    "in one sentence, word for word",
)
CITED = (
    "with the number of the passage",
    "and name the passage by its number, as [1]",
    "and end with the number of the passage that says so",
    "and cite the passage",
)
BARE = ("without a citation", "and give no numbers of passages", "")
OPENINGS = (
    "Answer the question from the passages",
    "Read the passages and answer the question",
    "Use the passages only. Answer",
    "You answer questions about documents. Answer",
    "Reply",
)
REFUSING = (
    "If they do not answer it, reply: {refusal}",
    "When the passages do not say, write exactly: {refusal}",
    "Where there is no answer, say: {refusal}",
    "If the answer is not there, reply with this sentence only: {refusal}",
)
REFUSALS = (
    "The documents do not answer this question.",
    "I do not know.",
    "Not in these documents.",
    "No answer found.",
    "The passages do not say.",
    "Nothing here answers that.",
)
CONDENSE = (
    "Rewrite the last question so that it can be understood without the conversation.",
    "Turn the last question into one that stands alone. Reply with the question only.",
    "Make the follow-up question complete: put names in the place of pronouns.",
)
ASK = (
    "Write a question that this text answers.",
    "Ask one question about the text.",
    "Which question does this text answer? Write it down.",
    "Make a question for a quiz out of this text.",
)
ASK_FOR = ("Its answer should be: {answer}", "Ask for: {answer}", "The answer is: {answer}")
GO_ON = "Continue the text."


def answer_texts(
    rng: random.Random, *, short: bool, cited: bool, question: str, passages: str, refusal: str
) -> tuple[str, ...]:
    """Compose a randomly worded prompt for an answer; returns its messages."""
    form = rng.choice(SHORT if short else SENTENCE)
    system = " ".join(
        part
        for part in (
            f"{' '.join((rng.choice(OPENINGS), form, rng.choice(CITED if cited else BARE))).strip()}.",
            rng.choice(REFUSING).format(refusal=refusal),
        )
    )
    user = rng.choice(
        (
            f"{passages}\n\nQuestion: {question}",
            f"Passages:\n\n{passages}\n\nQuestion: {question}",
            f"Question: {question}\n\n{passages}",
            f"{question}\n\n{passages}",
        )
    )
    # Some self-hosted servers have no system message: everything then goes into one message.
    return (system, user) if rng.random() < 0.85 else (f"{system}\n\n{user}",)


def shipped_texts(name: str, **values: str) -> tuple[str, ...]:
    """Render a shipped prompt; returns its messages."""
    messages: tuple[Message, ...] = find_prompt(name).render(values)
    return tuple(message.content for message in messages)
