"""W&B tracking of a training run: configuration, curves, and as artifacts its data and adapters.

Every process that trains has a W&B run of its own; they share the name of the training run as their group, and
those of a sweep the name of the sweep. A tracker that fails is disabled and never fails the training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.data.chat_rows import SUFFIX, read_chat_rows
from finetune.predictions import Prediction
from finetune.prepared.data_versions import TRAINING, DataVersion
from finetune.recipe import VALIDATION
from finetune.training import Point
from rag.encoders.adapter_artifact import adapter_artifact
from rag.encoders.adapters import Adapter
from rag.settings import TrackingSettings
from rag.tracing.day_figures import cost_values
from rag.tracing.ledger import Spending
from rag.tracing.wandb_artifacts import folder_artifact, log_input, manifest_artifact
from rag.tracing.wandb_run import RunLabel, TrackedRun, open_run
from rag.tracing.wandb_table import RunTable

# Rows of each side in the table of the data; the artifact has all.
TABLE_ROWS = 100
PREDICTION_COLUMNS = ("row", "prompt", "target", "text", "loss")
# Validations whose samples share a table; W&B shows at most 100 of its versions.
SAMPLE_INCREMENTS = 100


class TrainingTracker:
    """Reports a training to its W&B run; where there is none, nothing happens.

    Args:
        settings: Project and mode.
        root: The workspace's folder.
        name: The training's name.
        config: Recipe and data version.
        sweep: The sweep that the training is a trial of; empty if of none.
    """

    def __init__(
        self, settings: TrackingSettings, root: Path, name: str, config: Mapping[str, Any], *, sweep: str = ""
    ) -> None:
        self._name = name
        label = RunLabel(f"the training {name}", "tune", group=sweep or name, name=name if sweep else None)
        self.run: TrackedRun = open_run(settings, root, config, label)
        self._samples = RunTable("samples", ("stage", "step", *PREDICTION_COLUMNS), SAMPLE_INCREMENTS)

    def point(self, point: Point) -> None:
        """Log a point, and the validation metrics and samples if it has any."""
        values: dict[str, Any] = {
            f"{point.stage}/loss": point.loss,
            f"{point.stage}/learning_rate": point.learning_rate,
            f"{point.stage}/gradient_norm": point.gradient_norm,
            f"{point.stage}/step": point.step,
            "tokens_per_s": point.tokens_per_s,
            "seconds": point.seconds,
        }
        values |= {f"validation/{name}": value for name, value in (point.figures or {}).items()}
        self.run.attempt(lambda run: run.log(values))
        self._samples.rows += [(point.stage, point.step, *_cells(sample)) for sample in point.samples]
        self.run.attempt(self._samples.write)

    def data(self, folder: Path, version: DataVersion) -> None:
        """Log the prepared data as an input, and their first rows as a table."""

        def log(run: Any) -> None:
            import wandb

            artifact = folder_artifact("dataset", f"data-{version.name}", folder, _metadata(version))
            log_input(run, artifact, ("latest", f"n{version.number}", version.folder_name))
            table = wandb.Table(columns=["side", "prompt", "completion"])
            for side in (TRAINING, VALIDATION):
                if (folder / f"{side}{SUFFIX}").is_file():
                    for row in read_chat_rows(folder, side, TABLE_ROWS):
                        table.add_data(side, "\n\n".join(turn.content for turn in row.turns), row.completion)
            run.log({"data": table})

        self.run.attempt(log)

    def rows(self, recipe: str, data: Mapping[str, Any]) -> None:
        """Log numbers and hashes of the rows of other data as an input; the rows stay here, since nobody prepared
        them for others to see.
        """
        self.run.attempt(lambda run: log_input(run, manifest_artifact("dataset", f"data-{recipe}", data)))

    def start(self, adapter: Adapter) -> None:
        """Log the adapter that the training continues as an input."""
        self.run.attempt(lambda run: log_input(run, adapter_artifact(adapter)))

    def result(self, adapter: Adapter) -> None:
        """Log the trained adapter as an output, which also has the name of the training."""
        self.run.attempt(lambda run: run.log_artifact(adapter_artifact(adapter), aliases=["latest", self._name]))

    def predictions(self, predictions: Sequence[Prediction]) -> None:
        """Log what the trained model writes for validation rows as a table."""
        table = RunTable("predictions", PREDICTION_COLUMNS)
        table.rows += [_cells(prediction) for prediction in predictions]
        self.run.attempt(table.write)

    def finish(self, spending: Spending, *, failed: bool = False) -> None:
        """End the run, marked as failed or not, with what it has cost; waits until W&B has written."""
        self.run.attempt(lambda run: run.summary.update(cost_values(spending)))
        self.run.finish(failed=failed)


def _metadata(version: DataVersion) -> dict[str, Any]:
    """Return what W&B shows beside the artifact: everything but the examples of the steps."""
    found = version.model_dump(exclude={"steps"})
    return found | {"steps": {step.name: step.touched for step in version.steps}}


def _cells(prediction: Prediction) -> tuple[Any, ...]:
    return tuple(getattr(prediction, name) for name in PREDICTION_COLUMNS)
