"""Standalone questions from follow-ups: by topic words, and a check of what a small model writes.

A chat model rewrites a follow-up with the ``condense`` prompt. Without one, topic words of the conversation are
added to a question that refers back: a search needs the words, but no grammar. The same is done where a small
model fails.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from rag.answering.claim_numbers import KnownNumbers, without_numbers
from rag.answering.claim_text import CONNECTING, Stemmer, folded
from rag.documents.chunking import UNSPACED
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
_ELLIPSIS = re.compile(r"(?:and|but|or|what about|how about)\b", re.IGNORECASE)
# Question words that ask for a certain kind of answer, unlike "what" and "which".
_KIND = re.compile(
    r"(?:how (?:much|many|long|often|far|old|big|large|high|deep|fast|late|soon)|who|whose|when|where|why)\b",
    re.IGNORECASE,
)
_PREPOSITIONS = frozenset("of in on at to for from by with about under over during without".split())
_ARTICLES = frozenset("a an the my our your".split())
_QUESTION_WORDS = frozenset("what who whom whose when where why how which".split())
_STOP_WORDS = frozenset(
    "a an the and or but if so of in on at to for from by with about as into over under is are was were be "
    "been being am do does did done doing have has had having can could may might must shall should will "
    "would not no yes i me my mine we us our you your yours please tell give show explain say said get got "
    "make made use used need want know mean means like just only very much many any some all each every there "
    "here thing things way up down out off than let doesn't don't".split()
)
_UNSPACED = re.compile(f"[{UNSPACED}]")
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
    topic: list[_TopicWord] = []
    since = _since_topic(history)
    for asked in since:
        topic = [*_topic_words(asked), *_still_meant(topic, asked)]
    present = {word.casefold() for word in _WORD.findall(question)}
    meant: dict[str, str] = {}
    for word in _still_meant(topic, question):
        meant.setdefault(word.text.casefold(), word.text)
    carried = [text for folded, text in meant.items() if folded not in present][:CARRIED]
    if not carried:
        return question
    lead = _lead(since[0]) if _is_elliptic(question) else ""
    return f"{question} ({' '.join(filter(None, [lead, *carried]))})"


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
    """Whether a question cannot be understood without the conversation.

    Where words are not separated by spaces, no question does: its words are not known, and so not what they mean.
    """
    if _UNSPACED.search(question):
        return False
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


class _TopicWord(NamedTuple):
    """A topic word, and what tells it apart: the preposition before it, and whether it is a name."""

    text: str
    preposition: str
    is_name: bool


def _since_topic(history: Sequence[Turn]) -> list[str]:
    """Return the latest questions from the one that names their topic, oldest first."""
    latest: list[str] = []
    for turn in reversed(history[-LOOK_BACK:]):
        # Secrets are removed here, because they would not be recognised after splitting into words.
        latest.insert(0, redact(turn.question).replace(MASK, " "))
        # A standalone question names its topic, so earlier ones may be about another.
        if not points_back(turn.question) and any(map(_topic_words, latest)):
            break
    return latest


def _topic_words(question: str) -> list[_TopicWord]:
    found: list[_TopicWord] = []
    preposition = ""
    for number, word in enumerate(_WORD.findall(question)):
        folded = word.casefold()
        if folded in _PREPOSITIONS:
            preposition = folded
        elif len(word) <= LONGEST_TOPIC and _is_topic(folded):
            is_name = number > 0 and (word != folded or any(map(str.isdecimal, word)))
            found.append(_TopicWord(word, preposition, is_name))
    return found


def _still_meant(topic: list[_TopicWord], question: str) -> list[_TopicWord]:
    """Return the topic without what an elliptic question replaces, such as a place ("And in winter?").

    It replaces the words after the same preposition, else the names if it has names only, or the other words if it
    has none. Where all words of the topic are of one kind, it is not clear which are replaced, so all stay.
    """
    new = _topic_words(question)
    if not new or not _is_elliptic(question):
        return topic
    prepositions = {word.preposition for word in new} - {""}
    if any(word.preposition in prepositions for word in topic):
        return [word for word in topic if word.preposition not in prepositions]
    kinds = {word.is_name for word in new}
    kept = [word for word in topic if word.is_name not in kinds]
    return kept or topic


def _lead(question: str) -> str:
    """Return the question words that say what kind of answer is wanted; empty if none does.

    A reader takes any sentence about "windscreen replacement" for the answer to "And for the van?", but not to
    "how much windscreen replacement".
    """
    found = _KIND.match(question.strip())
    return found[0].lower() if found else ""


def _is_elliptic(question: str) -> bool:
    """Whether a question only names something else than the one before it: "What about a service?"."""
    lead = _ELLIPSIS.match(question.strip())
    if lead is None:
        return False
    rest = [word.casefold() for word in _WORD.findall(question.strip()[lead.end() :])]
    return all(_is_topic(word) or word in _PREPOSITIONS or word in _ARTICLES for word in rest)
