"""A prompt engineer's morning: baseline, candidate, run, gate, label, rollback, whatever the model server sends.

Twenty mixtures say what a server replies to the version in production and to a candidate. The right verdict is
computed here from that table alone, exactly, where the product resamples its scores.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import comb
from pathlib import Path
from typing import Any

import pytest
from scripted_openai import Received, Reply, ScriptedOpenAI, chunk, refuses, scripted_openai
from terminal import assert_one_line, call, jsonl, one_object, start
from tiny import CORPUS, OFF_TOPIC

from prompts import PromptLibrary, find_prompt
from prompts.files import as_draft
from rag.workspace import open_workspace

pytestmark = pytest.mark.slow

# Questions with the sentence that answers them, and the words that it must have.
FACTS = {
    "When was the tide gauge installed?": ("The tide gauge was installed in 1871 by Ida Brandt.", "1871"),
    "How high was the highest water?": ("The highest water was 5.13 metres.", "5.13 metres"),
    "How often does the ferry to Norderney leave?": (
        "The ferry to Norderney leaves every 40 minutes from pier two.",
        "40 minutes",
    ),
    "What must dogs wear on board?": ("Dogs must wear a muzzle on board.", "muzzle"),
}
QUESTIONS = (*FACTS, OFF_TOPIC, "Who painted the Night Watch?")
REFUSAL = "The documents do not answer this question."
# Replies without an answer: by a filter, refused in a field of its own, empty, a tool call, ended within thoughts.
BLOCKED = "fdetc"
# The right sentence, after which a filter ends the reply; such an answer is not kept in the cache.
CLIPPED = "p"
RIGHT = "rR" + CLIPPED
REFUSED = "nN"
TAGS = ("think", "thinking", "thought")
TOKENS = 40
MARGINS = ("contains", "refusal_recall", "failed", "cost")
ALLOWED = [f"--allow={name}={'10%' if name == 'cost' else 0}" for name in MARGINS]
# An interval of 95 % for four margins together has so much on either side.
OUTSIDE = 0.05 / len(MARGINS) / 2
SEED = 35
GROUP = 5


@dataclass(frozen=True)
class Side:
    """What a server replies, a letter for each question; upper case: behind thoughts, in these tags.

    ``r`` is right, ``x`` beside the point, ``n`` the refusal that the prompt asks for; others are in ``BLOCKED``.
    """

    letters: str
    tag: str = TAGS[0]
    limited: bool = False
    tokens: int = TOKENS

    @property
    def model(self) -> str:
        """The name of a model that replies like this."""
        return f"{self.letters}-{self.tag}-{self.tokens}{'-limited' if self.limited else ''}"

    @property
    def failed(self) -> int:
        return sum(letter in BLOCKED for letter in self.letters)

    @property
    def cacheable(self) -> int:
        return sum(letter not in BLOCKED + CLIPPED for letter in self.letters)

    def scores(self, metric: str) -> list[int]:
        """The scores by a metric of the cases to which it applies, 1 for good and 0 for bad."""
        answers, refusals = self.letters[: len(FACTS)], self.letters[len(FACTS) :]
        if metric == "contains":
            return [letter in RIGHT for letter in answers]
        if metric == "refusal_recall":
            return [letter in REFUSED for letter in refusals]
        return [letter not in BLOCKED for letter in self.letters]


@dataclass(frozen=True)
class Mixture:
    """One morning.

    Attributes:
        warm: Whether the baseline was asked the day before.
        strict: Whether the gate also fails if it cannot rule out that the candidate is worse.
    """

    base: Side
    candidate: Side
    warm: bool
    strict: bool

    @property
    def probabilities(self) -> list[tuple[float, float]]:
        """By metric, the probability that a resample of the cases is not worse, and that it is."""
        return [self._probability(metric) for metric in MARGINS]

    def _probability(self, metric: str) -> tuple[float, float]:
        if metric == "cost":
            # Only cases that both answered have two costs to compare, and without any the gate cannot pass.
            both = zip(self.base.letters, self.candidate.letters, strict=True)
            known = any(one not in BLOCKED and other not in BLOCKED for one, other in both)
            worse = float(self.candidate.tokens > 1.1 * self.base.tokens or not known)
        else:
            scores = zip(self.base.scores(metric), self.candidate.scores(metric), strict=True)
            worse = chance_of_worse([after - before for before, after in scores], len(QUESTIONS))
        return 1 - worse, worse

    @property
    def is_clear(self) -> bool:
        """Whether 2,000 resamples all but surely agree with the exact probabilities."""
        edges = (chance for both in self.probabilities for chance in both)
        return not any(OUTSIDE / 4 < chance < 3 * OUTSIDE for chance in edges)

    @property
    def worse(self) -> set[str]:
        """The metrics by which the candidate fails."""
        both = zip(MARGINS, self.probabilities, strict=True)
        return {
            name
            for name, (not_worse, worse) in both
            if not_worse < OUTSIDE or (self.strict and not worse < OUTSIDE)
        }

    @property
    def nothing_left(self) -> str:
        """The side without any answer, which no gate can judge; empty if both have one."""
        sides = {"baseline": self.base, "candidate": self.candidate}
        return next((name for name, side in sides.items() if side.failed == len(QUESTIONS)), "")


def chance_of_worse(moves: Sequence[int], cases: int) -> float:
    """The probability that a resample has more falls than rises, given that the metric applies to any of it."""
    falls, rises = moves.count(-1), moves.count(1)
    found = 0.0
    for fallen, risen in product(range(cases + 1), repeat=2):
        if risen < fallen and fallen + risen <= cases:
            rest = cases - fallen - risen
            ways = comb(cases, fallen) * comb(cases - fallen, risen)
            found += ways * falls**fallen * rises**risen * (cases - falls - rises) ** rest / cases**cases
    return found / (1 - ((cases - len(moves)) / cases) ** cases)


def mixtures() -> list[Mixture]:
    """Four baselines, each with five candidates; the table is the same in every run."""
    chance = random.Random(SEED)
    found: list[Mixture] = []
    while len(found) < 20:
        base = _side(chance, chance.choice(["good", "good", "good", "thin", "blocked"]), TOKENS)
        warm, group = chance.random() < 0.6, list[Mixture]()
        while len(group) < GROUP:
            quality = chance.choice(["good", "good", "thin", "blocked", "wrong", "silent", "talkative"])
            candidate = _side(chance, quality, chance.choice([TOKENS] * 3 + [2 * TOKENS]))
            mixture = Mixture(base, candidate, warm, chance.random() < 0.3)
            taken = {base.model, *(other.candidate.model for other in group)}
            if mixture.is_clear and candidate.model not in taken:
                group.append(mixture)
        found += group
    return found


def _side(chance: random.Random, quality: str, tokens: int) -> Side:
    """Draw the replies of a server: ``thin`` blocks one or two of them, and ``blocked`` nearly all."""
    answer, refusal = {"wrong": "xn", "silent": "nn", "talkative": "rx"}.get(quality, "rn")
    letters = list(answer * len(FACTS) + refusal * (len(QUESTIONS) - len(FACTS)))
    blocked = {"thin": chance.randint(1, 2), "blocked": chance.choice([4, 5, len(QUESTIONS)])}.get(quality, 0)
    for at in chance.sample(range(len(letters)), blocked):
        letters[at] = chance.choice(BLOCKED)
    for at, letter in enumerate(letters):
        if letter == "r" and chance.random() < 0.15:
            letters[at] = CLIPPED
        elif letter in "rxn" and chance.random() < 0.4:
            letters[at] = letter.upper()
    return Side("".join(letters), chance.choice(TAGS), chance.random() < 0.3, tokens)


MIXTURES = mixtures()
GOOD, MIXED, FILTERED = Side("rrrrnn"), Side("rRrRnN", TAGS[1], limited=True), Side("ffffnn")
SIDES = {GOOD, MIXED, FILTERED, *(side for one in MIXTURES for side in (one.base, one.candidate))}


def test_the_mixtures_have_everything_that_goes_wrong_in_a_morning() -> None:
    candidates = [mixture.candidate for mixture in MIXTURES]
    replies = {letter for side in candidates for letter in side.letters}
    assert replies == set(RIGHT + REFUSED + BLOCKED + "xX")
    assert {side.tag for side in candidates} == set(TAGS)
    for both in ([side.limited for side in candidates], [mixture.warm for mixture in MIXTURES]):
        assert set(both) == {True, False}
    assert set.union(*(mixture.worse for mixture in MIXTURES)) == set(MARGINS)
    good = [mixture for mixture in MIXTURES if not mixture.worse and not mixture.nothing_left]
    assert 5 <= len(good) <= 15
    assert any(mixture.strict for mixture in good)
    assert any(mixture.nothing_left for mixture in MIXTURES)


@dataclass
class Server:
    """Replies as the name of the model says, and refuses a limited one's first request for every question."""

    refused: set[tuple[str, str]] = field(default_factory=set)

    def __call__(self, reply: Reply, request: Received) -> None:
        name, prompt = str(request.body["model"]), str(request.body["messages"][-1]["content"])
        letters, tag, tokens, *limited = name.split("-")
        question = prompt.rsplit("Question: ", 1)[-1].strip()
        if limited and (name, question) not in self.refused:
            self.refused.add((name, question))
            refuses(429, "Too many requests.", retry_after="0.01")(reply, request)
            return
        letter = letters[QUESTIONS.index(question)]
        known = FACTS[question][0] if question in FACTS else ""
        others = (sentence for sentence, _ in FACTS.values() if sentence.rstrip(".") in prompt)
        beside = next((sentence for sentence in others if sentence != known), "Nobody knows.")
        text = {"n": REFUSAL, "x": beside}.get(letter.lower(), known)
        _send(reply, letter, text, tag, int(tokens))


