"""A prompt engineer's morning: baseline, candidate, gate, label, rollback, whatever the model server sends.

It scripts what the server replies, for the prompt in production and for the candidates, to five questions that the
documents answer and to one that they do not.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from scripted_openai import WRONG_TYPES, Received, Reply, ScriptedOpenAI, chunk, refuses, scripted_openai
from terminal import assert_one_line, call, jsonl, one_object
from tiny import CORPUS, OFF_TOPIC

from prompts import PromptLibrary, find_prompt
from prompts.files import as_draft
from rag.workspace import open_workspace

pytestmark = WRONG_TYPES

# Questions with the sentence that answers them, and the words that it must have.
FACTS = {
    "When was the tide gauge installed?": ("The tide gauge was installed in 1871 by Ida Brandt.", "1871"),
    "How high was the highest water?": ("The highest water was 5.13 metres.", "5.13 metres"),
    "How often does the ferry to Norderney leave?": (
        "The ferry to Norderney leaves every 40 minutes from pier two.",
        "40 minutes",
    ),
    "What must dogs wear on board?": ("Dogs must wear a muzzle on board.", "muzzle"),
    "How long may books be borrowed?": ("Books may be borrowed for three weeks.", "three weeks"),
}
QUESTIONS = (*FACTS, OFF_TOPIC)
REFUSAL = "The documents do not answer this question."
SECOND = "You are the second version."
MARGINS = [f"--allow={margin}" for margin in ("contains=0", "refusal_recall=0", "failed=0", "cost=10%")]


@dataclass(frozen=True)
class Candidate:
    """What the server replies to the candidate, a letter for each question, and what the gate must say.

    Letters: ``r`` right, ``x`` beside the point, ``n`` refused as asked; upper case: behind thoughts. Blocked are
    ``f`` by a filter, ``d`` in the field for refusals, ``e`` empty, ``t`` a tool call, ``c`` within thoughts.

    Attributes:
        worse: The metrics that fail the gate; None if it must end with an error.
        error: A part of that error.
        limited: Whether the server refuses every question at first.
        tokens: Tokens that the candidate reads.
    """

    letters: str
    worse: frozenset[str] | None = frozenset()
    error: str = ""
    limited: bool = False
    tokens: int = 40

    @property
    def failed(self) -> int:
        """How many replies are blocked."""
        return sum(letter in "fdetc" for letter in self.letters)

    @property
    def model(self) -> str:
        """The name of a model that replies like this."""
        return f"{self.letters}-{self.tokens}" + ("-limited" if self.limited else "")


def fails(*metrics: str) -> frozenset[str]:
    return frozenset(metrics)


def nothing_left(side: str) -> dict[str, Any]:
    return {"worse": None, "error": f"All answers of the {side} failed"}


GOOD = Candidate("rrrrrn")
# By baseline, which was asked the day before if it is good.
MORNINGS: dict[Candidate, dict[str, Candidate]] = {
    GOOD: {
        "nothing changed": GOOD,
        "it thinks": Candidate("RRRRRN"),
        "it thinks at a limit": Candidate("rRrRrN", limited=True),
        "answers are filtered": Candidate("fffffn", fails("contains", "failed")),
        "answers are refused by the server": Candidate("dddddn", fails("contains", "failed")),
        "answers are empty": Candidate("eeeeeN", fails("contains", "failed")),
        "answers are tool calls, at a limit": Candidate("tttttn", fails("contains", "failed"), limited=True),
        "answers end within thoughts": Candidate("cccccN", fails("contains", "failed")),
        # Blocked replies are no honest refusals, however well they would fit.
        "refusals are filtered": Candidate("rrrrrf", fails("refusal_recall")),
        "refusals are empty": Candidate("RRRRRe", fails("refusal_recall")),
        "everything is blocked": Candidate("fdetcf", **nothing_left("candidate")),
        "everything is refused, honestly": Candidate("nnnNNn", fails("contains")),
        "everything is answered": Candidate("rrrrrX", fails("refusal_recall")),
        "answers are beside the point": Candidate("xxxXXn", fails("contains")),
        "it costs the same, at a limit": Candidate("rrrrrn", limited=True),
        "it costs more": Candidate("rrrrrn", fails("cost"), tokens=60),
        "it costs more, and thinks": Candidate("rRRrrN", fails("cost"), tokens=60, limited=True),
    },
    Candidate("RRRrrN", limited=True): {
        "both think": Candidate("rrrRRn"),
        "it is blocked, and the baseline thinks": Candidate(
            "fdetRf", fails("contains", "failed", "refusal_recall"), limited=True
        ),
    },
    Candidate("fffffn"): {"the baseline was blocked": Candidate("rrrrrN", limited=True)},
    Candidate("cdetff"): {"the baseline was blocked everywhere": Candidate("rrrrRN", **nothing_left("baseline"))},
}
ALL = [(base, name) for base, candidates in MORNINGS.items() for name in candidates]


@dataclass
class Server:
    """Replies as the name of the model says, and refuses a limited one's first request for every question."""

    refused: set[tuple[str, str]] = field(default_factory=set)

    def __call__(self, reply: Reply, request: Received) -> None:
        name, prompt = str(request.body["model"]), str(request.body["messages"][-1]["content"])
        letters, tokens, *limited = name.split("-")
        question = prompt.rsplit("Question: ", 1)[-1].strip()
        if limited and (name, question) not in self.refused:
            self.refused.add((name, question))
            refuses(429, "Too many requests.", retry_after="0.01")(reply, request)
            return
        letter = letters[QUESTIONS.index(question)]
        known = FACTS[question][0] if question in FACTS else ""
        text = {"r": known, "x": _beside(prompt, known), "n": REFUSAL}.get(letter.lower(), "")
        _send(reply, letter, text, int(tokens))


