"""What passes between rooms: documents and passages, questions and answers, and what happens in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

BlockKind = Literal["heading", "text", "code", "row"]
Scalar = str | int | float | bool
Metadata = Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a document that its structure sets apart: a paragraph, a heading, a function, a table row.

    Attributes:
        start: First character, an offset into the document's text.
        end: One past the last character.
        kind: ``heading`` opens a section, ``row`` is a record of a table, ``code`` keeps its line breaks.
        headings: Titles of the sections around the block, outermost first; a heading includes itself.
        page: Page or slide, counted from 1, where the source has them.
    """

    start: int
    end: int
    kind: BlockKind = "text"
    headings: tuple[str, ...] = ()
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Document:
    r"""A loaded source. One file is one document, except JSON and JSONL, where each record is one.

    Attributes:
        text: The stored text that every offset refers to. Line ends are ``\n``; no NUL, no lone surrogates.
        blocks: In order of ``start``, without overlap; what they leave out is not indexed.
        title: The title found inside the source; None where there is none (the file name is not a title).
        record: Identity inside the file: the ``id`` of a record or its number; empty for whole files.
        metadata: What else the source says of itself.
        date: The date that the source carries inside (front matter, PDF information), if any.
    """

    text: str
    blocks: tuple[Block, ...]
    title: str | None = None
    record: str = ""
    metadata: Metadata = field(default_factory=dict)
    date: date | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage before it has a place in an index: offsets into its document's text."""

    start: int
    end: int
    headings: tuple[str, ...]
    page: int | None
    tokens: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk of a document, as an index holds it.

    Attributes:
        id: Number of the passage in the database.
        document_id: Number of the stored text that ``start`` and ``end`` refer to.
        source: Absolute path of the file; a record adds ``#`` and its id.
        name: The source as a person reads it: the path below the folder that was ingested.
        title: Title inside the source, else the file's name.
        text: Exactly ``stored_text[start:end]``.
        headings: Titles of the sections around it, outermost first.
        page: Page or slide, from 1, where the source has them.
    """

    id: int
    document_id: int
    source: str
    name: str
    title: str
    text: str
    start: int
    end: int
    headings: tuple[str, ...] = ()
    page: int | None = None
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found for a query, and why.

    Attributes:
        score: What the list is ordered by: the fused score, or that of the only side asked.
        dense_rank, lexical_rank: Place on each side, from 1; None where that side did not find it.
        dense_score: Cosine similarity, -1 to 1.
        lexical_score: BM25, 0 upwards.
        rerank_score: The reranker's score, where one ran.
    """

    passage: Passage
    score: float
    dense_rank: int | None = None
    dense_score: float | None = None
    lexical_rank: int | None = None
    lexical_score: float | None = None
    rerank_score: float | None = None


