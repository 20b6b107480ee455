"""What the trials of a sweep have come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finetune.run_comparison import ComparedRun, RunComparison, compare_runs, compared_run
from finetune.run_folder import RunFolder
from finetune.sweeps.search_space import varies
from finetune.sweeps.sweep_folder import Sweep, SweepFolder
from finetune.sweeps.sweep_study import RUN, importance, open_study, trial_count


@dataclass(frozen=True, slots=True)
class SweepResults:
    """The trials of a sweep side by side.

    Attributes:
        sweep: What it tries.
        trials: Number of trials that it will have.
        finished: Number of those that are over.
        fields: The fields that vary.
        comparison: The trials so far, the best first.
        importance: Share of each field in how much the done trials differ, the highest first; empty if not known.
    """

    sweep: Sweep
    trials: int
    finished: int
    fields: tuple[str, ...]
    comparison: RunComparison
    importance: Mapping[str, float]


def read_results(folder: SweepFolder) -> SweepResults:
    """Read what the trials of a sweep have come to.

    Raises:
        TuningError: The sweep, or a run of it, is damaged.
    """
    sweep, runs = folder.sweep, folder.path.parent
    fields = tuple(dimension.field for dimension in sweep.space if varies(dimension))
    found: list[ComparedRun] = []
    with open_study(folder, sweep) as study:
        trials = study.get_trials(deepcopy=False)
        for trial in trials:
            run = RunFolder(runs / trial.user_attrs.get(RUN, ""))
            # A person may delete runs to make room; one that has no name yet has not begun.
            if run.path != runs and run.path.is_dir():
                found.append(compared_run(run))
        known = importance(study, fields)
    finished = sum(trial.state.is_finished() for trial in trials)
    return SweepResults(sweep, trial_count(sweep), finished, fields, compare_runs(found, fields), known)
