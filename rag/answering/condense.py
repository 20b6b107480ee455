"""Standalone questions from follow-ups: by topic words, and a check of what a small model writes.

A chat model rewrites a follow-up with the ``condense`` prompt. Without one, topic words of the conversation are
added to a question that refers back: a search needs the words, but no grammar. The same is done where a small
model fails.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rag.answering.claim_numbers import KnownNumbers, without_numbers
from rag.answering.claim_text import CONNECTING, Stemmer, folded
from rag.documents.citation_markers import without_markers
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
# Maximum characters of a question that a small model writes: the longest of 1,500 that people rewrote had 260.
LONGEST_REWRITE = 300
# Maximum characters of an earlier question or answer that a small model reads.
LONGEST_READ = 400
# Content words with which people complete a question, besides those that join others.
_COMPLETING = CONNECTING | frozenset(
    "aside addition besides regard regards regarding concerning people person".split()
)


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


def shortened(history: Sequence[Turn]) -> tuple[Turn, ...]:
    """Return turns as a small model reads them: short, and without citation markers."""
    return tuple(
        Turn(turn.question[:LONGEST_READ], without_markers(turn.answer[:LONGEST_READ])) for turn in history
    )


def is_rewrite(text: str, question: str, history: Sequence[Turn]) -> bool:
    """Whether a text that a small model wrote can replace a follow-up.

    It cannot if it is empty, long, not exactly one question, a copy of the follow-up or of an earlier question, or
    if it has numbers or content words that the conversation does not have. A follow-up without a question mark may
    stay without one, if it begins as before.

    Args:
        text: What the model wrote.
        question: The follow-up.
        history: Earlier turns.
    """
    asked = [question, *(turn.question for turn in history)]
    if not text.strip() or len(text) > LONGEST_REWRITE or len(text.splitlines()) > 1:
        return False
    bare = _bare(text)
    asks = text.rstrip().endswith("?") or ("?" not in question and bare[:1] == _bare(question)[:1])
    if not asks or text.count("?") > max(1, question.count("?")) or bare in map(_bare, asked):
        return False
    stemmer = Stemmer()
    written, known = folded(text), [folded(known) for known in (*asked, *(turn.answer for turn in history))]
    stems = {stem for each in known for stem in stemmer.stems(each)}
    invented = [word for word, stem in stemmer.by_word(without_numbers(written)).items() if stem not in stems]
    return set(invented) <= _COMPLETING and not KnownNumbers(known).missing_from(written)


def _bare(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


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
