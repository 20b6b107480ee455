"""Fixtures that every test may use, and the clean surroundings in which each one runs."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import settings as hypothesis_settings

from rag.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from chromium import Chromium, Open
    from playwright.sync_api import Page
    from postgres_server import PostgresServer
    from sqlalchemy import Engine

    from rag.encoders import Encoder
    from rag.indexing.corpora import Corpora
    from rag.indexing.corpus_index import CorpusIndex
    from rag.tracing.trace_store import TraceStore
    from ui.app.app import App

# Longest first; the two at the beginning do not wait for each other's converted models.
SLOW = (
    "prompts_page browser browser_tune browser_teach tuning_runs sft_training lab_page shipped_base "
    "evaluate_page tuning_troubles junk browser_real local_conversion index_repair server crash "
    "evaluation_real writer_data local_chain data_training tuning_lab teaching browser_documents "
    "browser_traces evaluation_crash morning rerank encoder access commands_terminal tracking_failures sync "
    "reading_converted tracking ingest_hostile tuning_reranker sweep_commands local_models light_tokenizer "
    "own_code page_files connections api_clients report"
).split()
# Fixtures that put every test with them into a tier.
TIERS = {"browser": "browser", "converted_models": "real_model", "prepared_base": "real_model"}
# Files whose tests load or train a language model, or wait for a server that drips: together they take too long.
SLOW_FILES = (
    "test_light_tokenizer",
    "test_local_",
    "test_tuning_",
    "test_sampling",
    "test_endless_model",
    "test_gate",
    "test_ingest_hostile",
)
# Bytes by which a process may grow before its garbage is collected.
GROWTH = 300_000_000
_settled_at = 0
FOREIGN = ("RAGSMITH_", "WANDB_", "OPENAI_")
# Read by the libraries when they are imported, so they stand before any test is collected.
OFFLINE = {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}

hypothesis_settings.register_profile("here", deadline=None, max_examples=40)
hypothesis_settings.register_profile("ci", deadline=None, max_examples=40, derandomize=True)
hypothesis_settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_configure() -> None:
    """What the caller's shell says must not reach a test."""
    # What a shell starts in the background ignores Ctrl-C, and so would all that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in foreign_variables():
        del os.environ[name]
    os.environ.update(OFFLINE)
    # The tests start over a hundred processes of Python: to compile the modules in each takes a second and more.
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Tests run side by side: threads of one process wait long for each other beside those of another.
    os.environ["OMP_NUM_THREADS"] = "1"
    keep_to_own_cores()


def keep_to_own_cores() -> None:
    """Of several processes that run tests each has its share of the cores: a fifth less is computed then."""
    worker, count = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if worker and hasattr(os, "sched_setaffinity"):
        own = sorted(os.sched_getaffinity(0))[int(worker.removeprefix("gw")) :: count]
        if own:
            os.sched_setaffinity(0, own)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests whose fixtures put them into a tier, and run the longest files first.

    Otherwise one process would be left alone with a long file at the end. It comes before the hook of pytest that
    selects by markers.
    """
    for item in items:
        for fixture in TIERS.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(TIERS[fixture])
        if item.path.stem.startswith(SLOW_FILES):
            item.add_marker("slow")
    places = {f"test_{name}": place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: places.get(item.path.stem, len(SLOW)))


def pytest_runtest_logfinish() -> None:
    """Collect garbage when the process has grown.

    Networks that a training wraps refer to themselves and hold up to a hundred megabytes, which Python counts as a
    few small objects: left to itself, it lets gigabytes of them wait. An app that is closed frees its own at once.
    """
    global _settled_at
    process = psutil.Process()
    if process.memory_info().rss > _settled_at + GROWTH:
        gc.collect()
        _settled_at = process.memory_info().rss


def foreign_variables() -> list[str]:
    """The variables that would change what ragsmith or its tracker does."""
    return [name for name in os.environ if name.startswith(FOREIGN)]


@pytest.fixture(autouse=True)
def _clean_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current folder without a ragsmith.toml, and nobody logged in to W&B."""
    for name in foreign_variables():
        monkeypatch.delenv(name)
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace, the one that the default settings name from the test's current folder."""
    return open_workspace(tmp_path / ".ragsmith")


@pytest.fixture
def engine(workspace: Workspace) -> Iterator[Engine]:
    """The database of the workspace."""
    from rag.database import open_database

    opened = open_database(workspace)
    yield opened
    opened.dispose()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server, where one is installed."""
    import postgres_server

    if reason := postgres_server.missing():
        pytest.skip(reason)
    with postgres_server.running() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def either_engine(request: pytest.FixtureRequest, workspace: Workspace) -> Iterator[Engine]:
    """An empty database, of each kind that stores traces."""
    from rag.database import open_database

    url = request.getfixturevalue("postgres").new_database() if request.param == "postgresql" else None
    opened = open_database(workspace, url)
    yield opened
    opened.dispose()


@pytest.fixture
def store(engine: Engine) -> TraceStore:
    """The traces of the workspace."""
    from rag.tracing.trace_store import TraceStore

    return TraceStore(engine)


@pytest.fixture
def isolated_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B that writes nothing outside the test's folder, and reports nothing."""
    from tracked import isolate

    isolate(tmp_path, monkeypatch)


