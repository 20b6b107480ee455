"""What a prompt version asks of the extractive reader shows in the figures, and the gate tells worse from equal.

Everything is real: the handbook, its questions, the reader, the stores.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from prompts import PromptSettings
from rag.evaluation.case_files import read_cases
from rag.evaluation.gate import Margin, gate
from rag.evaluation.metric_definitions import BY_NAME
from rag.evaluation.run_store import Run
from rag.evaluation.statistics import Estimate
from rag.evaluation.summary import Columns, change, read_columns
from rag.evaluation.variants import Variant
from rag.settings import Settings
from ui.app.app import App, open_app

QUESTIONS = Path(__file__).parent.parent / "corpora" / "handbook" / "questions.jsonl"
FIRST = 190
CASES = 12
DRAWN = 10
DRAWS = 50
# What the versions of the prompt ask for; the text is the same in all of them.
VERSIONS = {
    "equal": PromptSettings(),
    "brief": PromptSettings(style="brief"),
    "narrow": PromptSettings(passages=1),
    "shy": PromptSettings(refuse_below=0.9),
}


@pytest.fixture(scope="module")
def app(handbook_home: Path) -> Iterator[App]:
    made = open_app(Settings(home=handbook_home, tracking={"wandb": "off"}))
    yield made
    made.close()


@pytest.fixture(scope="module")
def run(app: App) -> Run:
    """Questions of the handbook, answered by each version."""
    first = app.stores.prompts.find("answer@1")
    variants = [Variant(name="baseline", changes={"prompt": "answer@1"})]
    for name, settings in VERSIONS.items():
        draft = first.model_copy(update={"settings": settings})
        saved = app.stores.prompts.save(draft, by="a test", message=name)
        variants.append(Variant(name=name, changes={"prompt": saved.label}))
    # Of the first ones, so that a question that is added does not draw others.
    cases = random.Random(4).sample(read_cases(QUESTIONS).cases[:FIRST], CASES)
    app.evaluations.datasets.save("handbook", cases, by="a test", message="some")
    made = app.evaluations.begin("handbook", variants, concurrency=2)
    assert asyncio.run(app.evaluations.work(made, asyncio.Event())) == "finished"
    return app.evaluations.runs.get(made.id)


def columns_of(app: App, run: Run, name: str) -> Columns:
    return read_columns(app.evaluations.runs, run, app.evaluations.variant_of(run, name))


def moved(app: App, run: Run, name: str, measure: str) -> Estimate:
    found = change(columns_of(app, run, "baseline"), columns_of(app, run, name), BY_NAME[measure])
    assert found is not None
    return found


def test_each_setting_that_the_reader_honours_shows_in_the_figures(app: App, run: Run) -> None:
    assert moved(app, run, "brief", "words").high < -5
    assert moved(app, run, "narrow", "input_tokens").high < -200
    assert moved(app, run, "narrow", "recall").value < 0
    assert moved(app, run, "shy", "answered").high < -0.2
    assert moved(app, run, "shy", "refusal_recall").value >= 0


def test_an_equal_version_shows_no_difference_in_what_it_answers(app: App, run: Run) -> None:
    for measure in ("contains", "f1", "recall", "groundedness", "words", "answered"):
        assert moved(app, run, "equal", measure) == Estimate(0.0, 0.0, 0.0, moved(app, run, "equal", measure).n)


@pytest.mark.parametrize(("candidate", "passes"), [("equal", True), ("shy", False)])
def test_the_gate_is_right_in_fifty_of_fifty_draws_of_the_cases(
    app: App, run: Run, candidate: str, passes: bool
) -> None:
    baseline, other = columns_of(app, run, "baseline"), columns_of(app, run, candidate)
    margins = [Margin("contains", 0.02), Margin("groundedness", 0.02)]
    verdicts = []
    for seed in range(DRAWS):
        drawn = np.sort(np.random.default_rng(seed).choice(CASES, DRAWN, replace=False))
        verdicts.append(gate(baseline.of(drawn), other.of(drawn), margins).passed)
    assert verdicts == [passes] * DRAWS
