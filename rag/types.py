"""Types that pass between rooms: documents and passages, questions and answers, and events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator

BlockKind = Literal["heading", "text", "code", "row"]
Scalar = str | int | float | bool
Metadata = Mapping[str, Scalar]


def current_model(name: str) -> str:
    """Return the current name of a model; older settings and answers call the extractive reader ``embedded``."""
    return "extractive" if name == "embedded" else name


ModelName = Annotated[str, AfterValidator(current_model)]


@dataclass(frozen=True, slots=True)
class Block:
    """A structural unit of a document: a paragraph, a heading, a function, a table row.

    Attributes:
        start: Offset of the first character in the document's text.
        end: Offset past the last character.
        kind: ``heading`` starts a section, ``row`` is a record of a table, ``code`` keeps its line breaks.
        headings: Titles of the sections around the block, outermost first; a heading includes itself.
        page: Page or slide, from 1, if the source has them.
    """

    start: int
    end: int
    kind: BlockKind = "text"
    headings: tuple[str, ...] = ()
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Document:
    r"""A loaded source: a whole file, or one record of a JSON or JSONL file.

    Attributes:
        text: The stored text that every offset refers to. Line ends are ``\n``; no NUL, no lone surrogates.
        blocks: Blocks in order of ``start``, without overlap; text outside of them is not indexed.
        title: Title inside the source; None if there is none (the file name is not a title).
        record: Id or number of the record in its file; empty for whole files.
        metadata: Other metadata of the source.
        date: Date inside the source (front matter, PDF information), if any.
    """

    text: str
    blocks: tuple[Block, ...]
    title: str | None = None
    record: str = ""
    metadata: Metadata = field(default_factory=dict)
    date: date | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage before it is indexed: offsets into its document's text."""

    start: int
    end: int
    headings: tuple[str, ...]
    page: int | None
    tokens: int


@dataclass(frozen=True, slots=True)
class Passage:
    """An indexed chunk of a document.

    Attributes:
        id: Id of the passage in the database.
        document_id: Id of the stored text that ``start`` and ``end`` refer to.
        source: Absolute path of the file; a record adds ``#`` and its id.
        name: Display name of the source: the path below the ingested folder.
        title: Title inside the source, else the file's name.
        text: Exactly ``stored_text[start:end]``.
        headings: Titles of the sections around it, outermost first.
        page: Page or slide, from 1, if the source has them.
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
    """A passage found for a query, with its ranks and scores.

    Attributes:
        score: Score that orders the list: the fused score, or that of the only side searched.
        dense_rank, lexical_rank: Rank on either side, from 1; None if that side did not find it.
        dense_score: Cosine similarity, -1 to 1.
        lexical_score: BM25, 0 upwards.
        rerank_score: The reranker's score, if there is a reranker.
    """

    passage: Passage
    score: float
    dense_rank: int | None = None
    dense_score: float | None = None
    lexical_rank: int | None = None
    lexical_score: float | None = None
    rerank_score: float | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """A passage that a search found and left out.

    Attributes:
        hit: Its place, ranks and scores, with the first characters of its text.
        reason: ``near-duplicate`` of a better passage, or ``rank``: there were enough better ones.
        better: Id of the better passage, for a near-duplicate.
    """

    hit: Hit
    reason: Literal["near-duplicate", "rank"]
    better: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a search: at most ``k`` hits, best first, and some of the passages that it left out."""

    hits: tuple[Hit, ...]
    dropped: tuple[Dropped, ...] = ()


MaskedKind = Literal["email", "phone", "card", "iban", "ip", "secret"]
"""A kind of data that can be masked before it is written."""

