"""A prompt engineer's morning: baseline, candidate, gate, label, rollback, whatever the model server sends.

Each morning scripts what the server replies, for the prompt in production and for the candidate, to six questions
that the documents answer and to two that they do not.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

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
    "What do members of the library pay?": ("Members pay 20 euros a year; children pay nothing.", "20 euros"),
}
QUESTIONS = (*FACTS, OFF_TOPIC, "How many people live in Ghana?")
REFUSAL = "The documents do not answer this question."
BESIDE = "The lamp is switched on by the harbour master."
SECOND = "You are the second version."
MARGINS = [f"--allow={margin}" for margin in ("contains=0", "refusal_recall=0", "failed=0", "cost=10%")]


@dataclass(frozen=True)
class Morning:
    """What the server replies, a letter for each question, and what the gate must say.

    Letters: ``r`` right, ``x`` beside the point, ``n`` refused as asked; upper case: behind thoughts. Blocked are
    ``f`` by a filter, ``d`` in the field for refusals, ``e`` empty, ``t`` a tool call, ``c`` within thoughts.

    Attributes:
        worse: The metrics that fail the gate; None if it must end with an error.
        error: A part of that error.
        warm: Whether the baseline was asked the day before.
        limited: Whether the server refuses every question at first.
        tokens: Tokens that the candidate reads.
    """

    base: str
    candidate: str
    worse: frozenset[str] | None = frozenset()
    error: str = ""
    warm: bool = False
    limited: bool = False
    tokens: int = 40

    @property
    def models(self) -> tuple[str, str]:
        """The names of the models of the baseline and the candidate."""
        return model(self.base, limited=self.limited), model(self.candidate, self.tokens, limited=self.limited)


def fails(*metrics: str) -> frozenset[str]:
    return frozenset(metrics)


GOOD = "rrrrrrnn"
MORNINGS = {
    "nothing changed": Morning(GOOD, GOOD),
    "the candidate thinks": Morning(GOOD, "RRRRRRNN"),
    "both think, and the server has a limit": Morning("RRRrrrNn", "rrrRRRnN", limited=True),
    "answers are filtered": Morning(GOOD, "ffffffnn", fails("contains", "failed")),
    "answers are refused by the server": Morning(GOOD, "ddddddnn", fails("contains", "failed")),
    "answers are empty": Morning(GOOD, "eeeeeenn", fails("contains", "failed")),
    "answers are tool calls": Morning(GOOD, "ttttttnn", fails("contains", "failed")),
    "answers end within thoughts": Morning(GOOD, "ccccccNN", fails("contains", "failed")),
    # Blocked replies are no honest refusals, however well they would fit.
    "refusals are filtered": Morning(GOOD, "rrrrrrff", fails("refusal_recall")),
    "refusals are empty": Morning(GOOD, "RRRRRRee", fails("refusal_recall")),
    "everything is filtered": Morning(GOOD, "ffffffff", None, "All answers of the candidate failed"),
    "everything is blocked somehow": Morning(GOOD, "fdetcfde", None, "All answers of the candidate failed"),
    "the baseline is blocked": Morning("ffffffff", GOOD, None, "All answers of the baseline failed"),
    "the baseline was worse": Morning("ffffffnn", GOOD, limited=True),
    "it refuses everything, honestly": Morning(GOOD, "nnnnNNnn", fails("contains")),
    "it answers everything": Morning(GOOD, "rrrrrrxX", fails("refusal_recall")),
    "it answers beside the point": Morning(GOOD, "xxxXXXnn", fails("contains")),
    "it costs more": Morning(GOOD, GOOD, fails("cost"), tokens=60),
    "the baseline is cached, and the candidate costs the same": Morning(GOOD, "RrrrrrnN", warm=True, limited=True),
    "the baseline is cached, and the candidate costs more": Morning(
        GOOD, "rrRRrrNn", fails("cost"), warm=True, tokens=60
    ),
    "the baseline is cached, and the candidate is blocked": Morning(
        "rrrRRRnn", "fdetcrff", fails("contains", "failed", "refusal_recall"), warm=True, limited=True
    ),
}


def model(letters: str, tokens: int = 40, *, limited: bool = False) -> str:
    """The name of a model that replies like this."""
    return f"{letters}-{tokens}" + ("-limited" if limited else "")


@dataclass
class Server:
    """Replies as the name of the model says, and refuses a limited one's first request for every question."""

    refused: set[tuple[str, str]] = field(default_factory=set)

    def __call__(self, reply: Reply, request: Received) -> None:
        name = str(request.body["model"])
        letters, tokens, *limited = name.split("-")
        question = str(request.body["messages"][-1]["content"]).rsplit("Question: ", 1)[-1].strip()
        if limited and (name, question) not in self.refused:
            self.refused.add((name, question))
            refuses(429, "Too many requests.", retry_after="0.01")(reply, request)
        else:
            _send(reply, letters[QUESTIONS.index(question)], question, int(tokens))


