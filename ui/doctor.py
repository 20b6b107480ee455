"""What a run of ragsmith needs, checked one by one, each failure with its fix."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rag.errors import RagsmithError

if TYPE_CHECKING:
    from rag.settings import Settings
    from ui.context import Context

TIMEOUT_S = 3.0
"""How long a server may take to answer: the page of a healthy one comes in milliseconds."""
LOW_DISK_MB = 1000
"""Under this a warning: the encoder, a few thousand passages and their traces take about 300 MB."""
FULL_DISK_MB = 100
OLDEST_PYTHON = (3, 11)
OPENAI_URL = "https://api.openai.com/v1"
OPENAI_PREFIX = "openai:"
LOCAL_PREFIX = "local:"


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found.

    Attributes:
        name: What was looked at.
        ok: Whether it is fit; None is a warning: a run works, but less well than it could.
        detail: What was found.
        fix: What to do about it; empty where nothing needs to be done.
    """

    name: str
    ok: bool | None
    detail: str
    fix: str = ""


def examine(context: Context) -> Iterator[Check]:
    """Run every check, in the order in which one rests on another; settings that fail end it."""
    yield check_python()
    try:
        settings = context.settings
    except RagsmithError as error:
        yield Check("settings", False, error.message, error.fix)
        return
    yield check_settings(settings, context.config)
    workspace = _guarded(check_workspace, settings)
    yield workspace
    if workspace.ok is not False:
        stores = [_guarded(check, settings) for check in (check_database, check_chroma)]
        yield from stores
        # What a store cannot tell is not compared.
        if all(store.ok for store in stores):
            yield _guarded(check_index, settings)
    for check in (check_encoder, check_openvino, check_torch, check_model, check_wandb, check_port):
        yield _guarded(check, settings)


def _guarded(check: Callable[[Settings], Check], settings: Settings) -> Check:
    name = check.__name__.removeprefix("check_")
    try:
        return check(settings)
    except RagsmithError as error:
        return Check(name, False, error.message, error.fix)
    except ImportError as error:
        return Check(name, False, f"{error}.", "Install ragsmith again: `make install`.")
    except Exception as error:  # noqa: BLE001 - whatever breaks a check is what the check has found
        return Check(name, False, f"{type(error).__name__}: {error}", "Report this line as a bug in ragsmith.")