Step = Literal["condense", "retrieve", "read", "prompt", "generate", "ground"]
STEPS: tuple[Step, ...] = ("condense", "retrieve", "read", "prompt", "generate", "ground")
AnswerStatus = Literal["answered", "abstained", "cancelled", "failed"]
FaultKind = Literal["number", "name", "negation", "words", "echo", "answer", "refusal"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier exchange of a conversation."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions on a passage; None means no condition.

    Attributes:
        source: Path or name of the source, or the file name alone.
        title: Title, compared case-insensitively.
        glob: Pattern for the path or the name, such as ``*/guides/*.md``.
        page: Page, from 1.
        after, before: Range of the document's date, both ends included.
        where: Names and values of metadata, compared case-insensitively; of a list, one item is enough.
    """

    source: str | None = None
    title: str | None = None
    glob: str | None = None
    page: int | None = None
    after: date | None = None
    before: date | None = None
    where: tuple[tuple[str, str], ...] = ()

    @property
    def by_document(self) -> bool:
        """Whether there is a condition on the document, beyond the page."""
        return any((self.source, self.title, self.glob, self.after, self.before, self.where))


Purpose = Literal["chat", "api", "command", "lab", "evaluation", "external"]
"""What a question is asked for; ``external`` for the traces of other programs."""
PURPOSES: tuple[Purpose, ...] = ("chat", "api", "command", "lab", "evaluation", "external")


@dataclass(frozen=True, slots=True)
class Ask:
    """One question.

    Attributes:
        history: Earlier turns of the conversation, oldest first.
        corpus: Name of the corpus; empty for the one in the settings.
        conversation_id: The conversation or run that the trace belongs to, if any.
        hits: Passages to answer from instead of searching; None searches.
        filters: Conditions on the passages that are searched; None searches all.
        paced: Whether the caller itself waits when a limit of the model server is reached; the answer then fails
            at once, as ``limited``.
        purpose: What the question is asked for.
        user: Name of the user who asks, if known.
        replay_of: Id of the trace that is replayed; empty for a new question.
    """

    question: str
    history: tuple[Turn, ...] = ()
    corpus: str = ""
    conversation_id: str | None = None
    hits: tuple[Hit, ...] | None = None
    filters: Filters | None = None
    paced: bool = False
    purpose: Purpose = field(default="chat", repr=False)
    user: str = field(default="", repr=False)
    replay_of: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Citation:
    """A marker ``[n]`` in an answer and the evidence behind it.

    Attributes:
        marker: Number in the answer, which refers to hit ``marker - 1`` of the answer's hits.
        start, end: Offsets of the supporting sentence in the stored text of the document; both None if the quote
            was not found, so that nothing is highlighted.
        support: Support of the citing sentences by the evidence, 0 to 1.
    """

    marker: int
    hit: Hit
    start: int | None
    end: int | None
    support: float


@dataclass(frozen=True, slots=True)
class Claim:
    """A checked sentence of an answer.

    Attributes:
        markers: Markers of the cited passages; empty if it cites none, so that all passages were checked.
        support: Support of the sentence by these passages, 0 to 1.
        start, end: Offsets of the sentence in ``Answer.text``; both None if the answer is JSON, or was stored by a
            version that did not record them.
        supported: Whether ``support`` reaches ``grounding.min_support`` of the release.
    """

    markers: tuple[int, ...]
    support: float
    start: int | None = None
    end: int | None = None
    supported: bool = True


@dataclass(frozen=True, slots=True)
class Replaced:
    """A sentence that a model wrote and its sources contradict or do not contain.

    Attributes:
        sentence: The sentence as it was written, on one line and without markers.
        kind: What is wrong with it: a ``number`` or a ``name`` is not in the sources, a ``negation`` differs from
            them, too many ``words`` are not in them, or it is an ``echo`` of the question or says nothing.
        words: The words at fault.
        quotation: The sentence of the sources in its place; None if the written one was left, as in JSON.
    """

    sentence: str
    kind: FaultKind
    words: tuple[str, ...]
    quotation: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Token usage of a model; None if the model did not report it.

    Attributes:
        cached_tokens: Those of the input tokens that the server had read before, which cost less.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Add the usage of another call; unknown if either is unknown."""
        return Usage(
            _added(self.input_tokens, other.input_tokens),
            _added(self.output_tokens, other.output_tokens),
            self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer.

    Attributes:
        text: Text with markers ``[n]``; the refusal for ``abstained``, empty or partial for ``failed``.
        hits: All passages in the prompt, in order of their markers.
        citations: The markers in the text, in order of first use.
        claims: The sentences of the text, in order.
        support: Support of the least supported sentence, 0 to 1; None if there are no claims.
        standalone: The standalone question used for retrieval.
        cost_usd: Cost of the answer; None means unknown and is never shown as 0.
        error: Description of the failure in one sentence, for ``failed``.
        prompt: ``NAME@VERSION`` of the prompt.
        spans: Offsets in ``text`` of the words that answer the question, if the model knows them.
        cut: Whether the token limit truncated the answer.
        unsupported: Settings that the model does not support.
        replaced: The written sentences that failed the check of claims, in order.
        filtered: Whether a content filter ended the answer, or withheld all of it.
        limited: Whether it failed because a limit of the model server is reached.
        limited_s: Seconds after which to ask again then; None if the server does not say.
        budget: Notice that most of a budget is spent; else empty.
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
    model: ModelName = ""
    error: str = ""
    spans: tuple[tuple[int, int], ...] = ()
    cut: bool = False
    unsupported: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    replaced: tuple[Replaced, ...] = ()
    filtered: bool = False
    limited: bool = False
    limited_s: float | None = None
    budget: str = ""

    @property
    def unsupported_claims(self) -> tuple[Claim, ...]:
        """Sentences that their sources do not support, in order."""
        return tuple(claim for claim in self.claims if not claim.supported)

    @property
    def support_note(self) -> str:
        """Notice about unsupported sentences for users; empty if all are supported."""
        count = len(self.unsupported_claims)
        if not count:
            return ""
        return f"{'1 sentence is' if count == 1 else f'{count} sentences are'} not supported by the sources"

    def words_of(self, claim: Claim) -> str:
        """Return the text of a claim; empty if its offsets are unknown."""
        return "" if claim.start is None or claim.end is None else self.text[claim.start : claim.end]

    def claims_citing(self, marker: int) -> tuple[Claim, ...]:
        """Return the sentences that cite a passage, in order."""
        return tuple(claim for claim in self.claims if marker in claim.markers)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notices about the answer for its readers."""
        notes = {
            "cut at the token limit": self.cut,
            "ended early by a content filter": self.filtered and self.status != "failed",
            f"the model does not honour {', '.join(self.unsupported)}": bool(self.unsupported),
            self.budget: bool(self.budget),
        }
        return tuple(note for note, applies in notes.items() if applies)


@dataclass(frozen=True, slots=True)
class Started:
    """The first event, with the id of the answer's trace."""

    trace_id: str


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step of the chain started."""

    step: Step


@dataclass(frozen=True, slots=True)
class StepFinished:
    """A step of the chain ended after ``seconds``."""

    step: Step
    seconds: float


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The passages for the answer."""

    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the answer's text, in order."""

    text: str


@dataclass(frozen=True, slots=True)
class Cited:
    """A checked citation."""

    citation: Citation


@dataclass(frozen=True, slots=True)
class Done:
    """The last event: the answer, whose trace is complete."""

    answer: Answer


Event = Started | StepStarted | StepFinished | Retrieved | Token | Cited | Done


def _added(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second


def whole(text: str) -> str:
    """Repair lone surrogates in a text: halves of a pair are joined, others become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
