"""The errors of ragsmith.

RagsmithError
├── SettingsError          a setting is unknown, malformed or out of range
├── WorkspaceError         the workspace folder cannot be used
│   ├── WorkspaceBusy      another process is writing to it
│   └── StorageFull        the disk is full
├── StoreError             a store reports an error
│   ├── DatabaseError      SQLite or PostgreSQL
│   │   └── DatabaseTooNew migrated by a newer version of ragsmith
│   └── VectorStoreError   Chroma
├── CorpusError            a corpus is missing, empty, or indexed under another fingerprint
├── FilterError            a filter is malformed, or no document matches it
│   └── FilterSyntaxError  a word in a filter of traces is not understood
├── LoadError              a file cannot be turned into documents
├── EncoderError           the embedding model, or a network converted from it, is missing, altered or cannot run
├── AdapterError           an adapter is missing, damaged, or trained on another base
├── PromptError            a prompt is missing or does not match its variables
├── ModelError             a chat model fails to answer
│   ├── ModelUnavailable   no connection, or refused
│   │   └── ModelLimited   a limit of the server is reached
│   ├── ModelTimeout       too slow
│   ├── NoAnswer           the reply was filtered, refused, a tool call, or empty
│   └── ModelProtocolError the response cannot be understood
├── EvaluationError        an evaluation or its data cannot be used
│   └── DatasetError       a dataset, or a case of one, is missing or malformed
├── TuningError            the recipe, data or result of a training run cannot be used
│   └── TrainingDiverged   the loss of a training is not finite
├── TraceNotFound          no trace has that id
├── FeedbackError          the feedback of an answer cannot be reviewed
├── TraceFileError         a file of traces cannot be read or written
├── CollectorError         a collector of OpenTelemetry does not take traces
├── SpansRefused           spans that another program sends cannot be understood
├── ReleaseError           a release was not stored, or cannot be read
├── DeliveryError          what is pending cannot be sent to a tracker or a person
├── AlertError             an alert is missing, or its definition cannot be used
├── ReplayError            a trace cannot be replayed
├── QuestionTooLong        a question has too many characters
├── BudgetSpent            a budget of the settings is spent
└── Busy                   too many questions are being answered or waiting

The message says what is wrong and where; ``fix`` says what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rag.types import Usage


class RagsmithError(Exception):
    """The base class of all errors that a user can fix.

    Args:
        message: The problem and its location, in one sentence.
        fix: The remedy, in one sentence; empty if there is none.
    """

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message} {self.fix}".strip()


class SettingsError(RagsmithError):
    """A setting is unknown, malformed or out of range."""


class WorkspaceError(RagsmithError):
    """The workspace folder cannot be used."""


class WorkspaceBusy(WorkspaceError):
    """Another process is writing to the workspace."""


class StorageFull(WorkspaceError):
    """The disk is full."""


class StoreError(RagsmithError):
    """A store reports an error."""


class DatabaseError(StoreError):
    """SQLite or PostgreSQL reports an error."""


class DatabaseTooNew(DatabaseError):
    """A newer version of ragsmith has migrated the database."""


class VectorStoreError(StoreError):
    """Chroma reports an error."""


class CorpusError(RagsmithError):
    """A corpus is missing, empty, or indexed under another fingerprint."""


class FilterError(RagsmithError):
    """A filter is malformed, or no document matches it."""


class FilterSyntaxError(FilterError):
    """A word in a filter of traces is not understood.

    Args:
        start, end: Offsets of the first character of the word, and one past its last, in the filter.
    """

    def __init__(self, message: str, *, start: int, end: int, fix: str = "") -> None:
        super().__init__(message, fix=fix)
        self.start = start
        self.end = end


class LoadError(RagsmithError):
    """A file cannot be turned into documents."""


class EncoderError(RagsmithError):
    """The embedding model, or a network converted from it, is missing, altered or cannot run."""


class AdapterError(RagsmithError):
    """An adapter is missing, damaged, or trained on another base."""


class PromptError(RagsmithError):
    """A prompt is missing or does not match its variables."""


class ModelError(RagsmithError):
    """A chat model fails to answer."""


class ModelUnavailable(ModelError):
    """There is no connection to the model, or it refuses."""


class ModelLimited(ModelUnavailable):
    """A limit of the model server is reached, on requests or tokens in a time.

    Attributes:
        after_s: Seconds after which to ask again; None if the server does not say.
    """

    def __init__(self, message: str, *, fix: str = "", after_s: float | None = None) -> None:
        super().__init__(message, fix=fix)
        self.after_s = after_s


class ModelTimeout(ModelError):
    """The model is too slow."""


class NoAnswer(ModelError):
    """The model replied without an answer: filtered, refused, a tool call, only thoughts, or nothing.

    Attributes:
        usage: The tokens of the reply; None if unknown.
        filtered: Whether a content filter withheld it.
    """

    def __init__(self, message: str, *, fix: str = "", usage: Usage | None = None, filtered: bool = False) -> None:
        super().__init__(message, fix=fix)
        self.usage = usage
        self.filtered = filtered


class ModelProtocolError(ModelError):
    """The response of the model cannot be understood."""


class EvaluationError(RagsmithError):
    """An evaluation or its data cannot be used."""


class DatasetError(EvaluationError):
    """A dataset, or a case of one, is missing or malformed."""


class TuningError(RagsmithError):
    """The recipe, data or result of a training run cannot be used."""


class TrainingDiverged(TuningError):
    """The loss of a training is not finite."""


class TraceNotFound(RagsmithError):
    """No trace has that id."""


class FeedbackError(RagsmithError):
    """The feedback of an answer cannot be reviewed."""


class TraceFileError(RagsmithError):
    """A file of traces cannot be read or written."""


class CollectorError(RagsmithError):
    """A collector of OpenTelemetry does not answer, or does not take traces.

    Attributes:
        status: The HTTP status of its answer; None without one.
    """

    def __init__(self, message: str, *, fix: str = "", status: int | None = None) -> None:
        super().__init__(message, fix=fix)
        self.status = status


class SpansRefused(RagsmithError):
    """A request with spans of another program cannot be understood.

    Attributes:
        status: The HTTP status that says so: 400, 413 for one that is too large, 415 for an unknown format.
    """

    def __init__(self, message: str, *, fix: str = "", status: int = 400) -> None:
        super().__init__(message, fix=fix)
        self.status = status


class ReleaseError(RagsmithError):
    """A release was not stored, or cannot be read."""


class DeliveryError(RagsmithError):
    """What is pending cannot be sent to a tracker, or to the people who are to hear of an alert."""


class AlertError(RagsmithError):
    """An alert is missing, or its definition cannot be used."""


class ReplayError(RagsmithError):
    """A trace cannot be replayed."""


class QuestionTooLong(RagsmithError):
    """A question has more characters than ``limits.question_chars``."""


class BudgetSpent(RagsmithError):
    """The budget of a day or a conversation is spent."""


class Busy(RagsmithError):
    """Too many questions are being answered or waiting.

    Attributes:
        retry_after: Seconds after which to ask again.
    """

    def __init__(self, message: str, *, fix: str = "", retry_after: int = 1) -> None:
        super().__init__(message, fix=fix)
        self.retry_after = retry_after


@contextmanager
def prompt_errors(fix: str = "") -> Iterator[None]:
    """Translate the errors of ``prompts``.

    Args:
        fix: The remedy; empty if the message says it all.

    Raises:
        PromptError: A prompt is missing or malformed, or does not match its variables.
    """
    from prompts import PromptTemplateError

    try:
        yield
    except PromptTemplateError as error:
        raise PromptError(str(error), fix=fix) from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, without its full stop; its type where it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
