from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from event_client import events, trigger
from live_server import running
from scripted_app import ScriptedApp

from rag.errors import LoadError
from rag.settings import Settings
from ui.pages.uploads import check_folder, check_references, offers_folders

SECRET = "the combination of the safe is 4711"


def reference(path: object) -> dict[str, Any]:
    return {"path": str(path), "orig_name": "notes.md", "meta": {"_type": "gradio.FileData"}}


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("elsewhere") / "secret.md"
    path.write_text(SECRET)
    return path


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedApp]:
    home = tmp_path_factory.mktemp("page-files")
    made = ScriptedApp(home, Settings(home=home, host="0.0.0.0", access={"no_auth": True}))
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(app: ScriptedApp) -> Iterator[httpx.Client]:
    with running(app) as address, httpx.Client(base_url=address, timeout=30) as opened:
        yield opened


def kept_copies(app: ScriptedApp) -> list[Path]:
    """The files of the workspace that hold the secret."""
    return [
        path for path in app.workspace.root.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()
    ]


@pytest.mark.slow
def test_no_event_takes_a_file_that_was_not_uploaded(app: ScriptedApp, client: httpx.Client, secret: Path) -> None:
    asked = [event for event in events(str(client.base_url)) if event["inputs"]]
    assert len(asked) > 50
    forms = cycle((reference(secret), [reference(secret)], {"value": {"files": [reference(secret)]}}))

    def is_refused(event: dict[str, Any]) -> bool:
        outcome = trigger(client, event["id"], list(islice(forms, len(event["inputs"]))))
        return not outcome.success and "must be uploaded" in outcome.output and SECRET not in outcome.output

    with ThreadPoolExecutor(8) as several:
        refused = list(several.map(is_refused, asked))
    taken = [event["targets"] for event, was_refused in zip(asked, refused, strict=True) if not was_refused]
    assert taken == []
    assert kept_copies(app) == []
    assert app.ingested == []


@pytest.mark.parametrize(
    "path",
    [
        "/etc/hostname", "ragsmith.db", "tmp/../ragsmith.db", "http://127.0.0.1:9/x", "file:///etc/hostname", "",
        "tmp\x00/../../x",
    ],
)  # fmt: skip
def test_the_upload_event_takes_no_other_path(app: ScriptedApp, client: httpx.Client, path: str) -> None:
    upload = next(
        event["id"]
        for event in events(str(client.base_url))
        if any(trigger_name == "upload" for _, trigger_name in event["targets"])
    )
    if not path.startswith(("/", "http", "file")):
        path = f"{app.workspace.root}/{path}"
    outcome = trigger(client, upload, [[reference(path)], "documents", "documents"])
    assert not outcome.success
    assert app.ingested == []


def test_a_link_in_the_upload_folder_leads_nowhere(tmp_path: Path, secret: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    (folder / "link.md").symlink_to(secret)
    with pytest.raises(LoadError, match="must be uploaded"):
        check_references([reference(folder / "link.md")], folder)


def test_a_folder_is_no_upload(tmp_path: Path) -> None:
    (tmp_path / "hash").mkdir()
    for folder in (tmp_path, tmp_path / "hash"):
        with pytest.raises(LoadError, match="must be uploaded"):
            check_references([reference(folder)], tmp_path)


def test_a_hidden_file_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / ".hidden.md").write_text("notes")
    with pytest.raises(LoadError, match="must not be hidden"):
        check_references([reference(tmp_path / ".hidden.md")], tmp_path)


def test_what_was_uploaded_is_taken(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("notes")
    check_references([[reference(tmp_path / "notes.md")], "documents", None, 3], tmp_path)


def test_a_deeply_nested_reference_is_found(tmp_path: Path, secret: Path) -> None:
    value: Any = reference(secret)
    for _ in range(5_000):
        value = [{"value": value}]
    with pytest.raises(LoadError, match="must be uploaded"):
        check_references(value, tmp_path)


class TestFolders:
    """Folders of the server, which a person names on the page."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "documents"
        (root / "inside").mkdir(parents=True)
        return root

    def settings(self, root: Path, **changes: Any) -> Settings:
        return Settings(ingest={"folder_roots": [str(root)]}, **changes)

    def test_they_are_off_until_a_root_is_named(self, root: Path) -> None:
        assert not offers_folders(Settings())
        with pytest.raises(LoadError, match="cannot be added from this page"):
            check_folder(Settings(), str(root), {})

    def test_a_folder_below_a_root_is_taken(self, root: Path) -> None:
        assert check_folder(self.settings(root), f"{root}/inside/../inside", {}) == root / "inside"

    @pytest.mark.parametrize("named", ["/etc", "..", "{root}/..", "{root}-other", "~", "{root}/out"])
    def test_nothing_outside_a_root_is_taken(self, root: Path, named: str) -> None:
        (root / "out").symlink_to("/etc")
        with pytest.raises(LoadError, match="must be inside a folder"):
            check_folder(self.settings(root), named.format(root=root), {})

    @pytest.mark.parametrize(
        "changes",
        [
            {"host": "0.0.0.0"},
            {"host": "10.0.0.1"},
            {"access": {"password": "secret"}},
            {"access": {"allowed_hosts": ["rag.example.org"]}},
        ],
    )
    def test_they_are_off_where_others_reach_the_page(self, root: Path, changes: dict[str, Any]) -> None:
        settings = self.settings(root, **changes)
        assert not offers_folders(settings)
        with pytest.raises(LoadError, match="cannot be added from this page"):
            check_folder(settings, str(root), {})

    @pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "via", "x-real-ip"])
    def test_they_are_off_for_a_request_that_a_proxy_passes_on(self, root: Path, header: str) -> None:
        with pytest.raises(LoadError, match="cannot be added from this page"):
            check_folder(self.settings(root), str(root), {header: "10.0.0.9"})

    def test_the_event_is_refused_on_the_page(self, app: ScriptedApp, client: httpx.Client, root: Path) -> None:
        named = [
            event["id"]
            for event in events(str(client.base_url))
            if len(event["inputs"]) == 3 and any(name in ("click", "submit") for _, name in event["targets"])
        ]
        for number in named:
            trigger(client, number, [str(root), "documents", "documents"])
        # One of the events takes the address of a page, which is no path of this machine.
        assert [paths for _, paths in app.ingested if paths] == []
        assert json.loads(client.get("/healthz").text)["status"] == "ok"
