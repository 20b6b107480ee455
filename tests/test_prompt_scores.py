"""The score of a prompt's versions comes from the newest evaluation that asked them."""

from __future__ import annotations

import pytest
from run_cells import cell
from sqlalchemy import Engine

from rag.evaluation.prompt_scores import newest_scores
from rag.evaluation.run_store import Plan, RunStatus, RunStore
from rag.evaluation.variants import Variant
from rag.tracing.prompt_usage import PromptUse, VersionUse
from ui.pages.prompts.prompts_view import use_html


def kept(
    engine: Engine, variants: dict[str, dict[str, object]], right: dict[str, float], status: RunStatus = "finished"
) -> str:
    """A run in which each variant answered ten cases, so large a share of them right."""
    store = RunStore(engine)
    plan = Plan(
        variants=tuple(Variant(name=name, changes=changes) for name, changes in variants.items()),
        states=("",) * len(variants),
        corpus="notes",
    )
    run = store.begin(plan, name="a run", dataset="ten", version=3, sha256="")
    for number, name in enumerate(variants):
        store.keep(run.id, [cell(number, at, float(at < 10 * right[name])) for at in range(10)])
    store.end(run.id, status)
    return run.id


def test_the_newest_finished_run_that_asked_a_version_gives_its_score(engine: Engine) -> None:
    first = kept(engine, {"a": {"prompt": "answer@1"}, "b": {"prompt": "answer@2"}}, {"a": 0.5, "b": 0.6})
    second = kept(engine, {"new": {"prompt": "answer@2"}}, {"new": 0.9})
    kept(engine, {"cut": {"prompt": "answer@2"}}, {"cut": 0.1}, "stopped")
    found = newest_scores(RunStore(engine), "answer")
    assert {version: (each.run.id, each.variant, each.estimate.value) for version, each in found.items()} == {
        1: (first, "a", 0.5),
        2: (second, "new", 0.9),
    }


def test_a_variant_that_changed_the_prompt_alone_speaks_for_it(engine: Engine) -> None:
    changed: dict[str, dict[str, object]] = {
        "wide": {"prompt": "answer@1", "retrieval.k": 9},
        "plain": {"prompt": "answer@1"},
    }
    kept(engine, changed, {"wide": 0.2, "plain": 0.8})
    assert newest_scores(RunStore(engine), "answer")[1].variant == "plain"


@pytest.mark.parametrize("prompt", ["answer-brief@1", "answer", "answer@", ""])
def test_other_prompts_have_no_part_in_it(engine: Engine, prompt: str) -> None:
    kept(engine, {"a": {"prompt": prompt} if prompt else {}}, {"a": 1.0})
    assert newest_scores(RunStore(engine), "answer") == {}


def test_the_table_shows_the_score_with_its_run_also_of_a_version_without_traces(engine: Engine) -> None:
    run = kept(engine, {"<b>a": {"prompt": "answer@2"}}, {"<b>a": 0.7})
    use = PromptUse((VersionUse(1, answers=4),), 4, 4)
    html = use_html(use, newest_scores(RunStore(engine), "answer"), "answer", 1)
    assert f'<a href="?tab=evaluate&amp;run={run}" title="&lt;b&gt;a: ' in html
    assert "10 cases of ten@3" in html
    assert ">70.0 %</a>" in html
    assert html.index(">v2</button>") < html.index(">v1</button>")
