"""Every error that ragsmith raises on purpose.

RagsmithError
├── SettingsError          a setting is unknown, malformed or out of range
├── WorkspaceError         the workspace folder cannot be used
│   ├── WorkspaceBusy      another process is writing to it
│   └── StorageFull        the disk has no room left
├── StoreError             a store refuses its work
│   ├── DatabaseError      SQLite or PostgreSQL
│   │   └── DatabaseTooNew migrated by a newer version of ragsmith
│   └── VectorStoreError   Chroma
├── CorpusError            a corpus is missing, empty, or indexed under another fingerprint
├── LoadError              a file cannot be turned into documents
├── EncoderError           the embedding model, or a network converted from it, is missing, altered or cannot run
├── AdapterError           an adapter is missing, damaged, or made for another base
├── PromptError            a prompt is missing or does not fit its variables
├── ModelError             a chat model gives no answer
│   ├── ModelUnavailable   no connection, or refused
│   ├── ModelTimeout       too slow
│   └── ModelProtocolError what came back cannot be understood
├── EvaluationError        what is to be measured cannot be read
│   └── DatasetError       a dataset, or a case of one, is missing or malformed
├── TuningError            a training's recipe, data or result cannot be used
├── TraceNotFound          no trace has that id
├── QuestionTooLong        a question has more characters than are taken
└── Busy                   as many questions as are taken are being answered or wait

The message says what is wrong and where; ``fix`` says what to do about it.
"""

from __future__ import annotations


class RagsmithError(Exception):
    """The root: catching it catches everything that a user can fix.

    Args:
        message: What is wrong, and where, in one sentence.
        fix: What to do about it, in one sentence; empty where nothing can be done.
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
    """The disk has no room left."""


class StoreError(RagsmithError):
    """A store refuses its work."""


class DatabaseError(StoreError):
    """SQLite or PostgreSQL refuses its work."""


class DatabaseTooNew(DatabaseError):
    """A newer version of ragsmith has migrated the database."""


class VectorStoreError(StoreError):
    """Chroma refuses its work."""


class CorpusError(RagsmithError):
    """A corpus is missing, empty, or indexed under another fingerprint."""


class LoadError(RagsmithError):
    """A file cannot be turned into documents."""


class EncoderError(RagsmithError):
    """The embedding model, or a network converted from it, is missing, altered or cannot run."""


class AdapterError(RagsmithError):
    """An adapter is missing, damaged, or made for another base."""


class PromptError(RagsmithError):
    """A prompt is missing or does not fit its variables."""


class ModelError(RagsmithError):
    """A chat model gives no answer."""


class ModelUnavailable(ModelError):
    """There is no connection to the model, or it refuses."""


class ModelTimeout(ModelError):
    """The model is too slow."""


class ModelProtocolError(ModelError):
    """What the model sent back cannot be understood."""


class EvaluationError(RagsmithError):
    """What is to be measured cannot be read."""


class DatasetError(EvaluationError):
    """A dataset, or a case of one, is missing or malformed."""


class TuningError(RagsmithError):
    """A training's recipe, data or result cannot be used."""


class TraceNotFound(RagsmithError):
    """No trace has that id."""


class QuestionTooLong(RagsmithError):
    """A question has more characters than ``limits.question_chars``."""


class Busy(RagsmithError):
    """As many questions as are taken are being answered or wait.

    Attributes:
        retry_after: Seconds after which to ask again.
    """

    def __init__(self, message: str, *, fix: str = "", retry_after: int = 1) -> None:
        super().__init__(message, fix=fix)
        self.retry_after = retry_after


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, without its full stop; its type where it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