def _send(reply: Reply, letter: str, question: str, tokens: int) -> None:
    text = {"r": FACTS[question][0] if question in FACTS else "", "x": BESIDE, "n": REFUSAL}.get(
        letter.lower(), ""
    )
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
    names = {name for morning in MORNINGS.values() for name in morning.models}
    prices = "".join(f'"{name}" = {{ input = 10, output = 10 }}\n' for name in names)
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


def variants(morning: Morning) -> tuple[str, str]:
    base, candidate = morning.models
    return (
        f"--variant=base: model=openai:{base} prompt=answer@production",
        f"--variant=candidate: model=openai:{candidate} prompt=answer@2",
    )


@pytest.mark.parametrize("name", MORNINGS)
def test_the_gate_says_what_is_true(desk: Path, server: ScriptedOpenAI, name: str) -> None:
    morning = MORNINGS[name]
    base, candidate = variants(morning)
    if morning.warm:
        assert call(desk, "eval", "run", "facts", base).exit_code == 0
    ran = call(desk, "eval", "run", "facts", base, candidate)
    assert ran.exit_code == 0, ran.output
    blocked = sum(letter in "fdetc" for letter in morning.candidate)
    assert ("eval resume" in ran.stderr) == any(letter in "fdetc" for letter in morning.base + morning.candidate)
    assert (f"{blocked} failed" in ran.stdout) or not blocked
    gated = call(desk, "eval", "gate", "--variant", "candidate", *MARGINS, "--json")
    if morning.worse is None:
        assert_one_line(gated, morning.error)
        return
    verdict = one_object(gated)
    assert {check["measure"] for check in verdict["checks"] if not check["passed"]} == morning.worse
    assert gated.exit_code == bool(morning.worse)


def test_a_version_that_passes_goes_into_production_and_back(desk: Path, server: ScriptedOpenAI) -> None:
    assert call(desk, "eval", "run", "facts", *variants(Morning(GOOD, GOOD))).exit_code == 0
    assert call(desk, "eval", "gate", "--variant", "candidate", *MARGINS).exit_code == 0
    for version in ("2", "1"):
        moved = call(desk, "prompts", "label", "answer", "production", version, "-m", "a test")
        assert moved.stdout.endswith(f"→ {version}\n")
        assert PromptLibrary(open_workspace(desk).prompts).find("answer").version == int(version)
        asked = len(server.received)
        ran = call(desk, "eval", "run", "facts", variants(Morning(GOOD, GOOD))[0])
        # The answers of either version are in the cache.
        assert (ran.exit_code, len(server.received)) == (0, asked)
        assert "8 from the cache, which saved $" in ran.stdout


def test_a_server_that_was_down_is_asked_again(desk: Path, server: ScriptedOpenAI) -> None:
    server.script = refuses(500, "worker died")
    down = call(desk, "eval", "run", "facts", *variants(Morning(GOOD, GOOD)), "--fresh")
    assert down.exit_code == 1
    assert "worker died" in down.stderr
    gate = ("eval", "gate", "--variant", "candidate", *MARGINS)
    assert "a gate needs a finished run" in call(desk, *gate).stderr
    server.script = Server()
    assert call(desk, "eval", "resume").exit_code == 0
    assert call(desk, *gate).exit_code == 0
