"""An ingestion of hostile files ends, names each of them, takes in the others, and does not swell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import hostile
import pytest
from corpus_stores import assert_in_step, limits, passages_of, take_in, write

from rag.documents.loaders import load
from rag.documents.loaders.isolated import IsolatedLoader
from rag.errors import LoadError
from rag.indexing.corpus_index import CorpusIndex
from ui.pages.documents.pdf_pages import PdfPages

ROOT = Path(__file__).resolve().parent.parent
MOST_MB = 1_500
# Whatever happens, it does not happen to the machine.
CEILING = 5_000_000_000

# A process of its own, since what is measured is all that it and its children take.
DRIVER = """
import json, resource, sys, threading, time
from pathlib import Path
import psutil
from rag.settings import Settings
from ui.app.app import App, open_app

resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[3]), int(sys.argv[3])))
peak, done = 0, threading.Event()

def watch():
    global peak
    this = psutil.Process()
    while not done.wait(0.01):
        total = 0
        for process in (this, *this.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.Error:
                pass
        peak = max(peak, total)

threading.Thread(target=watch, daemon=True).start()
app = open_app(Settings(
    home=Path(sys.argv[1]),
    ingest={"parse_memory_mb": 256, "parse_timeout_s": 3, "max_text_mb": 2},
    tracking={"wandb": "off"},
))
report = app.stores.ingest("all", [Path(sys.argv[2])])
children = len(psutil.Process().children(recursive=True))
app.close()
done.set()
problems = [[Path(problem.path).name, problem.reason] for problem in report.problems]
print(json.dumps({"added": report.added, "problems": problems, "peak_mb": peak / 1e6, "children": children}))
"""


@pytest.mark.slow
def test_all_hostile_files_together_are_named_and_the_others_taken_in(home: Path, tmp_path: Path) -> None:
    made = hostile.files()
    folder = write(tmp_path / "all", {name: content for name, (content, _) in made.items()})
    write(folder, {"a-good.md": "# Mill\n\nThe mill grinds.", "z-good.md": "# River\n\nThe river flows."})
    secret = write(tmp_path / "elsewhere", {"secret.md": "# Secret\n\nNot for you."}) / "secret.md"
    (folder / "link.md").symlink_to(secret)
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER, str(home), str(folder), str(CEILING)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    reasons: dict[str, list[str]] = {}
    for name, reason in report["problems"]:
        reasons.setdefault(name, []).append(reason)
    assert set(reasons) == {*made, "link.md"}
    for name, (_, said) in made.items():
        assert said in reasons[name][-1]
    assert "leads out of the folder" in reasons["link.md"][0]
    assert len(reasons["bad.jsonl"]) == 101
    assert report["added"] == 3  # The good ones, and the one good line.
    assert report["peak_mb"] < MOST_MB
    assert report["children"] == 0
    assert "Traceback" not in ended.stderr


def test_the_index_holds_what_could_be_read_beside_a_file_that_could_not(
    index: CorpusIndex, tmp_path: Path
) -> None:
    folder = write(tmp_path / "docs", {"bomb.pdf": hostile.swelling_pdf(6), "good.md": "# Mill\n\nIt grinds."})
    with IsolatedLoader(limits(memory_mb=256)) as loader:
        report = take_in(index, folder, loader=loader)
    assert [Path(problem.path).name for problem in report.problems] == ["bomb.pdf"]
    assert "takes more than 256 MB to parse (ingest.parse_memory_mb)" in report.problems[0].reason
    assert passages_of(index, "good.md")
    assert_in_step(index)


def test_a_slow_file_is_named_with_the_setting_that_ends_it(index: CorpusIndex, tmp_path: Path) -> None:
    path = write(tmp_path, {"slow.jsonl": b'{"text": "a"}\n' * 1_000_000}) / "slow.jsonl"
    started = time.monotonic()
    with IsolatedLoader(limits(file_bytes=100_000_000, timeout_s=0.3)) as loader:
        report = take_in(index, path, loader=loader)
    assert time.monotonic() - started < 10
    assert "takes longer than 0.3 s to parse (ingest.parse_timeout_s)" in report.problems[-1].reason
    assert report.added == 0
    assert_in_step(index)


def test_a_record_with_too_much_text_is_named_and_the_others_go_on(index: CorpusIndex, tmp_path: Path) -> None:
    large = json.dumps({"id": "large", "text": "Stone. " * 1_000})
    path = write(
        tmp_path, {"a.jsonl": f'{{"id": 1, "text": "A mill."}}\n{large}\n{{"id": 3, "text": "A river."}}'}
    )
    with IsolatedLoader(limits(text_bytes=5_000)) as loader:
        report = take_in(index, path / "a.jsonl", loader=loader)
    assert (report.added, report.passages, len(report.problems)) == (1, 2, 1)
    assert "record large contains more than" in report.problems[0].reason
    assert "ingest.max_text_mb" in report.problems[0].reason


def test_the_records_of_a_file_share_its_limit(index: CorpusIndex, tmp_path: Path) -> None:
    lines = [json.dumps({"id": number, "text": f"Stone {number}. " * 100}) for number in range(10)]
    path = write(tmp_path, {"a.jsonl": "\n".join(lines)})
    with IsolatedLoader(limits(text_bytes=5_000)) as loader:
        report = take_in(index, path / "a.jsonl", loader=loader)
    assert (report.added, len(report.problems)) == (0, 1)
    assert "of text in its records (ingest.max_text_mb)" in report.problems[0].reason
    assert_in_step(index)


def test_a_file_that_grows_after_it_was_listed_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, {"a.txt": "stone " * 1_000}) / "a.txt"
    with IsolatedLoader(limits(file_bytes=1_000)) as loader, pytest.raises(LoadError, match="max_file_mb"):
        loader.load(path)


def test_a_pipe_in_place_of_a_file_does_not_hold_the_loader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    with IsolatedLoader(limits(timeout_s=5)) as loader, pytest.raises(LoadError, match="pipe"):
        loader.load(tmp_path / "a.txt")


@pytest.mark.parametrize("name", ["lying.docx", "cunning.docx", "floor.docx", "crowded.docx"])
def test_an_archive_that_deceives_is_refused_while_it_is_counted(name: str) -> None:
    content, said = hostile.files()[name]
    with pytest.raises(LoadError, match=said):
        list(load(Path(name), content))


def test_an_archive_that_lies_below_the_limit_is_called_what_it_is() -> None:
    for honest_checksum in (False, True):
        content = hostile.lying_word_file(1, honest_checksum=honest_checksum)
        with pytest.raises(LoadError, match=r"inconsistent part, word/document\.xml"):
            list(load(Path("a.docx"), content))


def test_a_page_of_a_hostile_pdf_is_an_error_and_the_next_one_is_shown(tmp_path: Path) -> None:
    write(tmp_path, {"bomb.pdf": hostile.swelling_pdf(6), "small.pdf": hostile.swelling_pdf(0)})
    pages = PdfPages(limits(memory_mb=256))
    with pytest.raises(LoadError, match=r"bomb\.pdf takes more than 256 MB to parse \(ingest\.parse_memory_mb\)"):
        pages.find(tmp_path / "bomb.pdf", 1, "a", 0)
    image = pages.render(tmp_path / "small.pdf", 1, "", 0)
    assert image.png.startswith(b"\x89PNG")
    pages.close()
