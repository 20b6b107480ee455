"""The training data of the writer, made in a folder.

``about.json``         what the data are made from, and what they contain; replaced atomically
``questions.jsonl``    the questions about technical documents, appended as they are written
``evidence.jsonl``     what was found for each question, appended as it is found
``targets.jsonl``      the sentences that the base wrote, appended as they are written
``answers.jsonl``      the rows to train on; replaced atomically
``validation.jsonl``   the rows to validate on, about other questions; replaced atomically
``lock``               locked while a process works
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from finetune.data.answer_rows import AnswerRow, answer_rows
from finetune.data.document_questions import (
    DOCUMENTS,
    QUESTIONER,
    QUESTIONS,
    WrittenQuestion,
    document_sentences,
    searching_documents,
    write_questions,
)
from finetune.data.found_evidence import (
    POLICIES,
    READER,
    SEARCHES,
    Asked,
    FoundEvidence,
    asked_about,
    asked_questions,
    find_evidence,
    searching_asked,
    shipped_reader,
)
from finetune.data.instructions import DOLLY, read_instructions
from finetune.data.record_file import RecordFile
from finetune.data.splits import SQUAD, XQUAD, plain
from finetune.data.written_target import WrittenTarget, target_request, write_targets
from finetune.text_sampler import TextSampler
from prompts.files import atomic_write
from rag.encoders.adapters import find_adapter
from rag.errors import TuningError
from rag.models.local.local_adapters import AdapterFiles, find_lora
from rag.models.local.local_files import LocalFiles
from rag.models.local.shipped_base import SHA256, prepare_base
from rag.workspace import Workspace, disk_errors

if TYPE_CHECKING:
    from rag.retrieval.retriever import Retriever

ANSWERS, VALIDATION = "answers.jsonl", "validation.jsonl"
ABOUT = "about.json"
# Increment when the same data would give other evidence or sentences.
FORMAT = 2
# Sentences that are written at most, at about one a second.
TARGETS = 2_000
# One in this many questions is validated on, up to a number of rows.
VALIDATED, VALIDATION_ROWS = 12, 150
SEED = 1
LICENCES = (
    "CC BY-SA 4.0 (SQuAD 2.0)",
    "CC BY-SA 3.0 (Natural Questions passages from Wikipedia; Dolly)",
    "MIT (NQ-Open; PolicyQA; documentation of FastAPI)",
    "Apache-2.0 (documentation of PEFT and TRL; SmolLM2, which wrote sentences and questions)",
)
_INPUTS = (SQUAD, XQUAD, SEARCHES, POLICIES, DOLLY, *DOCUMENTS)


class Made(BaseModel):
    """A finished file: its number of rows and its hash."""

    model_config = ConfigDict(frozen=True)

    rows: int
    sha256: str


class About(BaseModel):
    """What the data of a folder are made from, and what they contain.

    Attributes:
        questions: Maximum number of questions of each source; None for all.
        inputs: Hash of every file and folder that is read.
        base, questioner, reader: The models that wrote the sentences and the questions, and found the evidence.
        kinds: Number of rows of each kind.
        files: The finished files; none while the data are being made.
    """

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    seed: int
    questions: int | None
    inputs: Mapping[str, str]
    base: str
    questioner: str
    reader: str
    licences: tuple[str, ...] = LICENCES
    kinds: Mapping[str, int] = {}
    files: Mapping[str, Made] = {}


@dataclass(frozen=True, slots=True)
class Making:
    """Progress of one step.

    Attributes:
        what: The step.
        left_s: Estimated time left for this step, in seconds; None if unknown.
    """

    what: str
    done: int
    total: int
    left_s: float | None = None


class WriterData:
    """Makes the data in a folder, or the rest of them where a process has stopped.

    Args:
        data: The folder of the training data that is read.
        folder: The folder to write.
        workspace: The workspace with the models.
        seed: Decides every choice.
        questions: Maximum number of questions of each source, for a trial.
        base: The model that writes sentences and questions; by default ``smollm2`` with its questioner.
    """

    def __init__(
        self,
        data: Path,
        folder: Path,
        workspace: Workspace,
        *,
        seed: int = SEED,
        questions: int | None = None,
        base: LocalFiles | None = None,
    ) -> None:
        self._data = data
        self._folder = folder
        self._workspace = workspace
        self._seed = seed
        self._questions = questions
        self._base = base
        self._written_questions = RecordFile(folder / "questions.jsonl", WrittenQuestion)
        self._evidence = RecordFile(folder / "evidence.jsonl", FoundEvidence)
        self._targets = RecordFile(folder / "targets.jsonl", WrittenTarget)

    def make(self, show: Callable[[Making], None]) -> About:
        """Make what is missing, and return what the folder contains.

        Args:
            show: Called with the progress.

        Raises:
            TuningError: The data are missing or malformed, or the folder is another process's, or was made from
                other data.
            StorageFull, WorkspaceError: The folder cannot be written.
        """
        with self._locked():
            about = self._begin()
            asked = asked_questions(self._data, self._seed, self._questions)
            evidence = self._all_evidence(asked, searching_asked(asked), show)
            evidence += self._evidence_of_documents(show)
            targets = self._all_targets(evidence, show)
            instructions = list(read_instructions(self._data / DOLLY))
            rows = answer_rows(evidence, targets, instructions, self._seed)
            training, validation = split_rows(rows)
            files = {ANSWERS: self._write(ANSWERS, training), VALIDATION: self._write(VALIDATION, validation)}
            kinds = dict(sorted(Counter(row.kind for row in rows).items()))
            about = about.model_copy(update={"kinds": kinds, "files": files})
            self._save(about)
            return about

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        with disk_errors(f"write {self._folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._folder / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise TuningError(
                f"Another process is making the data in {self._folder}.", fix="Wait for it, or stop it."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _begin(self) -> About:
        """Check that the folder belongs to these data and models, and say so in it."""
        about = About(
            seed=self._seed,
            questions=self._questions,
            inputs={str(path): _sha256(self._data / path) for path in _INPUTS},
            base=self._base.sha256() if self._base is not None else SHA256,
            questioner=questioner.identity if (questioner := self._questioner()) is not None else "none",
            reader=find_adapter(READER, self._workspace).identity,
        )
        path = self._folder / ABOUT
        if path.is_file():
            try:
                stored = About.model_validate_json(path.read_bytes())
            except ValidationError:
                stored = None
            made_from = {"format", "seed", "questions", "inputs", "base", "questioner", "reader"}
            if stored is None or stored.model_dump(include=made_from) != about.model_dump(include=made_from):
                raise TuningError(
                    f"The folder {self._folder} was made from other data, models or options.",
                    fix="Choose another folder with --to, or delete it.",
                )
        self._save(about)
        return about

    def _evidence_of_documents(self, show: Callable[[Making], None]) -> list[FoundEvidence]:
        with searching_documents(self._data) as retriever:
            sentences = document_sentences(retriever, self._seed, self._questions or QUESTIONS)
            questions = self._all_questions(sentences, show)
            asked = [asked_about(one.sentence, one.question) for one in questions if one.question]
            return self._all_evidence(asked, nullcontext(retriever), show)

    def _all_questions(self, sentences: Sequence[str], show: Callable[[Making], None]) -> list[WrittenQuestion]:
        written = {one.sentence: one for one in self._written_questions.read()}
        missing = [one for one in sentences if one not in written]
        pace = _Pace(Making("questions", len(sentences) - len(missing), len(sentences)), show)
        if missing:
            sampler = self._sampler(self._questioner())
            pace.start()
            for some in write_questions(missing, sampler):
                self._written_questions.append(some)
                written |= {one.sentence: one for one in some}
                pace.advance(len(some))
        return [written[one] for one in sentences]

    def _all_evidence(
        self,
        asked: Sequence[Asked],
        searching: AbstractContextManager[Retriever],
        show: Callable[[Making], None],
    ) -> list[FoundEvidence]:
        found = {one.id: one for one in self._evidence.read()}
        missing = [one for one in asked if one.id not in found]
        pace = _Pace(Making("evidence", len(asked) - len(missing), len(asked)), show)
        if missing:
            reader = shipped_reader(self._workspace)
            with searching as retriever:
                pace.start()
                for one in find_evidence(missing, retriever, reader, self._seed):
                    self._evidence.append([one])
                    found[one.id] = one
                    pace.advance(1)
        return [found[one.id] for one in asked]

    def _all_targets(
        self, evidence: Sequence[FoundEvidence], show: Callable[[Making], None]
    ) -> list[WrittenTarget]:
        requests = [request for one in evidence if (request := target_request(one)) is not None][:TARGETS]
        written = {one.id: one for one in self._targets.read()}
        missing = [one for one in requests if one.id not in written]
        pace = _Pace(Making("sentences", len(requests) - len(missing), len(requests)), show)
        if missing:
            sampler = self._sampler()
            pace.start()
            for some in write_targets(missing, sampler, self._seed):
                self._targets.append(some)
                written |= {one.id: one for one in some}
                pace.advance(len(some))
        return [written[one.id] for one in requests]

    def _sampler(self, adapter: AdapterFiles | None = None) -> TextSampler:
        models = self._workspace.models
        return TextSampler(self._base or prepare_base(models), models, adapter)

    def _questioner(self) -> AdapterFiles | None:
        """The adapter that writes questions; None for another base, which it does not match."""
        return find_lora(QUESTIONER, self._workspace.adapters) if self._base is None else None

    def _write(self, name: str, rows: Sequence[AnswerRow]) -> Made:
        content = "".join(f"{row.as_json}\n" for row in rows).encode()
        with disk_errors(f"write {self._folder / name}"), atomic_write(self._folder / name) as file:
            file.write(content)
        return Made(rows=len(rows), sha256=hashlib.sha256(content).hexdigest())

    def _save(self, about: About) -> None:
        path = self._folder / ABOUT
        with disk_errors(f"write {path}"), atomic_write(path) as file:
            file.write(f"{about.model_dump_json(indent=2)}\n".encode())


def split_rows(rows: Sequence[AnswerRow]) -> tuple[list[AnswerRow], list[AnswerRow]]:
    """Return the rows to train on, and those to validate on, which are about other questions.

    Questions are chosen by their hash, so that the choice does not depend on the other rows.
    """
    by_question: dict[str, int] = Counter(plain(row.question) for row in rows)
    hashes = {question: int(hashlib.sha256(question.encode()).hexdigest(), 16) for question in by_question}
    validated: set[str] = set()
    count = 0
    for question in sorted(hashes, key=lambda question: hashes[question]):
        if hashes[question] % VALIDATED == 0 and count + by_question[question] <= VALIDATION_ROWS:
            validated.add(question)
            count += by_question[question]
    training = [row for row in rows if plain(row.question) not in validated]
    return training, [row for row in rows if plain(row.question) in validated]


class _Pace:
    """Estimates the time left from the work of this process."""

    def __init__(self, begun: Making, show: Callable[[Making], None]) -> None:
        self._now = begun
        self._show = show
        self._made = 0
        self._started = time.monotonic()
        show(begun)

    def start(self) -> None:
        """Begin to measure, once everything is loaded."""
        self._started = time.monotonic()

    def advance(self, count: int) -> None:
        self._made += count
        done = self._now.done + count
        each = (time.monotonic() - self._started) / self._made
        self._now = replace(self._now, done=done, left_s=each * (self._now.total - done))
        self._show(self._now)


def _sha256(path: Path) -> str:
    """Return the hash of a file, or that of the names and hashes of the files in a folder."""
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.is_file())
        lines = "".join(f"{one.relative_to(path).as_posix()} {_sha256(one)}\n" for one in files)
        return hashlib.sha256(lines.encode()).hexdigest()
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TuningError(
            f"The file {path} cannot be read: {error.strerror or error}.",
            fix="Name the folder with the training data with --data.",
        ) from error
