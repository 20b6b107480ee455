"""Runs side by side on the page: the best first, everything escaped, and every line within its drawing."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from scripted_training import Scripted, a_sweep, train

from finetune.run_comparison import ComparedRun, compare_runs
from finetune.run_folder import RunFolder, Status
from finetune.sweeps.search_space import Choices, Range
from finetune.sweeps.sweep_results import read_results
from rag.workspace import Workspace
from ui.pages.tune.compare_view import comparison_html, sweep_html
from ui.pages.tune.parallel_coordinates import BASE, HEIGHT, LEFT, RIGHT, TOP, WIDTH, parallel_coordinates

SPACE = (
    Range(field="learning_rate", low=1e-5, high=1e-2, log=True),
    Choices(field="rank", values=(16, 4, 8)),
    Choices(field="base", values=("smollm2", "some/long-name-of-a-base-model")),
    Range(field="dropout", low=0.0, high=0.5),
)


def a_run(number: int, loss: float | None, **settings: object) -> ComparedRun:
    curve = () if loss is None else ((5, loss),)
    return ComparedRun(
        f"run-{number}",
        "done",
        loss,
        5,
        "",
        "base",
        "data",
        settings,
        curve,  # type: ignore[arg-type]
    )


@st.composite
def trials(draw: st.DrawFn) -> list[ComparedRun]:
    loss = st.none() | st.floats(0, 1e6)
    values = {
        "learning_rate": st.floats(1e-5, 1e-2),
        "rank": st.sampled_from((16, 4, 8)),
        "base": st.sampled_from(("smollm2", "some/long-name-of-a-base-model")),
        "dropout": st.floats(0, 0.5),
    }
    made = st.tuples(loss, st.fixed_dictionaries(values))
    return [a_run(number, loss, **settings) for number, (loss, settings) in enumerate(draw(st.lists(made)))]


@given(trials())
def test_each_trial_with_a_loss_is_a_line_within_the_drawing(runs: list[ComparedRun]) -> None:
    drawing = parallel_coordinates(SPACE, runs)
    assert [axis.title for axis in drawing.axes] == ["learning_rate", "rank", "base", "dropout", "validation loss"]
    assert [line.number for line in drawing.lines] == [n for n, run in enumerate(runs) if run.loss is not None]
    for line in drawing.lines:
        places = [tuple(map(float, point.split(","))) for point in line.points.split()]
        assert len(places) == len(drawing.axes)
        assert all(LEFT <= x <= RIGHT and TOP - 0.1 <= y <= BASE + 0.1 for x, y in places)
    ticks = [tick for axis in drawing.axes for tick in axis.ticks]
    assert all(0 <= tick.x <= WIDTH and 0 <= tick.y <= HEIGHT for tick in ticks)


def test_choices_of_numbers_are_ordered_and_long_ones_shortened() -> None:
    axes = parallel_coordinates(SPACE, []).axes
    assert [tick.label for tick in axes[1].ticks] == ["4", "8", "16"]
    assert [tick.label for tick in axes[2].ticks] == ["smollm2", "…e-of-a-base-model"]
    assert axes[1].ticks[0].y > axes[1].ticks[-1].y


def test_names_and_messages_are_escaped(workspace: Workspace, tmp_path: Path) -> None:
    def failing(run: RunFolder) -> None:
        if run.name == "swept-001":
            run.write_status(Status("failed", message='"><script>alert(1)</script>', diverged=True))
        else:
            train(run)

    space = ("base=<img src=x>,<b>two</b>", "learning_rate=0.001,0.002")
    scripted = Scripted(workspace, a_sweep(tmp_path, space, "grid", 9, prune=False))
    scripted.work(failing)
    results = read_results(scripted.folder)
    for by in (None, "base"):
        for html in (sweep_html(results, by), comparison_html(results.comparison, by)):  # type: ignore[arg-type]
            assert "<script" not in html
            assert "<img" not in html
            assert "<b>" not in html
            assert "&lt;img src=x&gt;" in html
    assert "swept: grid, 4 of 4 trials · 3 done · 1 failed" in sweep_html(results, None)
    assert "The importance of each setting is known when 4 trials are done." in sweep_html(results, None)


def test_runs_without_a_validation_are_listed_without_a_curve() -> None:
    html = comparison_html(compare_runs([a_run(0, None), a_run(1, 0.5)]), None)
    assert html.index("run-1") < html.index("run-0")
    assert html.count("<polyline") == 1