def _send(reply: Reply, letter: str, text: str, tag: str, tokens: int) -> None:
    ending = {"f": "content_filter", "p": "content_filter", "t": "tool_calls", "c": "length"}.get(letter, "stop")
    reply.head()
    if letter.isupper():
        reply.piece(f"<{tag}>\nIs it [2] or [3]? {REFUSAL}")
        reply.piece(f"</{tag[:2]}")
        reply.piece(f"{tag[2:]}>\n\n{text}")
    elif letter == "c":
        reply.piece(f"<{tag}>\nThe question is about")
    elif letter == "d":
        reply.event(chunk({"refusal": "I can't help with that."}))
    elif letter not in BLOCKED:
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
    cases: list[dict[str, Any]] = [{"question": one, "answers": [words]} for one, (_, words) in FACTS.items()]
    cases += [{"question": question, "must_refuse": True} for question in QUESTIONS[len(FACTS) :]]
    assert call(home, "datasets", "import", "facts", jsonl(folder / "facts.jsonl", cases)).exit_code == 0
    draft = folder / "answer.yaml"
    draft.write_text(as_draft(find_prompt("answer")).replace("You answer", "Be brief. You answer"))
    assert call(home, "prompts", "edit", "answer", "--file", draft, "-m", "brief").exit_code == 0
    prices = "".join(f'"{side.model}" = {{ input = 10, output = 10 }}\n' for side in SIDES)
    (folder / "prices.toml").write_text(f"checked = 2026-01-02\n[models]\n{prices}[machine]\nusd_per_hour = 0\n")
    return home


