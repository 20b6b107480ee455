"""Fixtures that every test may use, and the clean surroundings in which each one runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from rag.workspace import Workspace, open_workspace

FOREIGN = ("RAGSMITH_", "WANDB_", "OPENAI_")
# Read by the libraries when they are imported, so they stand before any test is collected.
OFFLINE = {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}

hypothesis_settings.register_profile("here", deadline=None, max_examples=40)
hypothesis_settings.register_profile("ci", deadline=None, max_examples=40, derandomize=True)
hypothesis_settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_configure() -> None:
    """What the caller's shell says must not reach a test."""
    for name in foreign_variables():
        del os.environ[name]
    os.environ.update(OFFLINE)


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
