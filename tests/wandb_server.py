"""A W&B server on the loopback, with as much of its protocol as the client uses for runs.

GraphQL creates and resumes runs and artifacts, ``file_stream`` takes the lines of a run, and a PUT takes a file. A
line of the history has a number, and one with the same number replaces it, as on the real server.
"""

from __future__ import annotations

import gzip
import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

ENTITY = "harbour"
KEY = "k" * 40
HISTORY = "wandb-history.jsonl"
SUMMARY = "wandb-summary.json"


@dataclass
class ServedRun:
    """What the server knows of a run."""

    name: str
    project: str
    config: dict[str, Any] = field(default_factory=dict)
    lines: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    starts: int = 0

    @property
    def history(self) -> list[dict[str, Any]]:
        """Its lines in order."""
        return [self.lines[number] for number in sorted(self.lines)]

    @property
    def traces(self) -> list[str]:
        """The ids of the trace trees in its history."""
        dumps = [line["trace"]["root_span_dumps"] for line in self.history if "trace" in line]
        return [json.loads(dump)["span_id"] for dump in dumps]


class WandbServer(ThreadingHTTPServer):
    """Answers on a port of its own, or on ``port``.

    Attributes:
        runs: The runs by name.
        operations: The names of the GraphQL requests, in order.
        artifacts: Names of the artifacts by id.
        committed: Names of the artifacts with their digests, in order.
        used: Runs with the name of an artifact that they use.
        unknown: Requests that the server does not know; a test expects none.
        refuses: A status that every request is answered with; None to serve.
        busy: Names of GraphQL requests that are put off, as by an overloaded server.
    """

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.lock = threading.Lock()
        self.runs: dict[str, ServedRun] = {}
        self.operations: list[str] = []
        self.unknown: list[str] = []
        self.artifacts: dict[str, str] = {}
        self.committed: list[tuple[str, str]] = []
        self.used: list[tuple[str, str]] = []
        self.refuses: int | None = None
        self.busy: set[str] = set()

    @property
    def base_url(self) -> str:
        """What W&B calls the base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def traces(self) -> list[str]:
        """The ids of all trace trees, as often as they are stored."""
        return [trace_id for run in self.runs.values() for trace_id in run.traces]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up: W&B resets its connections."""

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Answer one GraphQL request."""
        operation = query.split("(")[0].split("{")[0].split()[-1]
        self.operations.append(operation)
        answer = getattr(self, f"_{operation}", None)
        if answer is None:
            self.unknown.append(operation)
            return {}
        found: dict[str, Any] = answer(variables)
        return found

    def take_lines(self, name: str, body: dict[str, Any]) -> None:
        """Store what a run streams."""
        run = self.runs[name]
        for file, part in (body.get("files") or {}).items():
            if file == HISTORY:
                for number, line in enumerate(part["content"], part["offset"]):
                    run.lines[number] = json.loads(line)
            elif file == SUMMARY:
                run.summary = json.loads(part["content"][-1])
        if body.get("complete"):
            run.exit_code = body["exitcode"]

    def _ServerFeaturesQuery(self, _variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"serverInfo": {"features": []}}

    def _Viewer(self, _variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        teams: dict[str, Any] = {"edges": []}
        viewer = {"id": "u", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "teams": teams}
        return {"viewer": viewer}

    def _ArtifactType(self, _variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"project": {"artifact": None}}

    def _UpsertBucket(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        name, project = variables["name"], variables["project"]
        is_new = name not in self.runs
        run = self.runs.setdefault(name, ServedRun(name, project))
        run.starts += 1
        if variables.get("config"):
            run.config = json.loads(variables["config"])
        run.fields |= {key: value for key, value in variables.items() if value and key != "config"}
        bucket = {
            "id": name,
            "name": name,
            "displayName": variables.get("displayName") or name,
            "description": "",
            "config": json.dumps(run.config),
            "sweepName": None,
            "project": {"id": project, "name": project, "entity": {"id": ENTITY, "name": ENTITY}},
            "historyLineCount": len(run.lines),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": is_new}}

    def _RunResumeStatus(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run = self.runs.get(variables["name"])
        bucket = run and {
            "id": run.name,
            "name": run.name,
            "summaryMetrics": json.dumps(run.summary),
            "displayName": run.name,
            "logLineCount": 0,
            "historyLineCount": len(run.lines),
            "eventsLineCount": 0,
            "historyTail": json.dumps([json.dumps(line) for line in run.history[-1:]]),
            "eventsTail": "[]",
            "config": json.dumps(run.config),
            "tags": [],
            "notes": "",
            "wandbConfig": json.dumps({"t": 1}),
        }
        project = variables["project"]
        entity = {"id": ENTITY, "name": ENTITY}
        return {"model": {"id": project, "name": project, "entity": entity, "bucket": bucket}}

    def _CreateRunFiles(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        name = variables["run"]
        files = [{"name": file, "uploadUrl": self._upload(f"{name}/{file}")} for file in variables["files"]]
        return {"createRunFiles": {"runID": name, "uploadHeaders": [], "files": files}}

    def _CreateArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        given = variables["input"]
        found = f"artifact-{len(self.artifacts)}"
        self.artifacts[found] = given["artifactCollectionName"]
        self.committed.append((given["artifactCollectionName"], given["digest"]))
        sequence = {"id": "sequence", "latestArtifact": None, "name": given["artifactCollectionName"]}
        artifact = {"id": found, "state": "PENDING", "artifactSequence": sequence}
        return {"createArtifact": {"artifact": artifact}}

    def _CreateArtifactManifest(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        file = {"id": "m", "uploadUrl": self._upload("manifest/m"), "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}

    def _UpdateArtifactManifest(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        file = {"id": "m", "uploadUrl": self._upload("manifest/m"), "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}

    def _CreateArtifactFiles(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        edges = [
            {
                "node": {
                    "storagePath": spec["name"],
                    "uploadUrl": self._upload(f"artifact/{spec['name']}"),
                    "uploadHeaders": [],
                    "uploadMultipartUrls": None,
                    "artifact": {"id": spec["artifactID"]},
                }
            }
            for spec in variables["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _CommitArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": "d"}}}

    def _UseArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        given = variables["input"]
        self.used.append((given["runName"], self.artifacts[given["artifactID"]]))
        return {"useArtifact": {"artifact": {"id": given["artifactID"]}}}

    def _upload(self, place: str) -> str:
        return f"{self.base_url}/storage/{place}"


class _Handler(BaseHTTPRequestHandler):
    server: WandbServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self._body()
        path = urlsplit(self.path).path
        with self.server.lock:
            if self.server.refuses is not None:
                self._answer({"error": "refused"}, self.server.refuses)
            elif self.headers["Authorization"] != "Basic " + b64encode(f"api:{KEY}".encode()).decode():
                self._answer({"error": "no such key"}, 401)
            elif path == "/graphql":
                asked = json.loads(body)
                if any(f" {name} " in asked["query"] for name in self.server.busy):
                    self._answer({"error": "busy"}, 503)
                    return
                self._answer({"data": self.server.graphql(asked["query"], asked.get("variables") or {})})
            elif path.startswith("/files/") and path.endswith("/file_stream"):
                self.server.take_lines(path.split("/")[-2], json.loads(body))
                self._answer({"limits": {}})
            else:
                self.server.unknown.append(self.path)
                self._answer({}, 404)

    def do_PUT(self) -> None:
        body = self._body()
        _, _, name, file = self.path.split("/", 3)
        with self.server.lock:
            if name in self.server.runs:
                self.server.runs[name].files[file] = body
        self._answer({})

    def do_GET(self) -> None:
        self.server.unknown.append(self.path)
        self._answer({}, 404)

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        return gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body

    def _answer(self, value: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def wandb_server(port: int = 0) -> Iterator[WandbServer]:
    """Serve until the end of the context."""
    server = WandbServer(port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
