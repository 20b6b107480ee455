"""Training the reader: the first and the last token of an answer, or none."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.batches import as_tensors, plan
from finetune.data import altered, open_questions, prose, questions, sentence_pairs, splits
from finetune.features import Feature, Features
from finetune.recipe import Recipe, Source
from finetune.rows import ReadingRow
from finetune.start import open_network
from rag.encoders.adapters import AdapterCard, Calibration
from rag.encoders.encoder_files import locate_model
from rag.encoders.question_passage_pair import Renderer, Window
from rag.errors import TuningError
from rag.evaluation.squad import read_articles
from rag.models.extractive.spans import best_pair
from rag.settings import EncoderSettings

if TYPE_CHECKING:
    import torch


# Written into a target behind the start of the passage: what the numbers after it are.
NONE, EXACT, INSIDE = 0, 1, 2
# Of the windows of one row that do not hold its answer, as many are kept as show that there is none.
MOST_EMPTY_WINDOWS = 1
# Of the rows, those that are shown without title and headings.
BARE = 0.3
PAIRS = (("nqg-src-dev.txt", "nqg-tgt-dev.txt"), ("nqg-src-test.txt", "nqg-tgt-test.txt"))
# The prose that reads like documents; novels and trivia are left out.
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
        # Read once, however many sources look into it.
        self._held_out: dict[Path, splits.HeldOut] = {}

    def features(self, source: Source, data: Path, seed: int) -> Iterator[Feature]:
        """The features of ``prose``, ``negatives``, ``altered`` or one of ``ANSWERED``."""
        chance = random.Random(f"{seed} {source.name}")
        for row in islice(self.rows(source.name, data, seed), source.rows):
            yield from self._of_row(row if chance.random() > BARE else replace(row, place=()))

    def validation(self, data: Path, most: int) -> Iterator[Feature]:
        """Questions about the validation articles, with answers and without."""
        articles = read_articles(data / splits.SQUAD)
        rows = list(questions.reading_rows([each for each in articles if each.title in splits.VALIDATION]))
        random.Random(0).shuffle(rows)
        if rows and len({bool(row.answers) for row in rows[:most]}) < 2:
            raise TuningError(
                f"The validation rows of {data / splits.SQUAD} all have an answer, or none has: "
                "the probability of an answer cannot be fitted to them.",
                fix="Raise validation_rows in the recipe, or name other data.",
            )
        for row in rows[:most]:
            yield from self._of_row(row)

    def rows(self, name: str, data: Path, seed: int) -> Iterator[ReadingRow]:
        """The rows of a source.

        Raises:
            TuningError: The data are missing or malformed, or there is no such source.
        """
        if name == "prose":
            files = sorted(each for each in (data / "prose").glob("*.xz") if each.name.startswith(PROSE))
            if not files:
                raise TuningError(f"There is no prose in {data / 'prose'}.", fix="Name the data folder.")
            return prose.cloze_rows(prose.read_prose(files, seed), seed)
        if name == "negatives":
            from finetune.data.negatives import negative_rows

            answered = [row for each in ANSWERED for row in self.rows(each, data, seed) if row.answers]
            return negative_rows(answered, self.files, seed)
        if name == "altered":
            answered = [row for each in ALTERED for row in self.rows(each, data, seed) if row.answers]
            return altered.altered_rows(answered, self._renderer.pieces, seed)
        held_out = self._held_out_of(data)
        if name == "squad":
            kept = [
                each
                for each in read_articles(data / splits.SQUAD)
                if each.title not in splits.VALIDATION + splits.TEST
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
            f"The reader knows no source {name}.",
            fix=f"It knows prose, negatives, altered, {', '.join(ANSWERED)}.",
        )

    def pairs(self, data: Path) -> list[sentence_pairs.SentencePair]:
        """Sentences and a question asked of each.

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
            found = [span for span in (tokens_of(window, *each) for each in row.answers) if span]
            empty += not found
            if found or empty <= MOST_EMPTY_WINDOWS:
                yield Feature(window.ids, window.second, target(window, found, exact=row.exact))

    def network(self, *, plain: bool = False) -> torch.nn.Module:
        """See ``finetune.tasks.Task``."""
        return open_network(self._recipe, self.files, plain=plain)

    def loss(self, network: torch.nn.Module, features: Features, rows: Any) -> torch.Tensor:
        """Cross-entropy of the first and of the last token, summed over all that are right."""
        batch = _Batch([features[int(row)] for row in rows])
        return batch.losses(batch.scores(network)).mean()

    def figures(self, network: torch.nn.Module, features: Features) -> Mapping[str, float]:
        """Loss, token F1 of the answered, and how often the best span beats none where it should."""
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
            figures = self.figures(network, validation)
            calibration = calibrate(list(self._margins(network, validation)))
        licences = {licence for source in sources for licence in LICENCES[source]}
        card = new_card(recipe, self.files, data, licences, figures).model_copy(
            update={"calibration": calibration}
        )
        write_result(network, card, result)
        return card

    def _margins(self, network: torch.nn.Module, features: Features) -> Iterator[tuple[float, bool]]:
        """How far the best span beats "no answer", and whether there is one, of every row."""
        for rows in plan(features.lengths, 8192, 0):
            batch = _Batch([features[int(row)] for row in rows])
            scores = batch.scores(network)
            for row, feature in enumerate(batch.features):
                yield best_span(scores[row], feature)[2], feature.target[1] != NONE


ANSWERED = ("squad", "policyqa", "open-questions", "sentence-pairs")
# What neighbours are about the same thing in.
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


def calibrate(told: Sequence[tuple[float, bool]]) -> Calibration:
    """Fit the probability of an answer to margins (Platt scaling: a logistic regression of one variable).

    How many of the rows have an answer is an accident of the article: both kinds count alike.
    """
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=1e6, class_weight="balanced").fit(
        [[margin] for margin, _ in told], [right for _, right in told]
    )
    return Calibration(slope=float(fitted.coef_[0, 0]), intercept=float(fitted.intercept_[0]))


def tokens_of(window: Window, start: int, end: int) -> tuple[int, int] | None:
    """First and last token of the characters ``start`` to ``end``; None where they are not all in the window."""
    inside = [number for number, (begin, stop) in enumerate(window.offsets) if begin < end and stop > start]
    if not inside or window.offsets[inside[0]][0] > start or window.offsets[inside[-1]][1] < end:
        return None
    return window.body + inside[0], window.body + inside[-1]


def target(window: Window, spans: Iterable[tuple[int, int]], *, exact: bool) -> tuple[int, ...]:
    """Where the passage begins, the kind, and first and last token of each span."""
    numbers = [number for span in dict.fromkeys(spans) for number in span]
    kind = NONE if not numbers else EXACT if exact else INSIDE
    return (window.body, kind, *numbers)


def best_span(scores: torch.Tensor, feature: Feature) -> tuple[int, int, float]:
    """The best span of one row: first token, last token, and how far it beats "no answer".

    Args:
        scores: Shape ``(tokens, 2)``.
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
        # Rows, tokens, first or last.
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
        """Shape ``(rows, tokens, 2)``; what cannot be an answer is far below the rest."""
        found: torch.Tensor = network(*self._inputs).float()
        return found.masked_fill(~self._open, -1e4)

    def losses(self, scores: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of the first and of the last token, summed over all that are right: ``(rows, 2)``."""
        import torch

        held = scores.log_softmax(1).masked_fill(~self.right, float("-inf"))
        return -torch.logsumexp(held, 1)
