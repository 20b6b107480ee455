"""A follow-up becomes a question that stands alone.

With a chat model the ``condense`` prompt does it. Without one, the topic words of the conversation are added to
a question that points back: the search needs the words, and no reader needs the grammar.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rag.redaction import MASK, redact
from rag.types import Turn

# Words that stand for something said before.
_POINTERS = frozenset("it its itself they them their theirs themselves he him his she her hers".split())
# Behind a topic of the same question these most often stand for that one: "Where does Chroma keep its files?"
_POSSESSIVES = frozenset("its their his her".split())
# Words that often do, and in a longer question as often do not: "two jobs at once into one folder".
_PERHAPS = frozenset(
    "this that these those one ones there then such same former latter another other others else too also "
    "either neither both more".split()
)
# Openings of a question that continues the last one.
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
# A question with at least this many words of its own stands alone, unless a word points back. The second figure
# is for words that only perhaps do: with it a fifth of the handbook's questions, which all stand alone, are taken
# for follow-ups instead of a third, and all real follow-ups still find their page.
OWN_WORDS = 2
MANY_OWN_WORDS = 4
# How many earlier questions are looked at, and how many words are carried at most.
LOOK_BACK = 3
CARRIED = 8
# Characters of a word that can be a topic: what is longer is a key, an address or noise.
LONGEST_TOPIC = 80


def carry_topic(question: str, history: Sequence[Turn]) -> str:
    """Add the topic words of the conversation to a question that points back to it.

    Args:
        question: As it was asked.
        history: Earlier turns, oldest first.

    Returns:
        The question itself when it stands alone, else the question and the carried words in brackets.
    """
    if not history or not points_back(question):
        return question
    present = {word.casefold() for word in _WORD.findall(question)}
    carried: list[str] = []
    for turn in reversed(history[-LOOK_BACK:]):
        # A secret is no topic, and split into words it would not be recognised as one any more.
        for word in _WORD.findall(redact(turn.question).replace(MASK, " ")):
            folded = word.casefold()
            if len(word) <= LONGEST_TOPIC and _is_topic(folded) and folded not in present:
                present.add(folded)
                carried.append(word)
        # A question that stood alone named its topic; what came before it was another one.
        if carried and not points_back(turn.question):
            break
    return f"{question} ({' '.join(carried[:CARRIED])})" if carried else question


def points_back(question: str) -> bool:
    """Whether a question needs the conversation to be understood."""
    words = [word.casefold() for word in _WORD.findall(question)]
    topics = [_is_topic(word) for word in words]
    own = sum(topics)
    # A possessive behind a topic stands for that one.
    first = topics.index(True) if own else len(words)
    points = (word in _POINTERS and not (word in _POSSESSIVES and at > first) for at, word in enumerate(words))
    if _CONTINUES.match(question.strip()) or any(points):
        return True
    return own < (MANY_OWN_WORDS if any(word in _PERHAPS for word in words) else OWN_WORDS)


def _is_topic(word: str) -> bool:
    return not any(word in words for words in (_POINTERS, _PERHAPS, _STOP_WORDS, _QUESTION_WORDS))
