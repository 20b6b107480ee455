"""Training the reranker: does a passage that was found go with the question?"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.adapter_card import new_card, write_result
from finetune.batches import as_tensors, plan
from finetune.data.retrieved import RankedRow, answered_rows, judged_rows
from finetune.features import Feature, Features
from finetune.recipe import Recipe, Source
from finetune.start import open_network
from finetune.tasks.reader_task import LICENCES as READER_LICENCES
from finetune.tasks.reader_task import ReaderTask
from rag.encoders.adapters import AdapterCard
from rag.encoders.question_passage_pair import Renderer
from rag.errors import TuningError
from rag.retrieval.reranking import WINDOW, place_score

if TYPE_CHECKING:
    import torch

# Passages that are found for a question, as many as are reranked.
DEPTH = 30
# Of the passages that do not go with a question so many are trained on for each that does.
WRONG = 6
# Of the passages of a question that has an answer, so many are looked at, and so many wrong ones kept.
ANSWER_DEPTH, ANSWER_WRONG = 10, 2
# One in so many judged questions is only validated on.
HELD_OUT = 8
# What the place before the reranking may add.
WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 20.0)

QUESTIONS = ("squad", "policyqa", "open-questions", "sentence-pairs")
LICENCES = {"scifact": ("CC BY 4.0", "ODC-BY")} | {name: READER_LICENCES[name] for name in QUESTIONS}


class RerankerTask:
    """See ``finetune.tasks.Task``.

    Raises:
        EncoderError: The base is missing or altered.
    """

    def __init__(self, recipe: Recipe) -> None:
        from tokenizers import Tokenizer

        self._recipe = recipe
        self._reading = ReaderTask(recipe)
        self.files = self._reading.files
        self._renderer = Renderer(Tokenizer.from_file(str(self.files.folder / "tokenizer.json")), WINDOW)
        self._judged: list[RankedRow] = []

    def features(self, source: Source, data: Path, seed: int) -> Iterator[Feature]:
        """The features of ``scifact`` or one of ``QUESTIONS``."""
        chance = random.Random(f"{seed} {source.name}")
        if source.name == "scifact":
            rows = [row for row in self._scifact(data) if not _is_held_out(row)]
            yield from islice((self._of_row(row) for row in thinned(rows, WRONG, chance)), source.rows)
        elif source.name in QUESTIONS:
            answered = [row for row in self._reading.rows(source.name, data, seed) if row.answers]
            asked = source.rows or len(answered)
            found = list(answered_rows(answered, asked, ANSWER_DEPTH, seed))
            yield from (self._of_row(row) for row in thinned(found, ANSWER_WRONG, chance))
        else:
            raise TuningError(
                f"The reranker knows no source {source.name}.",
                fix=f"It knows scifact, {', '.join(QUESTIONS)}.",
            )

    def validation(self, data: Path, most: int) -> Iterator[Feature]:
        """Judged questions that are not trained on, each with all passages that were found for it."""
        rows = [row for row in self._scifact(data) if _is_held_out(row)]
        known = {row.question for row in rows if row.relevant}
        yield from islice((self._of_row(row) for row in rows if row.question in known), most)

    def _scifact(self, data: Path) -> list[RankedRow]:
        if not self._judged:
            self._judged = list(judged_rows(data / "scifact", "train", DEPTH))
        return self._judged

    def _of_row(self, row: RankedRow) -> Feature:
        window = self._renderer.windows(row.text, row.place, row.passage)[0]
        return Feature(window.ids, window.second, (int(row.relevant), row.question, row.rank))

    def network(self, *, plain: bool = False) -> torch.nn.Module:
        """See ``finetune.tasks.Task``."""
        return open_network(self._recipe, self.files, plain=plain)

    def loss(self, network: torch.nn.Module, features: Features, rows: Any) -> torch.Tensor:
        """Cross-entropy of relevant or not."""
        import torch

        batch = [features[int(row)] for row in rows]
        right = torch.tensor([float(feature.target[0]) for feature in batch])
        scores = network(*as_tensors(batch)).float()[:, 0]
        return torch.nn.functional.binary_cross_entropy_with_logits(scores, right)

    def figures(self, network: torch.nn.Module, features: Features) -> Mapping[str, float]:
        """Loss, and nDCG@10 before, by the network alone, and with the place before mixed in."""
        scores = self._scores(network, features)
        rights = [feature.target[0] for feature in features]
        # log(1 + e^x) without overflow.
        losses = [
            max(score, 0.0) - score * right + math.log1p(math.exp(-abs(score)))
            for score, right in zip(scores, rights, strict=True)
        ]
        weight = best_weight(scores, features)
        return {
            "loss": sum(losses) / len(losses),
            "ndcg_before": mixed_ndcg([0.0] * len(scores), features, 1.0),
            "ndcg_alone": mixed_ndcg(scores, features, 0.0),
            "ndcg": mixed_ndcg(scores, features, weight),
        }

    def _scores(self, network: torch.nn.Module, features: Features) -> list[float]:
        found = [0.0] * len(features)
        for rows in plan(features.lengths, 8192, 0):
            batch = [features[int(row)] for row in rows]
            for row, score in zip(rows, network(*as_tensors(batch)).float()[:, 0].tolist(), strict=True):
                found[int(row)] = score
        return found

    def finish(
        self, network: torch.nn.Module, validation: Features, result: Path, data: Mapping[str, Any]
    ) -> AdapterCard:
        """See ``finetune.tasks.Task``."""
        import torch

        sources = {source.name for stage in self._recipe.stages for source in stage.sources}
        with torch.no_grad():
            figures = self.figures(network, validation)
            weight = best_weight(self._scores(network, validation), validation)
        licences = {licence for source in sources for licence in LICENCES[source]}
        card = new_card(self._recipe, self.files, data, licences, figures)
        card = card.model_copy(update={"rank_weight": weight})
        write_result(network, card, result)
        return card


def thinned(rows: Sequence[RankedRow], wrong: int, chance: random.Random) -> Iterator[RankedRow]:
    """Questions with a right passage among those found: the right ones, and some wrong ones for each."""
    by_question: dict[int, list[RankedRow]] = {}
    for row in rows:
        by_question.setdefault(row.question, []).append(row)
    for found in by_question.values():
        right = [row for row in found if row.relevant]
        others = [row for row in found if not row.relevant]
        if right:
            yield from right
            yield from chance.sample(others, min(wrong * len(right), len(others)))


def best_weight(scores: Sequence[float], features: Features) -> float:
    """What the place before the reranking should add, by nDCG@10."""
    return max(WEIGHTS, key=lambda weight: mixed_ndcg(scores, features, weight))


def mixed_ndcg(scores: Sequence[float], features: Features, weight: float) -> float:
    """Mean nDCG@10 of the questions, each relevant passage counting 1, among the passages that were found."""
    by_question: dict[int, list[tuple[float, int]]] = {}
    for score, feature in zip(scores, features, strict=True):
        right, question, rank = feature.target
        by_question.setdefault(question, []).append((score + weight * place_score(rank), right))
    told = []
    for found in by_question.values():
        order = [right for _, right in sorted(found, key=lambda pair: -pair[0])]
        best = _gain(sorted(order, reverse=True))
        told.append(_gain(order) / best if best else 0.0)
    return sum(told) / len(told)


def _gain(order: Sequence[int]) -> float:
    return sum(right / math.log2(at + 2) for at, right in enumerate(order[:10]))


def _is_held_out(row: RankedRow) -> bool:
    """By the words of the question, so that the same ones are held out wherever they stand."""
    return zlib.crc32(row.text.encode()) % HELD_OUT == 0
