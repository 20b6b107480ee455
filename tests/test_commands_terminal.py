"""What the commands owe to a terminal: harmless text, signals that are heard, pipes that may end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from scripted_openai import Received, Reply, chunk, scripted_openai
from terminal import ROOT, assert_harmless, call, jsonl, objects, one_object, start
from tiny import CORPUS, PAGES, QUESTION, written

from ui.commands import _terminal_text as _text
from ui.commands import ingest_command as ingest

pytestmark = pytest.mark.usefixtures("one_encoder")


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    return written(tmp_path / "pages", PAGES)


# What a terminal may be sent


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb\x1b]0;title\x07", "a␛[31mb␛]0;title␇"),
        ("tab\tand\nline\r\nstay", "tab\tand\nline\nstay"),
        ("back\rover", "back␍over"),
        ("\x00\x7f\x9b31m", "␀␡�31m"),
        ("\u202egnp.exe\u2066", "�gnp.exe�"),
        ("\ud800 \u2028", "� �"),
        ("שלום [bold] 👩‍👩‍👧 é", "שלום [bold] 👩‍👩‍👧 é"),
    ],
)
def test_what_a_terminal_would_obey_is_made_visible(text: str, shown: str) -> None:
    assert _text.visible(text) == shown


def test_nothing_from_a_document_reaches_the_terminal_as_a_command(home: Path, tmp_path: Path) -> None:
    sly = "The gauge \x1b[31mwas\x1b[0m read\x07 in [bold]Ems[/bold] :smile: by \u202eadI."
    pages = written(
        tmp_path / "a\x1b[31mb", {"gau\x1b[1mge.md": f"# Gau\x1b]0;x\x07ge\n\n{sly}\n", "no\x1b[1m.md": ""}
    )
    for arguments in (
        ["ingest", pages, "--corpus", "sly"],
        ["search", "gauge\x1b[1m", "--corpus", "sly"],
        ["ask", "Where was the gauge read\x1b[1m?", "--corpus", "sly"],
        ["traces", "list"],
    ):
        result = call(home, *arguments)
        assert result.exit_code == 0, result.output
        assert_harmless(result.output)
    trace = one_object(call(home, "traces", "list", "--json"))[0]
    shown = call(home, "traces", "show", trace["id"], "--full")
    assert_harmless(shown.output)
    assert "[bold]Ems[/bold] :smile:" in shown.output
    (found,) = objects(call(home, "search", "gauge", "--corpus", "sly", "--json"))
    assert found["results"][0]["text"].endswith(sly)


def test_json_is_one_line_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": "a\u2028b\x85c\x9b\ud800 é\n\x1b"}
    _text.print_json(value)
    told = capsys.readouterr().out
    assert len(told.splitlines()) == 1
    assert "é" in told
    assert json.loads(told) == value


@pytest.mark.parametrize("charset", ["ascii", "latin-1"])
def test_a_terminal_without_utf8_is_no_obstacle(harbour: Path, charset: str) -> None:
    for arguments in (["ask", QUESTION, "--corpus", CORPUS], ["search", "Ebbe → 潮", "--corpus", CORPUS]):
        assert call(harbour, *arguments, charset=charset).exit_code == 0
    result = call(harbour, "search", "潮", "--corpus", CORPUS, "--json", charset=charset)
    assert objects(result)[0]["query"] == "潮"


def test_an_argument_that_is_not_utf8_is_searched_all_the_same(harbour: Path) -> None:
    for verb in ("search", "ask"):
        result = call(harbour, verb, "tide \udcff gauge", "--corpus", CORPUS, "--json")
        assert result.exit_code == 0, result.output


# Signals and pipes, in processes of their own


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def drips(reply: Reply, _: Received) -> None:
    reply.head()
    reply.event(chunk({"role": "assistant", "content": ""}))
    reply.drip("drop ", 0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_stopped_answer_is_traced_and_sent_later(harbour: Path, number: signal.Signals, status: int) -> None:
    with scripted_openai(drips) as server:
        process = start(
            harbour,
            *("--model", "openai:slow", "ask", QUESTION, "--corpus", CORPUS),
            RAGSMITH_OPENAI__BASE_URL=server.base_url,
            RAGSMITH_TRACKING__WANDB="offline",
        )
        assert process.stdout is not None
        assert process.stdout.read(5) == "drop "
        process.send_signal(number)
        code, _, err = ended(process)
        assert code == status
        assert "Traceback" not in err
    (trace, *_) = one_object(call(harbour, "traces", "list", "--json"))
    assert trace["status"] == "cancelled"
    assert trace["answer"].startswith("drop ")
    assert not trace["tracked"]
    assert ended(start(harbour, "sync", RAGSMITH_TRACKING__WANDB="offline"))[0] == 0
    (trace, *_) = one_object(call(harbour, "traces", "list", "--json"))
    assert trace["tracked"]


@pytest.mark.slow
def test_a_stopped_ingestion_keeps_what_was_finished(home: Path, tmp_path: Path) -> None:
    many = {f"{n:03}.md": f"Stone number {n} lies in the river {n % 7}." for n in range(400)}
    pages = written(tmp_path / "many", many)
    # Small batches, so that there is something left to do after the first; each is announced.
    before = (
        "import rag.indexing.ingestion as i; i.BATCH = 16\n"
        "import rag.indexing.corpus_index as x; add = x.CorpusIndex.add\n"
        "def told(*a, **k): print('batch', file=sys.stderr, flush=True); return add(*a, **k)\n"
        "x.CorpusIndex.add = told"
    )
    process = start(home, "ingest", pages, "--corpus", "stones", "--json", before=before)
    assert process.stderr is not None
    for _ in range(2):
        assert process.stderr.readline() == "batch\n"
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert code == 130
    assert err.splitlines()[-1] == ingest.STOPPED
    assert "Traceback" not in err
    report = json.loads(out)
    assert report["stopped"] is True
    assert 0 < report["added"] < 400
    again = one_object(call(home, "ingest", pages, "--corpus", "stones", "--json"))
    assert (again["unchanged"], again["added"]) == (report["added"], 400 - report["added"])


def at_its_end(number: str, default: str) -> str:
    """Python that tells, when its process ends, whether a signal does again what it did before."""
    return f"import atexit; atexit.register(lambda: print(signal.getsignal({number}) is {default}))\n"


def test_a_second_ctrl_c_does_not_wait(home: Path, pages: Path) -> None:
    before = (
        "import time; from ui.app.stores import Stores\n"
        "def hangs(*_): print('begun', file=sys.stderr, flush=True); [time.sleep(0.05) for _ in range(1000)]\n"
        "Stores.ingest = hangs\n"
    )
    before += at_its_end("signal.SIGINT", "signal.default_int_handler")
    process = start(home, "ingest", pages, "--corpus", CORPUS, before=before)
    assert process.stderr is not None
    assert process.stderr.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "\n"
    assert "Ctrl-C again stops at once" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert (code, out) == (130, "True\n")
    assert err.splitlines()[-1] == ingest.STOPPED


def test_ctrl_c_may_come_while_a_line_is_written(home: Path, pages: Path) -> None:
    before = (
        "import io, os; from ui.app.stores import Stores; real = Stores.ingest\n"
        "class Terminal(io.RawIOBase):\n"
        "    def writable(self): return True\n"
        "    def write(self, data):\n"
        "        if b'begun' in bytes(data): signal.raise_signal(signal.SIGINT)\n"
        "        return os.write(2, data)\n"
        "sys.stderr = io.TextIOWrapper(io.BufferedWriter(Terminal()), line_buffering=True)\n"
        "Stores.ingest = lambda *given: (print('begun', file=sys.stderr), real(*given))[1]"
    )
    code, _, err = ended(start(home, "ingest", pages, "--corpus", CORPUS, before=before))
    assert code == 130
    told = ["begun", "", "Stopping after this batch; Ctrl-C again stops at once.", ingest.STOPPED]
    assert err.splitlines() == told


def test_sigterm_ends_an_ingestion_in_order(home: Path, pages: Path) -> None:
    before = (
        "from ui.app.app import App; from ui.app.stores import Stores; real = App.close\n"
        "App.close = lambda app: (print('closed'), real(app))\n"
        "Stores.ingest = lambda *_: signal.raise_signal(signal.SIGTERM)\n"
    )
    before += at_its_end("signal.SIGTERM", "signal.SIG_DFL")
    code, out, err = ended(start(home, "ingest", pages, "--corpus", CORPUS, before=before))
    assert (code, out) == (143, "closed\nTrue\n")
    assert "Traceback" not in err


def test_a_reader_that_goes_away_is_no_bug(harbour: Path, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "q.jsonl", [{"id": n, "text": QUESTION} for n in range(2000)])
    process = start(harbour, "search", "--queries", file, "--json", "--corpus", CORPUS)
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["id"] == 0
    process.stdout.close()
    started = time.monotonic()
    assert process.wait(30) == 1
    assert time.monotonic() - started < 20
    assert process.stderr.read() == ""
    process.stderr.close()


def test_results_come_as_they_are_found(harbour: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "q.jsonl"
    os.mkfifo(pipe)
    process = start(harbour, "search", "--queries", pipe, "--json", "--corpus", CORPUS)
    try:
        with pipe.open("w", encoding="utf-8") as queries:
            queries.write('{"id": 1, "text": "ferry"}\n')
            queries.flush()
            assert process.stdout is not None
            # Nothing more is written before this one has come.
            got: list[str] = []
            reader = threading.Thread(target=lambda: got.append(process.stdout.readline()))  # type: ignore[union-attr]
            reader.start()
            reader.join(60)
            assert json.loads(got[0])["id"] == 1
        assert ended(process)[0] == 0
    finally:
        process.kill()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_output_that_cannot_be_written_is_an_error_and_closed_streams_are_none(tmp_path: Path) -> None:
    command = f"exec {sys.executable} -m ui.cli --home {tmp_path / 'home'} data list"
    endings = {}
    for streams in (">/dev/full", "<&- >&-"):
        done = subprocess.run(["sh", "-c", f"{command} {streams}"], cwd=ROOT, capture_output=True, text=True)
        endings[streams] = (done.returncode, done.stderr)
    assert endings == {
        ">/dev/full": (1, "Error: Cannot write: no space is left on the device.\n"),
        "<&- >&-": (0, ""),
    }
