"""An app that answers from a script: no encoder, no index, no model; the other stores are the real ones.

A word in the question chooses what happens: ``slow``, ``fail``, ``raise``, ``unknown``, ``hostile``.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from handmade_pdf import assembled
from sqlalchemy import delete
from streams import stream_of

from rag import tables
from rag.answering.answer_gate import AnswerGate
from rag.answering.answer_stream import AnswerStream
from rag.database import writing
from rag.errors import CorpusError, ModelUnavailable
from rag.indexing.corpora import StoredDocument
from rag.indexing.ingest_report import IngestProgress, IngestReport, Problem
from rag.settings import Settings
from rag.tracing.trace_store import Span, Trace
from rag.types import (
    Answer,
    Ask,
    Citation,
    Cited,
    Done,
    Event,
    Hit,
    Passage,
    Retrieved,
    Started,
    StepFinished,
    StepStarted,
    Token,
    Usage,
)
from ui.app.app import App
from ui.app.releases import Releases
from ui.app.stores import Stores

SENTENCE = "A passage aims at about 200 tokens of the encoder."
TEXT = (
    "# Passages\n\nDocuments are cut into passages before they are indexed. "
    f"{SENTENCE} It is never cut through a word.\n\n"
    "## Overlap\n\nThere is none: headings carry the context. <script>alert('x')</script>\n\n"
    "![logo](http://example.org/logo.png) and a [link](javascript:alert(1)).\n\n" + "Filler line.\n" * 400
)
HOSTILE = (
    "<img src=http://example.org/x.png onerror=alert(1)> ![a](http://example.org/a.png) "
    "[click](javascript:alert(1)) <script>document.title='owned'</script> ${alert(1)} {{value}} @children [1]"
)
WORDS = "The slow answer goes on and on, word by word, so that there is time to press the button. "


def pdf(*pages: Sequence[str]) -> bytes:
    """A PDF with lines of Helvetica, made by hand."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    kids = []
    for lines in pages:
        drawn = " ".join(f"({line}) Tj T*" for line in lines)
        stream = f"BT /F1 14 Tf 20 TL 72 720 Td {drawn} ET".encode()
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        content = len(objects)
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % content
        )
        kids.append(len(objects))
    listed = " ".join(f"{kid} 0 R" for kid in kids)
    objects[1] = f"<< /Type /Pages /Kids [{listed}] /Count {len(kids)} >>".encode()
    return assembled(objects)


PDF_PAGES = (
    ("Annual report", "Net sales grew to 512 million in 2024.", "Costs fell."),
    ("Outlook", "We expect a quiet year with lower", "capital expenditure than before."),
)


@dataclass(frozen=True)
class Release:
    name: str = "a1b2c3"
    prompt: str = "answer@1"
    model: str = "extractive"
    adapter: str = ""
    k: int = 5
    mode: str = "hybrid"


@dataclass(frozen=True)
class Health:
    model: str = "extractive · OpenVINO bf16"
    model_ok: bool = True
    index: str = "handbook: 310 passages"
    index_ok: bool = True
    wandb: str = "offline"
    wandb_ok: bool = True
    wandb_detail: str = "Results go to a W&B run on this disk."
    notices: tuple[str, ...] = ()
    otlp: str = "off"
    otlp_ok: bool = True


@dataclass(frozen=True)
class ScriptedAssistant:
    app: ScriptedApp
    gate: AnswerGate | None

    def start(self, request: Ask) -> AnswerStream:
        return stream_of(self.app.answered(request), self.gate)


class ScriptedReleases(Releases):
    def __init__(self, app: ScriptedApp) -> None:
        super().__init__(app.settings, app.stores, app.models)
        self._app = app

    def assistant(self, variant: Any = None, *, gate: AnswerGate | None = None) -> Any:
        return ScriptedAssistant(self._app, gate)

    def pipeline(self, corpus: str = "", variant: Any = None) -> Any:
        if corpus not in self._app.names:
            raise CorpusError(f"There is no corpus {corpus}.", fix="Choose another.")
        return SimpleNamespace(release=Release())


class ScriptedStores(Stores):
    """The real stores, but for the corpora."""

    def __init__(self, app: ScriptedApp) -> None:
        super().__init__(app.settings, app.workspace)
        self._app = app

    @property
    def corpora(self) -> Any:
        return SimpleNamespace(document=self._app.document)

    def corpus_names(self) -> list[str]:
        return list(self._app.names)

    def ingest(self, *given: Any) -> IngestReport:
        return self._app.ingest(*given)


