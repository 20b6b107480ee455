"""The trials of a sweep in the storage of optuna.

The values of a trial depend on the seed, its number and the trials before it alone, so a sweep that was
interrupted tries what an uninterrupted one does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from finetune.sweeps.search_space import Choices, Dimension, Value, grid_size, grid_values
from finetune.sweeps.sweep_folder import Sweep, SweepFolder
from rag.errors import TuningError, first_line

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler

# Attribute of a trial: the name of its run.
RUN = "run"


@contextmanager
def open_study(folder: SweepFolder, sweep: Sweep) -> Iterator[Study]:
    """Open the trials of a sweep, creating them if there are none.

    Raises:
        TuningError: The database cannot be read or written.
    """
    import optuna
    from optuna.exceptions import StorageInternalError
    from optuna.pruners import MedianPruner, NopPruner
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{folder.study}")
        try:
            pruner = MedianPruner(n_startup_trials=sweep.startup) if sweep.prune else NopPruner()
            yield optuna.create_study(
                study_name=sweep.name,
                storage=storage,
                # The values of every trial are given, see `next_trial`.
                sampler=optuna.samplers.RandomSampler(),
                pruner=pruner,
                load_if_exists=True,
            )
        finally:
            storage.engine.dispose()
    except (StorageInternalError, SQLAlchemyError) as error:
        raise TuningError(
            f"The trials in {folder.study} cannot be read or written: {first_line(error)}.",
            fix="Free some space if the disk is full; delete the sweep's folder if the file is damaged.",
        ) from error


def next_trial(study: Study, sweep: Sweep) -> tuple[Trial, dict[str, Value]] | None:
    """Return a trial that an earlier process has not finished, else a new one, with its values.

    Returns:
        None if all trials are finished.
    """
    from optuna.trial import Trial, TrialState

    unfinished = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    if unfinished:
        trial = Trial(study, unfinished[0]._trial_id)
    else:
        if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            number = len(study.get_trials(deepcopy=False))
            if number >= trial_count(sweep):
                return None
            # Stored at once and before anything else, so that a crash loses none of the values.
            study.enqueue_trial(_new_values(study, sweep, number))
        trial = study.ask()
    return trial, _suggested(trial, sweep.space)


def trial_count(sweep: Sweep) -> int:
    """Return the number of trials that a sweep will have."""
    return min(sweep.trials, grid_size(sweep.space)) if sweep.method == "grid" else sweep.trials


def least_completed(fields: Sequence[str]) -> int:
    """Return the number of completed trials below which nothing can be said about the importance of fields."""
    return max(4, 2 * len(fields))


def importance(study: Study, fields: Sequence[str]) -> Mapping[str, float]:
    """Return the share of each field in how much the trials differ, the highest first; they add up to 1.

    Computed by functional ANOVA (Hutter and others, ICML 2014) on the completed trials; empty if these are too few
    or all alike, or if scikit-learn is not installed.
    """
    from importlib.util import find_spec

    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    if find_spec("sklearn") is None:
        return {}
    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(completed) < least_completed(fields) or len({trial.value for trial in completed}) < 2:
        return {}
    # The default of optuna looks at the best tenth of the trials, which says little about a handful.
    evaluator = FanovaImportanceEvaluator(seed=0)
    found = get_param_importances(study, params=list(fields), evaluator=evaluator)
    return {field: float(share) for field, share in found.items()}


def _new_values(study: Study, sweep: Sweep, number: int) -> dict[str, Value]:
    import optuna

    if sweep.method == "grid":
        return grid_values(sweep.space, number)
    seed = (sweep.seed * 1_000_003 + number) % 2**32
    sampler: BaseSampler = (
        optuna.samplers.TPESampler(n_startup_trials=sweep.startup, seed=seed)
        if sweep.method == "tpe"
        else optuna.samplers.RandomSampler(seed)
    )
    copy = optuna.create_study(sampler=sampler)
    copy.add_trials(study.get_trials(deepcopy=False))
    return _suggested(copy.ask(), sweep.space)


def _suggested(trial: Trial, space: Sequence[Dimension]) -> dict[str, Value]:
    return {dimension.field: _suggested_value(trial, dimension) for dimension in space}


def _suggested_value(trial: Trial, dimension: Dimension) -> Value:
    field = dimension.field
    if isinstance(dimension, Choices):
        chosen: Value = trial.suggest_categorical(field, dimension.values)  # type: ignore[assignment]
        return chosen
    if isinstance(dimension.low, int) and isinstance(dimension.high, int):
        return trial.suggest_int(field, dimension.low, dimension.high, log=dimension.log)
    return trial.suggest_float(field, dimension.low, dimension.high, log=dimension.log)
