"""Training of the extractive reader: predict the first and last token of an answer, or that there is none."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.batches import as_tensors, plan, stage_batches
from finetune.data import altered, open_questions, prose, questions, sentence_pairs, splits
from finetune.features import Feature, Features
from finetune.loop import Trainer
from finetune.recipe import Recipe, Source, Stage
from finetune.rows import ReadingRow
from finetune.start import open_network
from finetune.training import Training
from rag.encoders.adapters import AdapterCard, Calibration
from rag.encoders.encoder_files import locate_model
from rag.encoders.question_passage_pair import Renderer, Window
from rag.errors import TuningError
from rag.evaluation.squad import read_articles
from rag.models.extractive.spans import best_pair
from rag.settings import EncoderSettings

if TYPE_CHECKING:
    import torch


# Kinds of a target: no answer, exact answer spans, spans that contain the answer. See ``target``.
NONE, EXACT, INSIDE = 0, 1, 2
# Maximum windows without the answer that are kept per row.
MOST_EMPTY_WINDOWS = 1
# Share of the rows that are shown without title and headings.
BARE = 0.3
PAIRS = (("nqg-src-dev.txt", "nqg-tgt-dev.txt"), ("nqg-src-test.txt", "nqg-tgt-test.txt"))
# Prose files that read like documents, without novels and trivia.
PROSE = ("wiki", "openstax", "gov", "tech", "ms", "aws")


class ReaderTask:
    """See ``finetune.tasks.Task``.

    Raises:
        EncoderError: The base is missing or altered.
    """

    def __init__(self, recipe: Recipe) -> None:
        from tokenizers import Tokenizer

        self._recipe = recipe
        self.files = locate_model(EncoderSettings(model=recipe.base))
        self._renderer = Renderer(Tokenizer.from_file(str(self.files.folder / "tokenizer.json")))
        # Read once for all sources.
        self._held_out: dict[Path, splits.HeldOut] = {}

    def features(self, source: Source, data: Path, seed: int) -> Iterator[Feature]:
        """Yield the features of ``prose``, ``negatives``, ``altered`` or one of ``ANSWERED``."""
        rng = random.Random(f"{seed} {source.name}")
        for row in islice(self.rows(source.name, data, seed), source.rows):
            yield from self._of_row(row if rng.random() > BARE else replace(row, place=()))

    def validation(self, data: Path, most: int) -> Iterator[Feature]:
        """Yield questions about the validation articles, with and without answers."""
        articles = read_articles(data / splits.SQUAD)
        rows = list(questions.reading_rows([a for a in articles if a.title in splits.VALIDATION]))
        random.Random(0).shuffle(rows)
        if rows and len({bool(row.answers) for row in rows[:most]}) < 2:
            raise TuningError(
                f"The validation rows of {data / splits.SQUAD} must include answered and unanswered questions: "
                "otherwise the probability of an answer cannot be calibrated.",
                fix="Raise validation_rows in the recipe, or use other data.",
            )
        for row in rows[:most]:
            yield from self._of_row(row)

    def rows(self, name: str, data: Path, seed: int) -> Iterator[ReadingRow]:
        """Yield the rows of a source.

        Raises:
            TuningError: The data are missing or malformed, or there is no such source.
        """
        if name == "prose":
            files = sorted(path for path in (data / "prose").glob("*.xz") if path.name.startswith(PROSE))
            if not files:
                raise TuningError(f"{data / 'prose'} contains no prose files.", fix="Name the data folder.")
            return prose.cloze_rows(prose.read_prose(files, seed), seed)
        if name == "negatives":
            from finetune.data.negatives import negative_rows

            answered = [row for other in ANSWERED for row in self.rows(other, data, seed) if row.answers]
            return negative_rows(answered, self.files, seed)
        if name == "altered":
            answered = [row for other in ALTERED for row in self.rows(other, data, seed) if row.answers]
            return altered.altered_rows(answered, self._renderer.pieces, seed)
        held_out = self._held_out_of(data)
        if name == "squad":
            kept = [
                article
                for article in read_articles(data / splits.SQUAD)
                if article.title not in splits.VALIDATION + splits.TEST
            ]
            return (row for row in questions.reading_rows(kept) if not held_out.holds(row.passage))
        if name == "policyqa":
            return questions.reading_rows(read_articles(data / "open_qa/policyqa-dev.json"))
        if name == "open-questions":
            rows = open_questions.reading_rows(data / "open_qa/nq-open-oracle.jsonl.gz")
            return (row for row in rows if not held_out.holds(row.passage))
        if name == "sentence-pairs":
            return sentence_pairs.reading_rows(self.pairs(data), seed)
        raise TuningError(
            f"The reader has no source {name}.",
            fix=f"Use one of: prose, negatives, altered, {', '.join(ANSWERED)}.",
        )

    def pairs(self, data: Path) -> list[sentence_pairs.SentencePair]:
        """Read pairs of a sentence and a question.

        Raises:
            TuningError: The data are missing or malformed.
        """
        folder, held_out = data / "squad", self._held_out_of(data)
        return [
            pair
            for source, target in PAIRS
            for pair in sentence_pairs.read_pairs(folder / source, folder / target, held_out)
        ]

    def _held_out_of(self, data: Path) -> splits.HeldOut:
        return self._held_out.setdefault(data, splits.HeldOut(data))

    def _of_row(self, row: ReadingRow) -> Iterator[Feature]:
        empty = 0
        for window in self._renderer.windows(row.question, row.place, row.passage):
            found = [span for span in (tokens_of(window, *answer) for answer in row.answers) if span]
            empty += not found
            if found or empty <= MOST_EMPTY_WINDOWS:
                yield Feature(window.ids, window.second, target(window, found, exact=row.exact))

    def steps(self, features: Features, stage: Stage) -> int:
        """See ``finetune.tasks.Task``."""
        return len(stage_batches(features, stage, self._recipe.seed))

    def train(self, training: Training) -> torch.nn.Module:
        """See ``finetune.tasks.Task``."""
        return Trainer(self._recipe, self, training).train()

    def network(self, *, plain: bool = False) -> torch.nn.Module:
        """See ``finetune.loop.NetworkTask``."""
        return open_network(self._recipe, self.files, plain=plain)

    def loss(self, network: torch.nn.Module, features: Features, rows: Any) -> torch.Tensor:
        """Return the mean cross-entropy of first and last token; see ``_Batch.losses``."""
        batch = _Batch([features[int(row)] for row in rows])
        return batch.losses(batch.scores(network)).mean()

    def metrics(self, network: torch.nn.Module, features: Features) -> Mapping[str, float]:
        """Compute the loss, token F1 of answered rows, and accuracy of the decision whether there is an answer."""
        losses, overlaps, decided = [], [], []
        for rows in plan(features.lengths, 8192, 0):
            batch = _Batch([features[int(row)] for row in rows])
            scores = batch.scores(network)
            losses += batch.losses(scores).mean(1).tolist()
            for row, feature in enumerate(batch.features):
                first, last, margin = best_span(scores[row], feature)
                _, kind, *numbers = feature.target
                decided.append((margin > 0) == (kind != NONE))
                if kind == EXACT:
                    spans = zip(numbers[::2], numbers[1::2], strict=True)
                    overlaps.append(max(_overlap((first, last), span) for span in spans))
        return {
            "loss": sum(losses) / len(losses),
            "f1": sum(overlaps) / max(len(overlaps), 1),
            "decided": sum(decided) / len(decided),
        }

    def finish(
        self, network: torch.nn.Module, validation: Features, result: Path, data: Mapping[str, Any]
    ) -> AdapterCard:
        """See ``finetune.tasks.Task``."""
        import torch

        from finetune.adapter_card import new_card, write_result

        recipe = self._recipe
        sources = {source.name for stage in recipe.stages for source in stage.sources}
        with torch.no_grad():
            metrics = self.metrics(network, validation)
            calibration = calibrate(list(self._margins(network, validation)))
        licences = {licence for source in sources for licence in LICENCES[source]}
        card = new_card(recipe, self.files, data, licences, metrics).model_copy(
            update={"calibration": calibration}
        )
        write_result(network, card, result)
        return card

    def _margins(self, network: torch.nn.Module, features: Features) -> Iterator[tuple[float, bool]]:
        """Yield per row the margin of the best span over "no answer", and whether there is an answer."""
        for rows in plan(features.lengths, 8192, 0):
            batch = _Batch([features[int(row)] for row in rows])
            scores = batch.scores(network)
            for row, feature in enumerate(batch.features):
                yield best_span(scores[row], feature)[2], feature.target[1] != NONE


ANSWERED = ("squad", "policyqa", "open-questions", "sentence-pairs")
# Sources whose neighbouring rows share a topic.
ALTERED = ("squad", "sentence-pairs")

LICENCES = {
    "prose": ("CC0", "CC BY 4.0", "CC BY-SA 3.0", "CC BY-SA 4.0", "MIT", "Apache-2.0"),
    "squad": ("CC BY-SA 4.0",),
    "policyqa": ("MIT",),
    "open-questions": ("CC BY-SA 3.0",),
    "sentence-pairs": ("CC BY-SA 4.0",),
    "negatives": ("CC BY-SA 3.0", "CC BY-SA 4.0", "MIT"),
    "altered": ("CC BY-SA 4.0",),
}


def calibrate(margins: Sequence[tuple[float, bool]]) -> Calibration:
    """Fit the probability of an answer to margins (Platt scaling: logistic regression of one variable).

    Both classes have equal weight, because their ratio in the validation articles means nothing.

    Args:
        margins: Pairs of a margin and whether there is an answer.
    """
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=1e6, class_weight="balanced").fit(
        [[margin] for margin, _ in margins], [right for _, right in margins]
    )
    return Calibration(slope=float(fitted.coef_[0, 0]), intercept=float(fitted.intercept_[0]))


def tokens_of(window: Window, start: int, end: int) -> tuple[int, int] | None:
    """Return the first and last token of a character span, or None if the window does not contain all of it."""
    inside = [number for number, (begin, stop) in enumerate(window.offsets) if begin < end and stop > start]
    if not inside or window.offsets[inside[0]][0] > start or window.offsets[inside[-1]][1] < end:
        return None
    return window.body + inside[0], window.body + inside[-1]


def target(window: Window, spans: Iterable[tuple[int, int]], *, exact: bool) -> tuple[int, ...]:
    """Encode a target: first token of the passage, kind, and first and last token of every span."""
    numbers = [number for span in dict.fromkeys(spans) for number in span]
    kind = NONE if not numbers else EXACT if exact else INSIDE
    return (window.body, kind, *numbers)


def best_span(scores: torch.Tensor, feature: Feature) -> tuple[int, int, float]:
    """Return the best span of one row: first token, last token, and margin over "no answer".

    Args:
        scores: Scores of shape ``(tokens, 2)``.
    """
    body = feature.target[0]
    first, last, score = best_pair(scores[body : len(feature.ids) - 1].numpy())
    return body + first, body + last, score - float(scores[0].sum())


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> float:
    shared = min(one[1], other[1]) - max(one[0], other[0]) + 1
    return max(shared, 0) * 2 / (one[1] - one[0] + 1 + other[1] - other[0] + 1)


class _Batch:
    """Features as tensors."""

    def __init__(self, features: list[Feature]) -> None:
        import torch

        self.features = features
        self._inputs = as_tensors(features)
        shape = self._inputs[0].shape
        self._open = torch.zeros((*shape, 1), dtype=torch.bool)
        # Shape (rows, tokens, first or last).
        self.right = torch.zeros((*shape, 2), dtype=torch.bool)
        for row, feature in enumerate(features):
            length = len(feature.ids)
            body, kind, *numbers = feature.target
            self._open[row, 0] = True
            self._open[row, body : length - 1] = True
            if kind == NONE:
                self.right[row, 0] = True
            for first, last in zip(numbers[::2], numbers[1::2], strict=True):
                if kind == EXACT:
                    self.right[row, first, 0] = True
                    self.right[row, last, 1] = True
                else:
                    self.right[row, first : last + 1] = True

    def scores(self, network: torch.nn.Module) -> torch.Tensor:
        """Return scores of shape ``(rows, tokens, 2)``; tokens that cannot be an answer are masked."""
        found: torch.Tensor = network(*self._inputs).float()
        return found.masked_fill(~self._open, -1e4)

    def losses(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of first and last token, marginalized over all correct spans: ``(rows, 2)``."""
        import torch

        correct = scores.log_softmax(1).masked_fill(~self.right, float("-inf"))
        return -torch.logsumexp(correct, 1)
