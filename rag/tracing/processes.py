"""Identities of processes, to find the work that a dead process left unfinished."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from sqlalchemy import Connection, Engine, Table, select, update

from rag.database import reading, writing


def process_identity() -> str:
    """Return ``host:pid:start`` of this process; the start tells apart processes that reuse a number."""
    return _identity(os.getpid())


def is_dead(process: str) -> bool:
    """Whether a process ran on this host and has ended."""
    parts = process.rsplit(":", 2)
    if len(parts) != 3 or parts[0] != process_identity().rsplit(":", 2)[0] or not parts[1].isdigit():
        return False
    return (_start_of(int(parts[1])) or "") != parts[2]


def interrupt_dead(
    engine: Engine,
    table: Table,
    on_end: Callable[[Connection, Sequence[str]], None] = lambda _connection, _ids: None,
    **values: str,
) -> int:
    """Mark the running rows of dead processes as interrupted, and return their number.

    Args:
        engine: The database.
        table: A table with the columns ``id``, ``status`` and ``process``.
        on_end: Called in the same transaction with the ids of the rows.
        values: Other columns to set.
    """
    running = table.c.status == "running"
    with reading(engine) as connection:
        processes = connection.scalars(select(table.c.process).where(running).distinct()).all()
    dead = [process for process in processes if is_dead(process)]
    if not dead:
        return 0
    query = update(table).where(running, table.c.process.in_(dead)).values(status="interrupted", **values)
    with writing(engine) as connection:
        ids = connection.scalars(query.returning(table.c.id)).all()
        on_end(connection, ids)
    return len(ids)


@lru_cache(maxsize=1)
def _identity(pid: int) -> str:
    # The column holds 60 characters, and only the host name can exceed its share.
    return f"{socket.gethostname()[:24]}:{pid}:{_start_of(pid) or 0}"


def _start_of(pid: int) -> str | None:
    """Return the start of a process in units of the system; None if there is no such process."""
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        # The second field is the program's name in parentheses, which may contain spaces; the third is the state.
        values = stat.rpartition(")")[2].split()
        return None if values[0] in "ZX" else values[19]
    shown = subprocess.run(  # noqa: S603 - a number is all that varies
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={"LC_ALL": "C", "TZ": "UTC"},
    )
    return re.sub(r"\W+", "", shown.stdout) or None