@pytest.fixture
def server(desk: Path, one_encoder: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedOpenAI]:
    with scripted_openai(Server()) as opened:
        monkeypatch.setenv("RAGSMITH_OPENAI__BASE_URL", opened.base_url)
        monkeypatch.setenv("RAGSMITH_COST__PRICES", str(desk.parent / "prices.toml"))
        monkeypatch.setenv("RAGSMITH_RETRIEVAL__K", "2")
        monkeypatch.setenv("RAGSMITH_CORPUS", CORPUS)
        yield opened


def variant(name: str, side: Side, prompt: str = "answer@production") -> str:
    return f"--variant={name}: model=openai:{side.model} prompt={prompt}"


def gate(desk: Path, run: str, mixture: Mixture, name: str) -> list[str | Path]:
    strict = ["--strict"] if mixture.strict else []
    return ["eval", "gate", run, "--variant", name, *ALLOWED, *strict, "--json"]


def in_production(desk: Path) -> int:
    return PromptLibrary(open_workspace(desk).prompts).find("answer").version


@pytest.mark.parametrize("start", range(0, len(MIXTURES), GROUP))
def test_the_verdicts_are_right_and_what_passes_goes_into_production_and_back(
    desk: Path, server: ScriptedOpenAI, start: int
) -> None:
    group = MIXTURES[start : start + GROUP]
    base = group[0].base
    known = 0
    if group[0].warm and base.cacheable:
        assert call(desk, "eval", "run", "facts", variant("base", base)).exit_code == 0
        known = base.cacheable
    names = [f"c{at}" for at in range(len(group))]
    candidates = (variant(name, one.candidate, "answer@2") for name, one in zip(names, group, strict=True))
    ran = call(desk, "eval", "run", "facts", variant("base", base), *candidates, "--json")
    assert ran.exit_code == 0, ran.stderr
    run = one_object(ran)
    shown = [(one["done"], one["failed"], one["cached"]) for one in run["variants"]]
    sides = [base, *(mixture.candidate for mixture in group)]
    assert shown == [(len(QUESTIONS), side.failed, known if side is base else 0) for side in sides]
    for name, mixture in zip(names, group, strict=True):
        gated = call(desk, *gate(desk, run["run"], mixture, name))
        if mixture.nothing_left:
            assert_one_line(gated, f"All answers of the {mixture.nothing_left} failed")
            continue
        verdict = one_object(gated)
        assert {check["measure"] for check in verdict["checks"] if not check["passed"]} == mixture.worse
        assert gated.exit_code == bool(mixture.worse)
        if not gated.exit_code:
            for version in (2, 1):
                call(desk, "prompts", "label", "answer", "production", str(version), "-m", name)
                assert in_production(desk) == version