def check_python() -> Check:
    """Python 3.11 or newer."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Check("python", False, f"Python {version} is too old.", "Install Python 3.11 or newer.")
    return Check("python", True, f"Python {version}")


def check_settings(settings: Settings, config: Path | None = None) -> Check:
    """Where the settings came from, and variables that look like settings and are none."""
    from rag.settings import CONFIG_FILE, CONFIG_VARIABLE

    known = {f"RAGSMITH_{name.upper()}" for name in type(settings).model_fields} | {CONFIG_VARIABLE}
    unknown = sorted(
        name
        for name in map(str.upper, os.environ)
        if name.startswith("RAGSMITH_") and name.split("__", 1)[0] not in known
    )
    if unknown:
        detail = f"No setting is named {', '.join(unknown)}."
        return Check("settings", None, detail, "Correct or unset the variable.")
    here = CONFIG_FILE if Path(CONFIG_FILE).is_file() else "no file, the defaults"
    source = config or os.environ.get(CONFIG_VARIABLE) or here
    return Check("settings", True, f"{source}; model {settings.model}, corpus {settings.corpus}")


def check_workspace(settings: Settings) -> Check:
    """The workspace can be written, and its disk has room."""
    from rag.workspace import open_workspace

    root = open_workspace(settings.home).root
    free_mb = shutil.disk_usage(root).free // 1_000_000
    detail = f"{root}, {free_mb / 1000:.1f} GB free"
    if free_mb < LOW_DISK_MB:
        ok = None if free_mb >= FULL_DISK_MB else False
        return Check("workspace", ok, detail, "Free some space, or choose another folder with RAGSMITH_HOME.")
    return Check("workspace", True, detail)


def check_database(settings: Settings) -> Check:
    """The database opens; SQLite is whole."""
    from sqlalchemy import text

    from rag.database import open_database, reading, shown_url
    from rag.errors import DatabaseError, DatabaseTooNew
    from rag.workspace import open_workspace

    workspace = open_workspace(settings.home)
    damaged = f"Put a copy of it back, or move {workspace.root} away and ingest again."
    try:
        engine = open_database(
            workspace, settings.database_url.get_secret_value() if settings.database_url else None
        )
        where = shown_url(engine)
        verdict = "ok"
        if engine.dialect.name == "sqlite":
            with reading(engine) as connection:
                verdict = connection.execute(text("PRAGMA quick_check(1)")).scalar_one()
        engine.dispose()
    except DatabaseError as error:
        whole = settings.database_url or "locked" in error.message or isinstance(error, DatabaseTooNew)
        return Check("database", False, error.message, error.fix if whole else damaged)
    if verdict != "ok":
        return Check("database", False, f"{where} is damaged: {verdict}", damaged)
    return Check("database", True, where)


def check_chroma(settings: Settings) -> Check:
    """Chroma opens in the workspace, or its server answers."""
    if settings.chroma_url:
        return _check_chroma_server(settings.chroma_url)
    from rag.errors import VectorStoreError
    from rag.indexing.dense_index import ChromaStore
    from rag.workspace import open_workspace

    workspace = open_workspace(settings.home)
    chroma = ChromaStore(workspace, None)
    try:
        number = chroma.client.count_collections()
    except VectorStoreError as error:
        fix = "Run `ragsmith ingest` again: the folder is set aside, and the vectors are built anew."
        return Check("chroma", False, f"{workspace.chroma} cannot be opened: {error.message}", fix)
    finally:
        chroma.close()
    return Check("chroma", True, f"{workspace.chroma}, collections: {number}")


def _check_chroma_server(url: str) -> Check:
    from rag.redaction import without_password

    answer = fetch(f"{url.rstrip('/')}/api/v2/heartbeat")
    shown = without_password(url)
    if answer.ok:
        return Check("chroma", True, f"{shown} answers")
    fix = "Start it with `chroma run --path FOLDER`, or correct or remove the setting chroma_url."
    return Check("chroma", False, f"{shown}: {answer.reason}", fix)


def check_index(settings: Settings) -> Check:
    """Chroma and the lexical indexes hold what the database says; the encoder is not loaded for it."""
    from rag.database import open_database
    from rag.encoders.encoder_files import locate_model
    from rag.errors import EncoderError
    from rag.indexing.corpora import fingerprint_of, stored_states
    from rag.indexing.dense_index import ChromaStore
    from rag.workspace import open_workspace

    workspace = open_workspace(settings.home)
    url = settings.database_url
    engine = open_database(workspace, url.get_secret_value() if url else None)
    chroma = ChromaStore(workspace, settings.chroma_url)
    try:
        try:
            current = fingerprint_of(locate_model(settings.encoder).sha256(), settings.chunking.tokens)
        except EncoderError:
            # Its own check reports it.
            current = None
        states = stored_states(workspace, engine, chroma.client, current)
    finally:
        chroma.close()
        engine.dispose()
    notices = [state.notice(name) for name, state in states.items() if not state.ok]
    if notices:
        return Check("index", False, " ".join(notices))
    counts = ", ".join(f"{name}: {state.passages:,} passages" for name, state in states.items())
    return Check("index", True, counts or "no corpus yet")


def check_encoder(settings: Settings) -> Check:
    """The embedding model can be had, and its weights are the published ones."""
    from rag.encoders.encoder_files import locate_model

    files = locate_model(settings.encoder)
    digest = files.sha256()
    known = "the published one" if files.expected_sha256 else "not compared with anything"
    return Check("encoder", True, f"{files.name} from the {files.origin}, sha256 {digest[:12]}… is {known}")


def check_openvino(settings: Settings) -> Check:
    """OpenVINO runs here, in bf16 where the processor computes in it."""
    slower = "Nothing breaks; ingestion and search are slower."
    try:
        import openvino
    except ImportError as error:
        return Check("openvino", None, f"It cannot be loaded, so torch takes its place: {error}.", slower)
    from rag.encoders.encoder_opening import choose_precision

    precision, notice = choose_precision(settings.encoder)
    processor = openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")
    detail = f"OpenVINO {openvino.__version__.partition('-')[0]} on {processor}, {precision}"
    if notice:
        return Check("openvino", None, f"{detail}. {notice}", slower)
    return Check("openvino", True, detail)


def check_torch(settings: Settings) -> Check:
    """Whether torch is there and sees a GPU."""
    import torch

    version = f"torch {torch.__version__}"
    if torch.cuda.is_available():
        return Check("torch", True, f"{version} on {torch.cuda.get_device_name()}")
    if settings.encoder.device == "cuda":
        fix = "Set encoder.device to auto, or install a driver and a torch that fit the GPU."
        return Check("torch", False, f"{version} sees no GPU, but encoder.device is cuda.", fix)
    return Check("torch", True, f"{version}, no GPU: the processor is used")


def check_model(settings: Settings) -> Check:
    """Whoever writes the answers can be reached."""
    if settings.model.startswith(LOCAL_PREFIX):
        return _check_local_model(settings)
    if not settings.model.startswith(OPENAI_PREFIX):
        return _check_tuned(settings)
    from rag.redaction import without_password

    key = settings.openai.api_key
    url = (settings.openai.base_url or OPENAI_URL).rstrip("/")
    shown = without_password(url)
    if key is None and settings.openai.base_url is None:
        fix = "Set OPENAI_API_KEY, or RAGSMITH_OPENAI__BASE_URL to a server that needs none."
        return Check("model", False, f"{shown} needs a key and there is none.", fix)
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
    answer = fetch(f"{url}/models", headers)
    if answer.ok:
        return Check("model", True, f"{settings.model} at {shown}")
    if answer.status in (401, 403):
        missing = "Set OPENAI_API_KEY: the server wants a key." if key is None else "Correct OPENAI_API_KEY."
        return Check("model", False, f"{shown} refuses: {answer.reason}", missing)
    fix = "Start the server, or correct RAGSMITH_OPENAI__BASE_URL; `--model embedded` needs no server."
    return Check("model", False, f"{shown}: {answer.reason}", fix)


def _check_tuned(settings: Settings) -> Check:
    """The tuned reader or generator is whole, and was made for the weights that are here."""
    from rag.models.chat_models import check_model_name

    check_model_name(settings.model)
    task, name = {
        "embedded": ("reader", settings.reader.adapter),
        "generator": ("generator", settings.generator.adapter),
    }[settings.model]
    if not name:
        return Check("model", True, f"{settings.model}, without a tuned reader; no server needed")
    from rag.encoders.adapters import find_adapter
    from rag.encoders.tuned_conversion import check_base
    from rag.workspace import open_workspace

    adapter = find_adapter(name, open_workspace(settings.home))
    adapter.check_task(task)
    check_base(adapter)
    return Check("model", True, f"{settings.model}, adapter {adapter.identity}, no server needed")


def _check_local_model(settings: Settings) -> Check:
    """The model is on this machine, has room in its memory, and its adapters are there; nothing is loaded."""
    from rag.models.local.local_engine import check_model, wanted_adapters
    from rag.models.local.local_files import locate_local
    from rag.workspace import open_workspace

    adapters = wanted_adapters(settings.local, open_workspace(settings.home).adapters)
    files = locate_local(settings.model.removeprefix(LOCAL_PREFIX), download=False)
    found = check_model(files, settings.local, adapters)
    answering = f", adapter {settings.local.adapter}" if settings.local.adapter else ""
    return Check("model", True, f"{settings.model} {found}{answering}")


def check_wandb(settings: Settings) -> Check:
    """Where traces go besides the workspace."""
    mode = settings.tracking.wandb
    if mode in ("off", "offline"):
        return Check("wandb", True, mode)
    if _has_wandb_key():
        return Check("wandb", True, f"online, project {settings.tracking.project}")
    if mode == "online":
        fix = "Run `wandb login`, or set RAGSMITH_TRACKING__WANDB=auto."
        return Check("wandb", False, "online is asked for, but nobody is logged in.", fix)
    return Check("wandb", True, "offline, nobody is logged in")


def _has_wandb_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    import netrc
    from urllib.parse import urlsplit

    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            if netrc.netrc(path.expanduser()).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def check_port(settings: Settings) -> Check:
    """The address of the chat page is free, or ragsmith already answers there."""
    import socket

    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    where = f"{host}:{settings.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and fetch(f"http://{where}/healthz").ok:
            return Check("port", True, f"{where}, where a ragsmith already answers")
        fix = "Stop what uses it, or choose another with RAGSMITH_PORT or RAGSMITH_HOST."
        return Check("port", False, f"{where} cannot be used: {error.strerror or error}", fix)
    return Check("port", True, f"{where} is free" if settings.port else f"{host}, any free port")


@dataclass(frozen=True, slots=True)
class Answer:
    """How a server answered a GET; ``status`` is None where it did not."""

    status: int | None
    reason: str

    @property
    def ok(self) -> bool:
        """Whether the server gave what was asked for."""
        return self.status == 200


def fetch(url: str, headers: dict[str, str] | None = None) -> Answer:
    """GET a URL and look at the status only; never raises for what a network can do."""
    from http.client import HTTPException, InvalidURL
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    if not url.startswith(("http://", "https://")):
        return Answer(None, "not an http:// or https:// address")
    try:
        with urlopen(Request(url, headers=headers or {}), timeout=TIMEOUT_S) as reply:  # noqa: S310 - checked above
            return Answer(reply.status, reply.reason)
    except HTTPError as error:
        error.close()
        return Answer(error.code, f"{error.code} {error.reason}")
    except URLError as error:
        return Answer(None, f"no answer ({error.reason})")
    except InvalidURL:
        # What it calls the port may be half of a password.
        return Answer(None, "no http:// or https:// address with a host and a port")
    except (OSError, HTTPException, ValueError) as error:
        return Answer(None, f"no answer ({error or type(error).__name__})")