def shared_folder(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that is made once for all tests: by the first process that needs it, and the others wait."""
    from filelock import FileLock

    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(folder.with_suffix(".lock")):
        if not (made := folder.with_suffix(".made")).exists():
            make(folder)
            made.touch()
    return folder


@pytest.fixture(scope="session")
def converted_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder ``models`` of a workspace in which encoder and reader have been converted: once for all tests."""
    from rag.encoders import open_encoder
    from rag.encoders.adapters import find_adapter
    from rag.encoders.tuned_conversion import converted_network
    from rag.settings import EncoderSettings, ReaderSettings

    def make(folder: Path) -> None:
        home = open_workspace(folder)
        open_encoder(EncoderSettings(), home)
        converted_network(find_adapter(ReaderSettings().adapter, home), home.models)

    return Workspace(shared_folder(tmp_path_factory, "encoder", make)).models


@pytest.fixture(scope="session")
def prepared_base(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which smollm2 has been prepared: once for all tests, since it takes about a minute."""
    from rag.models.chat_models import prepare_engine
    from rag.settings import Settings

    base = tmp_path_factory.getbasetemp()
    home = open_workspace((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "smollm2")
    prepare_engine(Settings(model="smollm2", local={"device": "cpu"}), home)
    return home


@pytest.fixture(scope="session")
def encoder(converted_models: Path) -> Encoder:
    """The real MiniLM, as the default settings open it."""
    from rag.encoders import open_encoder
    from rag.settings import EncoderSettings

    return open_encoder(EncoderSettings(), Workspace(converted_models.parent))


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ``model`` with a language model of a few thousand weights, and two adapters for it."""
    from tiny_lm import make_adapter, make_model

    def make(folder: Path) -> None:
        model = make_model(folder / "model")
        make_adapter(model, folder / "adapters" / "citer", seed=1)
        # A point in the name, as versions have one.
        make_adapter(model, folder / "adapters" / "poet-1.5", seed=2)

    return shared_folder(tmp_path_factory, "tiny-lm", make) / "model"


@pytest.fixture
def ready_workspace(workspace: Workspace, converted_models: Path) -> Workspace:
    """A workspace without corpora that has its encoder, so that no test converts it again."""
    converted_models.mkdir(exist_ok=True)
    workspace.models.symlink_to(converted_models)
    return workspace


@pytest.fixture
def one_encoder(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that run in this process take the encoder that is there: loaded once for all of them."""
    monkeypatch.setattr("rag.encoders.open_encoder", lambda *_: encoder)


@pytest.fixture
def home(ready_workspace: Workspace) -> Path:
    """The folder of a workspace that is the test's own, for commands."""
    return ready_workspace.root


@pytest.fixture(scope="session")
def harbour(converted_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a workspace with the pages of ``tiny``: tests of commands only read it, and ask."""
    from terminal import call
    from tiny import CORPUS, PAGES, written

    folder = tmp_path_factory.mktemp("harbour")
    (folder / "models").symlink_to(converted_models)
    assert call(folder, "ingest", written(folder / "pages", PAGES), "--corpus", CORPUS).exit_code == 0
    return folder


@pytest.fixture
def open_corpora(ready_workspace: Workspace, encoder: Encoder) -> Iterator[Callable[..., Corpora]]:
    """Opens the corpora of the workspace: real database, real Chroma, real lexical index."""
    from rag.database import open_database
    from rag.indexing.corpora import Corpora
    from rag.indexing.dense_index import ChromaStore

    engine = open_database(ready_workspace)

    def opened(encoder: Encoder = encoder, tokens: int = 200, chroma_url: str | None = None) -> Corpora:
        return Corpora(ready_workspace, engine, encoder, tokens, ChromaStore(ready_workspace, chroma_url))

    yield opened
    engine.dispose()


@pytest.fixture
def corpora(open_corpora: Callable[..., Corpora]) -> Corpora:
    """The corpora of the workspace as the default settings open them."""
    return open_corpora()


@pytest.fixture
def index(corpora: Corpora) -> CorpusIndex:
    """An empty corpus, ``notes``."""
    return corpora.ensure("notes")


@pytest.fixture(scope="session")
def app(converted_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The real app on the pages of ``tiny``, with the extractive reader and without tracking: for reading."""
    from tiny import open_tiny

    made = open_tiny(tmp_path_factory.mktemp("app"), converted_models)
    yield made
    made.close()


@pytest.fixture(scope="module")
def own_app(converted_models: Path, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The same, the module's own: for writing."""
    from tiny import open_tiny

    made = open_tiny(tmp_path_factory.mktemp("own"), converted_models, encoder=encoder)
    yield made
    made.close()


@pytest.fixture(scope="session")
def handbook(converted_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a workspace that has read the handbook: all tests work in copies of it."""
    from rag.settings import Settings
    from ui.app.app import open_app

    def make(folder: Path) -> None:
        (open_workspace(folder).root / "models").symlink_to(converted_models)
        made = open_app(Settings(home=folder, tracking={"wandb": "off"}))
        made.stores.ensure_sample()
        made.close()

    return shared_folder(tmp_path_factory, "handbook", make)


@pytest.fixture(scope="module")
def handbook_home(handbook: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the handbook that is the module's own."""
    return shutil.copytree(handbook, tmp_path_factory.mktemp("home") / "ragsmith", symlinks=True)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A real browser. Not for longer than a module: its event loop would be in the way of others."""
    from chromium import launched

    with launched(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def address(app: App) -> Iterator[str]:
    """Where a real server answers with the module's app."""
    from live_server import running

    with running(app) as at:
        yield at


@pytest.fixture
def open_page(browser: Chromium, address: str, caplog: pytest.LogCaptureFixture) -> Iterator[Open]:
    """Opens the page in windows of their own; at the end neither page nor server has complained."""
    from chromium import windows

    with windows(browser, address) as opened:
        yield opened
    assert not [record for record in caplog.get_records("call") if record.levelname == "ERROR"]


@pytest.fixture
def page(open_page: Open) -> Page:
    """The page, ready for a question."""
    return open_page()