FORGOTTEN = {
    "exchanges", "conversations", "feedback", "spans", "traces", "trace_contents", "trace_passages", "contents",
    "ledger", "measures", "saved_filters", "trace_exports", "alerts", "alert_notices",
}  # fmt: skip


class ScriptedApp(App):
    """An app whose answers, corpora and health follow a script."""

    def __init__(self, home: Path, settings: Settings | None = None) -> None:
        super().__init__((settings or Settings()).model_copy(update={"home": home}))
        self.home = home
        self.stores = ScriptedStores(self)
        self.releases = ScriptedReleases(self)
        self.ingest_seconds = 0.0
        self.health_now = Health()
        self.health = SimpleNamespace(check=self._check, warm=lambda: self.warmed.set())
        self.asked: list[Ask] = []
        self.cancelled = threading.Event()
        self.closed = False
        self.warmed = threading.Event()
        self.ingested: list[tuple[str, list[Path]]] = []
        self.names = ["handbook", "reports"]
        report = self.home / "report.pdf"
        report.write_bytes(pdf(*PDF_PAGES))
        page_texts = ["\n".join(lines) for lines in PDF_PAGES]
        pdf_text = "\n\n".join(page_texts)
        self.documents = {
            1: StoredDocument(1, TEXT, "Passages", "/docs/passages.md", "/docs/passages.md", "passages.md", ()),
            2: StoredDocument(
                2,
                pdf_text,
                "Report",
                str(report),
                str(report),
                "report.pdf",
                ((1, 0), (2, len(page_texts[0]) + 2)),
            ),
        }

    def forget(self) -> None:
        """Begin anew, without what earlier tests have left."""
        with writing(self.stores.engine) as connection:
            for table in reversed(tables.metadata.sorted_tables):
                if table.name in FORGOTTEN:
                    connection.execute(delete(table))
        self.asked.clear()
        self.ingested.clear()
        self.cancelled.clear()
        self.names = ["handbook", "reports"]
        self.ingest_seconds = 0.0
        self.health_now = Health()

    def _check(self, corpus: str = "") -> Health:
        if corpus in ("", self.names[0]):
            return self.health_now
        return replace(self.health_now, index=f"{corpus}: 12 passages")

    def document(self, document_id: int) -> StoredDocument:
        if document_id not in self.documents:
            raise CorpusError(f"Document {document_id} is no longer in this workspace.", fix="Ask again.")
        return self.documents[document_id]

    def hits(self, corpus: str) -> tuple[Hit, ...]:
        start = TEXT.index("Documents are cut")
        end = TEXT.index("\n\n## Overlap")
        first = Passage(
            1, 1, "/docs/passages.md", "passages.md", "Passages", TEXT[start:end], start, end, ("Passages",)
        )
        at = TEXT.index("There is none")
        stop = TEXT.index("Filler")
        second = Passage(
            2,
            1,
            "/docs/passages.md",
            "passages.md",
            "Passages",
            TEXT[at:stop],
            at,
            stop,
            ("Passages", "Overlap"),
        )
        report = self.documents[2].text
        third = Passage(3, 2, self.documents[2].source, "report.pdf", "Report", report, 0, len(report), (), 1)
        hits = (
            Hit(first, 0.0325, 1, 0.71, 1, 12.3),
            Hit(second, 0.0161, 3, 0.44, None, None),
            Hit(third, 0.0158, None, None, 2, 3.1),
        )
        return (hits[2], hits[0], hits[1]) if corpus == "reports" else hits

    async def answered(self, request: Ask) -> AsyncGenerator[Event, None]:
        self.asked.append(request)
        started, trace_id = time.time(), str(uuid.uuid4())
        trace = Trace(
            trace_id,
            started,
            "running",
            request.question,
            corpus=request.corpus,
            model="extractive",
            prompt="answer@1",
            release="a1b2c3",
            conversation_id=request.conversation_id or "",
        )
        self.stores.traces.begin(trace)
        written = ""
        try:
            yield Started(trace_id)
            if "raise" in request.question:
                raise ModelUnavailable("The model server does not answer.", fix="Start it.")
            yield StepStarted("condense")
            yield StepFinished("condense", 0.001)
            yield StepStarted("retrieve")
            hits = self.hits(request.corpus)
            yield Retrieved(hits)
            yield StepFinished("retrieve", 0.002)
            yield StepStarted("generate")
            answer = self.script(request, hits)
            pace = 0.02 if "slow" in request.question else 0.0
            for word in answer.text.split(" "):
                await asyncio.sleep(pace)
                written += word + " "
                yield Token(word + " ")
            yield StepFinished("generate", 0.2)
            for citation in answer.citations:
                yield Cited(citation)
        except (GeneratorExit, asyncio.CancelledError):
            self.cancelled.set()
            self._save(trace, "cancelled", written)
            raise
        except ModelUnavailable as error:
            self._save(trace, "error", written, str(error))
            raise
        self._save(trace, "error" if answer.status == "failed" else "ok", answer.text, answer.error)
        values = {name: getattr(answer, name) for name in ("text", "status", "citations", "support", "error")}
        yield Done(
            Answer(
                **values,
                hits=hits,
                standalone=request.question,
                trace_id=trace_id,
                latency_s=time.time() - started,
                usage=Usage(700, 112),
                cost_usd=0.0001,
                prompt="answer@1",
                release="a1b2c3",
                model="extractive",
            )
        )

    def script(self, request: Ask, hits: tuple[Hit, ...]) -> Answer:
        start = TEXT.index(SENTENCE)
        first = Citation(1, hits[0], start, start + len(SENTENCE), 0.83)
        if request.corpus == "reports":
            report = self.documents[2].text
            at = report.index("Net sales")
            quote = "Net sales grew to 512 million in 2024."
            return Answer(
                f"{quote} [1]",
                "answered",
                citations=(Citation(1, hits[0], at, at + len(quote), 0.9),),
                support=0.9,
            )
        if "unknown" in request.question:
            return Answer("The documents do not answer this question.", "abstained", support=0.1)
        if "fail" in request.question:
            return Answer("", "failed", error="The model server did not answer within 60 seconds.")
        if "hostile" in request.question:
            return Answer(HOSTILE, "answered", citations=(Citation(1, hits[1], None, None, 0.3),), support=0.3)
        if "slow" in request.question:
            return Answer(WORDS * (8 if "short" in request.question else 40), "answered", support=0.8)
        if "low" in request.question:
            return Answer(
                f"{SENTENCE} [1]",
                "answered",
                citations=(Citation(1, hits[0], start, start + len(SENTENCE), 0.4),),
                support=0.4,
            )
        number = len(request.history) + 1
        return Answer(
            f"**Answer {number}.** {SENTENCE} [1] There is no overlap [2].\n\n- first point\n- `second` point",
            "answered",
            citations=(first, Citation(2, hits[1], None, None, 0.62)),
            support=0.62,
        )

    def _save(self, trace: Trace, status: str, text: str, error: str = "") -> None:
        now = time.time()
        root = Span(
            f"{trace.id[:30]}-root",
            None,
            0,
            "answer",
            "chain",
            status,
            trace.started,
            now,
            {"question": trace.question},
            {"text": text},
            error,
        )
        step = Span(
            f"{trace.id[:30]}-step",
            root.id,
            1,
            "retrieve",
            "retriever",
            "ok",
            trace.started,
            trace.started + (now - trace.started) / 2,
            {"query": trace.question},
            {"hits": 3},
        )
        values = {
            name: getattr(trace, name)
            for name in (
                "id",
                "started",
                "question",
                "corpus",
                "model",
                "prompt",
                "release",
                "conversation_id",
            )
        }
        self.stores.traces.save(
            Trace(
                **values,
                status=status,
                answer=text,
                error=error,
                latency_s=now - trace.started,
                input_tokens=700,
                output_tokens=112,
                cost_usd=0.0001,
                spans=(root, step),
            )
        )

    def ingest(
        self,
        corpus: str,
        paths: Sequence[Path],
        on_progress: Callable[[IngestProgress], None],
        stop: threading.Event,
        addresses: Sequence[str] = (),
    ) -> IngestReport:
        self.ingested.append((corpus, list(paths)))
        begin = time.monotonic()
        while (passed := time.monotonic() - begin) < self.ingest_seconds and not stop.is_set():
            share = passed / self.ingest_seconds
            on_progress(IngestProgress(int(share * 10), 10, int(share * 500), 120.0, self.ingest_seconds - passed))
            time.sleep(0.05)
        if corpus not in self.names:
            self.names.append(corpus)
        broken = tuple(
            Problem(str(path), "is empty") for path in paths if path.is_file() and not path.stat().st_size
        )
        return IngestReport(
            added=len(paths) - len(broken),
            passages=12,
            problems=broken,
            seconds=time.monotonic() - begin,
            stopped=stop.is_set(),
        )

    def close(self) -> None:
        self.closed = True
        super().close()


def a_scripted_app(factory: pytest.TempPathFactory) -> Iterator[ScriptedApp]:
    """Yield an app for the tests of a file, which may add folders below the tests' own."""
    home = factory.mktemp("home")
    made = ScriptedApp(home, Settings(home=home, ingest={"folder_roots": [str(factory.getbasetemp())]}))
    yield made
    made.close()