def _beside(prompt: str, known: str) -> str:
    """Return a sentence of the passages that is not the answer; empty without one."""
    passages = prompt.rsplit("Question: ", 1)[0]
    sentences: list[str] = re.findall(r"\b[A-Z][^.>\n]+\.", passages)
    return next(
        (sentence for sentence in sentences if sentence not in known and (known or "\n") not in sentence), ""
    )


def _send(reply: Reply, letter: str, text: str, tokens: int) -> None:
    ending = {"f": "content_filter", "t": "tool_calls", "c": "length"}.get(letter, "stop")
    reply.head()
    if letter.isupper():
        reply.piece("<think>\nIs it [2] or [3]? The documents do not ")
        reply.piece("answer this question.</thi")
        text = f"nk>\n\n{text}"
    if letter == "c":
        text = "<think>\nThe question is about"
    if letter == "d":
        reply.event(chunk({"refusal": "I can't help with that."}))
    reply.piece(text)
    reply.event(chunk({}, finish_reason=ending))
    usage = {"prompt_tokens": tokens, "completion_tokens": 3, "total_tokens": tokens + 3}
    reply.event({**chunk({}), "choices": [], "usage": usage})
    reply.event(b"[DONE]")
    reply.end()


@pytest.fixture(scope="module")
def desk(harbour: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the documents, a dataset, and a candidate for the prompt ``answer``."""
    folder = tmp_path_factory.mktemp("desk")
    home = shutil.copytree(harbour, folder / "home", symlinks=True)
    cases = [{"question": question, "answers": [words]} for question, (_, words) in FACTS.items()]
    cases += [{"question": question, "must_refuse": True} for question in QUESTIONS[len(FACTS) :]]
    assert call(home, "datasets", "import", "facts", jsonl(folder / "facts.jsonl", cases)).exit_code == 0
    draft = folder / "answer.yaml"
    draft.write_text(
        as_draft(find_prompt("answer")).replace("You answer", f"{SECOND} You answer"), encoding="utf-8"
    )
    assert call(home, "prompts", "edit", "answer", "--file", draft, "-m", "second").exit_code == 0
    models = {one.model for base, candidates in MORNINGS.items() for one in (base, *candidates.values())}
    prices = "".join(f'"{name}" = {{ input = 10, output = 10 }}\n' for name in models)
    (folder / "prices.toml").write_text(f"checked = 2026-01-02\n[models]\n{prices}[machine]\nusd_per_hour = 1\n")
    return home


@pytest.fixture
def server(desk: Path, one_encoder: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedOpenAI]:
    with scripted_openai(Server()) as opened:
        monkeypatch.setenv("RAGSMITH_OPENAI__BASE_URL", opened.base_url)
        monkeypatch.setenv("RAGSMITH_COST__PRICES", str(desk.parent / "prices.toml"))
        monkeypatch.setenv("RAGSMITH_OPENAI__MAX_RETRIES", "0")
        monkeypatch.setenv("RAGSMITH_RETRIEVAL__K", "2")
        monkeypatch.setenv("RAGSMITH_CORPUS", CORPUS)
        yield opened


def variant(name: str, one: Candidate, prompt: str = "answer@production") -> str:
    return f"--variant={name}: model=openai:{one.model} prompt={prompt}"


@dataclass
class Runs:
    """The run of every baseline with all its candidates, made at its first use."""

    home: Path
    known: dict[Candidate, dict[str, Any]] = field(default_factory=dict)

    def of(self, base: Candidate) -> dict[str, Any]:
        if base not in self.known:
            first = variant("base", base)
            if not base.failed and not base.limited:
                assert call(self.home, "eval", "run", "facts", first).exit_code == 0
            candidates = (variant(name, one, "answer@2") for name, one in MORNINGS[base].items())
            ran = call(self.home, "eval", "run", "facts", first, *candidates, "--json")
            assert ran.exit_code == 0, ran.stderr
            self.known[base] = one_object(ran)
        return self.known[base]


@pytest.fixture(scope="module")
def runs(desk: Path) -> Runs:
    return Runs(desk)


@pytest.mark.parametrize(("base", "name"), ALL, ids=[name for _, name in ALL])
def test_the_gate_says_what_is_true(
    desk: Path, server: ScriptedOpenAI, runs: Runs, base: Candidate, name: str
) -> None:
    run, candidate = runs.of(base), MORNINGS[base][name]
    (shown,) = (each for each in run["variants"] if each["name"] == name)
    assert (shown["done"], shown["failed"], shown["cached"]) == (len(QUESTIONS), candidate.failed, 0)
    gated = call(desk, "eval", "gate", run["run"], "--variant", name, *MARGINS, "--json")
    if candidate.worse is None:
        assert_one_line(gated, candidate.error)
        return
    verdict = one_object(gated)
    assert {check["measure"] for check in verdict["checks"] if not check["passed"]} == candidate.worse
    assert gated.exit_code == bool(candidate.worse)


def test_a_version_that_passes_goes_into_production_and_back(desk: Path, server: ScriptedOpenAI) -> None:
    base, candidate = variant("base", GOOD), variant("candidate", GOOD, "answer@2")
    assert call(desk, "eval", "run", "facts", base, candidate).exit_code == 0
    assert call(desk, "eval", "gate", "--variant", "candidate", *MARGINS).exit_code == 0
    for version in ("2", "1"):
        moved = call(desk, "prompts", "label", "answer", "production", version, "-m", "a test")
        assert moved.stdout.endswith(f"→ {version}\n")
        assert PromptLibrary(open_workspace(desk).prompts).find("answer").version == int(version)
        asked = len(server.received)
        ran = call(desk, "eval", "run", "facts", base)
        # The answers of either version are in the cache.
        assert (ran.exit_code, len(server.received)) == (0, asked)
        assert "6 from the cache, which saved $" in ran.stdout


def test_a_server_that_was_down_is_asked_again(desk: Path, server: ScriptedOpenAI) -> None:
    server.script = refuses(500, "worker died")
    variants = variant("base", GOOD), variant("candidate", GOOD, "answer@2")
    down = call(desk, "eval", "run", "facts", *variants, "--fresh")
    assert down.exit_code == 1
    assert "worker died" in down.stderr
    gate = ("eval", "gate", "--variant", "candidate", *MARGINS)
    assert "a gate needs a finished run" in call(desk, *gate).stderr
    server.script = Server()
    assert call(desk, "eval", "resume").exit_code == 0
    assert call(desk, *gate).exit_code == 0
