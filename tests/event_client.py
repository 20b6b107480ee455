"""The events of the page, asked for as any program on the network can ask."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class Outcome:
    """What an event gave: the HTTP status of asking, and the last message of its stream."""

    status: int
    success: bool = False
    output: str = ""


def events(address: str) -> list[dict[str, Any]]:
    """Every event that the page's configuration names and the server handles."""
    named: list[dict[str, Any]] = httpx.get(f"{address}/config").json()["dependencies"]
    return [event for event in named if event["backend_fn"]]


def trigger(
    client: httpx.Client, number: int, data: Sequence[Any], headers: Mapping[str, str] | None = None
) -> Outcome:
    """Ask for an event by its number, and wait for its end."""
    session = uuid.uuid4().hex
    asked = {"data": list(data), "fn_index": number, "session_hash": session, "event_data": None}
    joined = client.post("/gradio_api/queue/join", json=asked, headers=headers)
    if joined.status_code != 200:
        return Outcome(joined.status_code, output=joined.text)
    path = f"/gradio_api/queue/data?session_hash={session}"
    with client.stream("GET", path, headers=headers) as stream:
        for line in stream.iter_lines():
            if not line.startswith("data:"):
                continue
            message = json.loads(line[5:])
            if message["msg"] in ("process_completed", "unexpected_error"):
                return Outcome(200, bool(message.get("success")), json.dumps(message.get("output")))
    return Outcome(200)