def test_a_server_that_was_down_is_asked_again(desk: Path, server: ScriptedOpenAI) -> None:
    server.script = refuses(500, "worker died", retry_after="0")
    variants = variant("base", GOOD), variant("other", GOOD, "answer@2")
    down = call(desk, "eval", "run", "facts", *variants, "--fresh")
    assert down.exit_code == 1
    assert "worker died" in down.stderr
    asked = ("eval", "gate", "--variant", "other", "--allow", "contains=0")
    assert "a gate needs a finished run" in call(desk, *asked).stderr
    server.script = Server()
    assert call(desk, "eval", "resume").exit_code == 0
    assert call(desk, *asked).exit_code == 0


def test_a_script_stops_at_the_gate_and_a_rollback_brings_back_the_answers(
    desk: Path, server: ScriptedOpenAI
) -> None:
    """In processes of their own, whose exit statuses a script reads."""

    def status(*arguments: str) -> int:
        process = start(desk, *arguments)
        process.communicate(timeout=120)
        return process.returncode

    base = variant("base", MIXED)
    variants = variant("thinks", MIXED, "answer@2"), variant("filtered", FILTERED, "answer@2")
    assert status("eval", "run", "facts", base, *variants) == 0
    assert status("eval", "gate", "--variant", "filtered", *ALLOWED) == 1
    assert call(desk, "eval", "gate", "--variant", "thinks", *ALLOWED).exit_code == 0
    assert status("prompts", "label", "answer", "production", "2", "-m", "a script") == 0
    assert in_production(desk) == 2
    call(desk, "prompts", "label", "answer", "production", "1", "-m", "a rollback")
    asked = len(server.received)
    ran = call(desk, "eval", "run", "facts", base)
    assert (ran.exit_code, len(server.received)) == (0, asked)
    assert f"{len(QUESTIONS)} from the cache, which saved $" in ran.stdout
