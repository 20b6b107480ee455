"""Training of the reranker: predict whether a retrieved passage is relevant to the question."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.adapter_card import new_card, write_result
from finetune.batches import as_tensors, plan, stage_batches
from finetune.data.retrieved import RankedRow, answered_rows, judged_rows
from finetune.features import Feature, Features
from finetune.loop import Trainer
from finetune.recipe import Recipe, Source, Stage
from finetune.start import open_network
from finetune.tasks.reader_task import LICENCES as READER_LICENCES
from finetune.tasks.reader_task import ReaderTask
from finetune.training import Training
from rag.encoders.adapters import AdapterCard
from rag.encoders.question_passage_pair import Renderer
from rag.errors import TuningError
from rag.retrieval.reranking import WINDOW, place_score

if TYPE_CHECKING:
    import torch

# Passages retrieved per question, as many as are reranked.
DEPTH = 30
# Irrelevant passages per relevant one in the training rows.
WRONG = 6
# Passages retrieved for a question with a known answer, and irrelevant ones kept per relevant one.
ANSWER_DEPTH, ANSWER_WRONG = 10, 2
# One in this many judged questions is held out for validation.
HELD_OUT = 8
# Candidate weights of the rank before reranking.
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
        """Yield the features of ``scifact`` or one of ``QUESTIONS``."""
        rng = random.Random(f"{seed} {source.name}")
        if source.name == "scifact":
            rows = [row for row in self._scifact(data) if not _is_held_out(row)]
            yield from islice((self._of_row(row) for row in thinned(rows, WRONG, rng)), source.rows)
        elif source.name in QUESTIONS:
            answered = [row for row in self._reading.rows(source.name, data, seed) if row.answers]
            asked = source.rows or len(answered)
            found = list(answered_rows(answered, asked, ANSWER_DEPTH, seed))
            yield from (self._of_row(row) for row in thinned(found, ANSWER_WRONG, rng))
        else:
            raise TuningError(
                f"The reranker has no source {source.name}.",
                fix=f"Use one of: scifact, {', '.join(QUESTIONS)}.",
            )

    def validation(self, data: Path, most: int) -> Iterator[Feature]:
        """Yield the held-out judged questions with all passages retrieved for them."""
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
        """Return the binary cross-entropy of relevance."""
        import torch

        batch = [features[int(row)] for row in rows]
        right = torch.tensor([float(feature.target[0]) for feature in batch])
        scores = network(*as_tensors(batch)).float()[:, 0]
        return torch.nn.functional.binary_cross_entropy_with_logits(scores, right)

    def metrics(self, network: torch.nn.Module, features: Features) -> Mapping[str, float]:
        """Compute the loss, and nDCG@10 before reranking, of the network alone, and of both mixed."""
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
            metrics = self.metrics(network, validation)
            weight = best_weight(self._scores(network, validation), validation)
        licences = {licence for source in sources for licence in LICENCES[source]}
        card = new_card(self._recipe, self.files, data, licences, metrics)
        card = card.model_copy(update={"rank_weight": weight})
        write_result(network, card, result)
        return card


def thinned(rows: Sequence[RankedRow], wrong: int, rng: random.Random) -> Iterator[RankedRow]:
    """Yield, per question with a relevant passage, the relevant ones and a sample of ``wrong`` others for each."""
    by_question: dict[int, list[RankedRow]] = {}
    for row in rows:
        by_question.setdefault(row.question, []).append(row)
    for found in by_question.values():
        right = [row for row in found if row.relevant]
        others = [row for row in found if not row.relevant]
        if right:
            yield from right
            yield from rng.sample(others, min(wrong * len(right), len(others)))


def best_weight(scores: Sequence[float], features: Features) -> float:
    """Return the weight of the previous rank with the highest nDCG@10."""
    return max(WEIGHTS, key=lambda weight: mixed_ndcg(scores, features, weight))


def mixed_ndcg(scores: Sequence[float], features: Features, weight: float) -> float:
    """Return the mean nDCG@10 over questions with binary relevance, among the retrieved passages."""
    by_question: dict[int, list[tuple[float, int]]] = {}
    for score, feature in zip(scores, features, strict=True):
        right, question, rank = feature.target
        by_question.setdefault(question, []).append((score + weight * place_score(rank), right))
    gains = []
    for found in by_question.values():
        order = [right for _, right in sorted(found, key=lambda pair: -pair[0])]
        best = _gain(sorted(order, reverse=True))
        gains.append(_gain(order) / best if best else 0.0)
    return sum(gains) / len(gains)


def _gain(order: Sequence[int]) -> float:
    return sum(right / math.log2(at + 2) for at, right in enumerate(order[:10]))


def _is_held_out(row: RankedRow) -> bool:
    """Decide by a hash of the question, so that the same questions are held out everywhere."""
    return zlib.crc32(row.text.encode()) % HELD_OUT == 0