Step = Literal["condense", "retrieve", "prompt", "generate", "ground"]
STEPS: tuple[Step, ...] = ("condense", "retrieve", "prompt", "generate", "ground")
AnswerStatus = Literal["answered", "abstained", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier exchange of a conversation."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Ask:
    """One question.

    Attributes:
        history: Earlier turns of the conversation, oldest first.
        corpus: Name of the corpus; empty for the one in the settings.
        conversation_id: The conversation or run that the trace belongs to, if any.
        hits: Passages to answer from instead of searching; None searches.
    """

    question: str
    history: tuple[Turn, ...] = ()
    corpus: str = ""
    conversation_id: str | None = None
    hits: tuple[Hit, ...] | None = None


@dataclass(frozen=True, slots=True)
class Citation:
    """A marker ``[n]`` in an answer and the evidence behind it.

    Attributes:
        marker: The number in the answer; hit ``marker - 1`` of the answer's hits.
        start, end: The supporting sentence, offsets into the stored text of the document; both None where
            the quote could not be found, and then nothing is marked.
        support: How well the evidence carries the sentences that cite it, 0 to 1.
    """

    marker: int
    hit: Hit
    start: int | None
    end: int | None
    support: float


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of an answer as it was checked.

    Attributes:
        markers: The passages that it cites; empty where it cites none, and then all were looked at.
        support: How well they carry it, 0 to 1.
        start, end: First and one past the last character of the sentence in ``Answer.text``; both None where the
            answer is JSON, or was stored by a version that did not keep them.
        supported: Whether ``support`` reaches ``grounding.min_support`` of the release.
    """

    markers: tuple[int, ...]
    support: float
    start: int | None = None
    end: int | None = None
    supported: bool = True


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a model read and wrote; None where the model did not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer.

    Attributes:
        text: With markers ``[n]``; for ``abstained`` the refusal, for ``failed`` empty or what had been written.
        hits: All passages that reached the prompt, in order of their markers.
        citations: The markers that the text uses, in order of first use.
        claims: Its sentences, in order.
        support: Support of the least supported sentence, 0 to 1; None where nothing was claimed.
        standalone: The question as it was searched for.
        cost_usd: None is unknown, and never shown as 0.
        error: One sentence, for ``failed``.
        prompt: ``NAME@VERSION`` of the prompt that wrote it.
        spans: First and one past the last character in ``text`` of what answers the question, where the model
            knows more than its sentence.
        cut: Whether the model was ended by its token limit, and the answer by that.
        unread: Passages that were found and that the model's window had no room for.
        unsupported: Settings that were made and that the model does not honour.
    """

    text: str
    status: AnswerStatus
    hits: tuple[Hit, ...] = ()
    citations: tuple[Citation, ...] = ()
    support: float | None = None
    standalone: str = ""
    trace_id: str = ""
    latency_s: float = 0.0
    usage: Usage = Usage()
    cost_usd: float | None = None
    prompt: str = ""
    release: str = ""
    model: str = ""
    error: str = ""
    spans: tuple[tuple[int, int], ...] = ()
    cut: bool = False
    unread: int = 0
    unsupported: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()

    @property
    def unsupported_claims(self) -> tuple[Claim, ...]:
        """The sentences that their sources do not support, in order."""
        return tuple(claim for claim in self.claims if not claim.supported)

    @property
    def support_note(self) -> str:
        """How many sentences are not supported, for a person; empty where all are."""
        count = len(self.unsupported_claims)
        if not count:
            return ""
        return f"{'1 sentence is' if count == 1 else f'{count} sentences are'} not supported by the sources"

    def words_of(self, claim: Claim) -> str:
        """The sentence as it stands in the text; empty where its place is not known."""
        return "" if claim.start is None or claim.end is None else self.text[claim.start : claim.end]

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever reads the answer should know of how it came about."""
        left = "1 passage" if self.unread == 1 else f"{self.unread} passages"
        told = {
            "cut at the token limit": self.cut,
            f"{left} found did not fit the model's window": bool(self.unread),
            f"the model does not honour {', '.join(self.unsupported)}": bool(self.unsupported),
        }
        return tuple(note for note, holds in told.items() if holds)


@dataclass(frozen=True, slots=True)
class Started:
    """The first event: the trace that the answer is written to, also when it is stopped."""

    trace_id: str


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step of the chain began."""

    step: Step


@dataclass(frozen=True, slots=True)
class StepFinished:
    """A step of the chain ended after ``seconds``."""

    step: Step
    seconds: float


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The passages that the answer will be written from."""

    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the answer's text, in order."""

    text: str


@dataclass(frozen=True, slots=True)
class Cited:
    """A citation that was checked."""

    citation: Citation


@dataclass(frozen=True, slots=True)
class Done:
    """The last event: the answer, already traced."""

    answer: Answer


Event = Started | StepStarted | StepFinished | Retrieved | Token | Cited | Done


def whole(text: str) -> str:
    """The text without lone surrogates, which nothing takes: halves of a pair are joined, others become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
