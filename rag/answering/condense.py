"""Rewriting of follow-ups into standalone questions, without a chat model.

A chat model uses the ``condense`` prompt instead. Here, topic words of the conversation are added to a question
that refers back: a search needs the words, but no grammar.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rag.redaction import MASK, redact
from rag.types import Turn

# Words that refer to something mentioned before.
_POINTERS = frozenset("it its itself they them their theirs themselves he him his she her hers".split())
# After a topic in the same question, these usually refer to that topic: "Where does Chroma keep its files?"
_POSSESSIVES = frozenset("its their his her".split())
# Words that often refer back, but often do not in longer questions: "two jobs at once into one folder".
_PERHAPS = frozenset(
    "this that these those one ones there then such same former latter another other others else too also "
    "either neither both more".split()
)
# Beginnings of a question that continues the previous one.
_CONTINUES = re.compile(
    r"^(?:and|but|so|or|what about|how about|what else|why not|why|how so|really|anything else|any other)\b",
    re.IGNORECASE,
)
_QUESTION_WORDS = frozenset("what who whom whose when where why how which".split())
_STOP_WORDS = frozenset(
    "a an the and or but if so of in on at to for from by with about as into over under is are was were be "
    "been being am do does did done doing have has had having can could may might must shall should will "
    "would not no yes i me my mine we us our you your yours please tell give show explain say said get got "
    "make made use used need want know mean means like just only very much many any some all each every there "
    "here thing things way up down out off than let doesn't don't".split()
)
_WORD = re.compile(r"[^\W_](?:[\w'.-]*\w)?")
# Topic words of a standalone question without and with a word that may refer back. With the second number, a fifth
# of the handbook's questions, which all are standalone, are mistaken for follow-ups instead of a third, and all
# real follow-ups still find their page.
OWN_WORDS = 2
MANY_OWN_WORDS = 4
# Maximum earlier questions, and maximum words to add.
LOOK_BACK = 3
CARRIED = 8
# Maximum characters of a topic word; longer ones are keys, addresses or noise.
LONGEST_TOPIC = 80


def carry_topic(question: str, history: Sequence[Turn]) -> str:
    """Add topic words of the conversation to a question that refers back.

    Args:
        question: The question.
        history: Earlier turns, oldest first.

    Returns:
        A standalone question unchanged, else the question with the added words in parentheses.
    """
    if not history or not points_back(question):
        return question
    present = {word.casefold() for word in _WORD.findall(question)}
    carried: list[str] = []
    for turn in reversed(history[-LOOK_BACK:]):
        # Secrets are removed here, because they would not be recognised after splitting into words.
        for word in _WORD.findall(redact(turn.question).replace(MASK, " ")):
            folded = word.casefold()
            if len(word) <= LONGEST_TOPIC and _is_topic(folded) and folded not in present:
                present.add(folded)
                carried.append(word)
        # A standalone question names its topic, so earlier ones may be about another.
        if carried and not points_back(turn.question):
            break
    return f"{question} ({' '.join(carried[:CARRIED])})" if carried else question


def points_back(question: str) -> bool:
    """Whether a question cannot be understood without the conversation."""
    words = [word.casefold() for word in _WORD.findall(question)]
    topics = [_is_topic(word) for word in words]
    own = sum(topics)
    # A possessive after a topic refers to that topic.
    first = topics.index(True) if own else len(words)
    points = (word in _POINTERS and not (word in _POSSESSIVES and at > first) for at, word in enumerate(words))
    if _CONTINUES.match(question.strip()) or any(points):
        return True
    return own < (MANY_OWN_WORDS if any(word in _PERHAPS for word in words) else OWN_WORDS)


def _is_topic(word: str) -> bool:
    return not any(word in words for words in (_POINTERS, _PERHAPS, _STOP_WORDS, _QUESTION_WORDS))
