"""A PostgreSQL server of the tests' own, from the binaries that Debian installs."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

USER = "postgres"


def missing() -> str:
    """Why there can be no server; empty if there can."""
    if binaries() is None:
        return "PostgreSQL is not installed: initdb and pg_ctl are neither on the PATH nor in /usr/lib/postgresql"
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed: it is in the extra `postgresql`"
    if os.geteuid() == 0 and USER not in {entry.pw_name for entry in pwd.getpwall()}:
        return "PostgreSQL refuses to run as root, and there is no user postgres"
    return ""


def binaries() -> Path | None:
    """The folder of the newest PostgreSQL."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(folders, key=lambda folder: float(folder.parent.name), default=None)


class PostgresServer:
    """A running server without a network address; ``new_database`` gives the URL of an empty database."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()

    def new_database(self) -> str:
        name = f"test_{next(self._numbers)}"
        run("createdb", "-h", str(self._folder), name)
        return f"postgresql+psycopg://{USER}@/{name}?host={self._folder}"


@contextmanager
def running() -> Iterator[PostgresServer]:
    """Start a server in a folder of its own, and stop it."""
    with tempfile.TemporaryDirectory(prefix="ragsmith-pg-") as name:
        folder = Path(name)
        if os.geteuid() == 0:
            shutil.chown(folder, USER)
        data = str(folder / "data")
        run("initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        options = f"-k {folder} -c listen_addresses= -c fsync=off -c synchronous_commit=off -c max_connections=40"
        run("pg_ctl", "-D", data, "-l", str(folder / "log"), "-o", options, "-w", "start")
        try:
            yield PostgresServer(folder)
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


def run(program: str, *arguments: str) -> None:
    folder = binaries()
    assert folder is not None
    as_other = ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []
    # A user's path may lack the folder of runuser.
    environment = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8", "PGUSER": USER}
    # Output would be a pipe that the server inherits, and nobody closes.
    result = subprocess.run(
        [*as_other, str(folder / program), *arguments],
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd="/",
    )
    assert result.returncode == 0, (program, arguments)
