"""``ragsmith eval reading``: score the extractive reader against known answers."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ui.commands._app import command_app
from ui.commands._finite_range import FiniteRange
from ui.commands._terminal_text import note, print_json
from ui.context import Context, pass_context

if TYPE_CHECKING:
    from rag.evaluation.reading_metrics import ReadingScores


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--adapter", metavar="NAME", help="The reader: a folder, or the name of an adapter.")
@click.option(
    "--threshold",
    type=FiniteRange(0, 1),
    help="The probability below which no answer is given; by default 0.6, or 0 if every question has an answer.",
)
@click.option(
    "--predictions",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT",
    help="Write the answers to OUT: a JSON object by question id, as the official evaluation reads it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the metrics as one JSON object.")
@pass_context
def reading(
    context: Context,
    file: Path,
    adapter: str | None,
    threshold: float | None,
    predictions: Path | None,
    as_json: bool,
) -> None:
    """Answer the questions of FILE from their paragraphs, and score them.

    FILE is in SQuAD's format. Exact match and F1 are those of SQuAD's official evaluation.
    """
    from rag.errors import EvaluationError
    from rag.evaluation.reading_metrics import predict, score
    from rag.evaluation.squad import read_articles
    from rag.workspace import disk_errors

    articles = read_articles(file)
    total = sum(len(paragraph.questions) for article in articles for paragraph in article.paragraphs)
    if not total:
        raise EvaluationError(f"{file} contains no questions.")
    with command_app(context, reader={"adapter": adapter}) as app:
        reader = app.models.reader(app.settings.reader.adapter)
        if reader is None:
            raise EvaluationError(
                "There is no tuned reader to evaluate.", fix="Name one with --adapter or reader.adapter."
            )
        found = []
        for prediction in predict(reader, articles):
            found.append(prediction)
            if len(found) % 500 == 0:
                note(f"{len(found):,}/{total:,} questions")
    scores = score(found, threshold)
    if predictions is not None:
        answers = {
            prediction.question.id: prediction.text if prediction.probability >= scores.threshold else ""
            for prediction in found
        }
        with disk_errors(f"write {predictions}"):
            predictions.write_text(json.dumps(answers, ensure_ascii=False), encoding="utf-8")
    if as_json:
        print_json({"adapter": reader.adapter.identity, **asdict(scores)})
        return
    _show(scores)


def _show(scores: ReadingScores) -> None:
    def percent(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f} %"

    click.echo(f"questions          {scores.total:,} ({scores.answerable:,} with an answer)")
    click.echo(f"F1                 {percent(scores.f1)}   with an answer {percent(scores.answerable_f1)}")
    click.echo(f"exact match        {percent(scores.exact)}   with an answer {percent(scores.answerable_exact)}")
    click.echo(f"right sentence     {percent(scores.right_sentence)}")
    if scores.unanswerable is not None and scores.calibration_error is not None:
        click.echo(f"rightly no answer  {percent(scores.unanswerable)}   at a threshold of {scores.threshold:g}")
        click.echo(f"best F1            {percent(scores.best_f1)}")
        click.echo(f"calibration error  {scores.calibration_error:.4f}")
