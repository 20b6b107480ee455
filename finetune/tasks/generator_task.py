"""Training of the generator: predict the next token from the vocabulary or by copying from the prompt."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from finetune.batches import as_tensors, plan, stage_batches
from finetune.data import follow_ups as conversations
from finetune.data import prose, questions, splits, writing
from finetune.features import Feature, Features
from finetune.loop import Trainer
from finetune.recipe import Recipe, Source, Stage
from finetune.rows import Kind, WritingRow
from finetune.start import open_network
from finetune.tasks.reader_task import LICENCES as READER_LICENCES
from finetune.tasks.reader_task import PROSE, ReaderTask
from finetune.training import Training
from rag.encoders.adapters import AdapterCard
from rag.encoders.prefix_network import FAR_BELOW, Drawn
from rag.errors import TuningError
from rag.evaluation.squad import read_articles
from rag.models.generator.generator_input import PromptRenderer

if TYPE_CHECKING:
    import torch

# A target is an index into these.
KINDS: tuple[Kind, ...] = get_args(Kind)
ANSWERS = ("cloze", "squad", "policyqa", "open-questions", "sentence-pairs", "altered")
OTHERS = ("prose", "questions", "follow-ups")
LICENCES = READER_LICENCES | {
    "cloze": READER_LICENCES["prose"],
    "questions": ("CC BY-SA 4.0",),
    "follow-ups": ("CC BY-SA 4.0",),
}


class GeneratorTask:
    """See ``finetune.tasks.Task``.

    Raises:
        EncoderError: The base is missing or altered.
    """

    def __init__(self, recipe: Recipe) -> None:
        from tokenizers import Tokenizer

        self._recipe = recipe
        self._reading = ReaderTask(recipe)
        self.files = self._reading.files
        self._renderer = PromptRenderer(Tokenizer.from_file(str(self.files.folder / "tokenizer.json")))

    def features(self, source: Source, data: Path, seed: int) -> Iterator[Feature]:
        """Yield the features of one of ``ANSWERS`` or ``OTHERS``."""
        return (self.feature(row) for row in self.rows(source, data, seed))

    def rows(self, source: Source, data: Path, seed: int) -> Iterator[WritingRow]:
        """Yield the prompts of a source and their replies.

        Raises:
            TuningError: The data are missing or malformed, or there is no such source.
        """
        name = source.name
        if name in ANSWERS:
            read = self._reading.rows("prose" if name == "cloze" else name, data, seed)
            rows = list(islice(read, source.rows))
            random.Random(f"{seed} {name}").shuffle(rows)
            return writing.answer_rows(rows, seed)
        if name == "questions":
            squad = [row for row in self._reading.rows("squad", data, seed) if row.answers]
            found = list(writing.question_rows(self._reading.pairs(data), squad, seed))
            return islice(iter(random.Random(seed).sample(found, len(found))), source.rows)
        if name == "follow-ups":
            follow_ups = conversations.read_follow_ups(data / conversations.CANARD, "training")
            return islice(conversations.writing_rows(follow_ups, seed), source.rows)
        if name == "prose":
            files = sorted(path for path in (data / "prose").glob("*.xz") if path.name.startswith(PROSE))
            return islice(writing.prose_rows(prose.read_prose(files, seed + 1), seed), source.rows)
        raise TuningError(
            f"The generator has no source {name}.", fix=f"Use one of: {', '.join((*ANSWERS, *OTHERS))}."
        )

    def validation(self, data: Path, most: int) -> Iterator[Feature]:
        """Yield questions about the validation articles and follow-ups for model selection, half of each."""
        articles = [a for a in read_articles(data / splits.SQUAD) if a.title in splits.VALIDATION]
        rng = random.Random(0)
        rows = list(questions.reading_rows(articles))
        answers = [
            writing.answer_row(row, [rng.choice(rows)][: rng.randrange(2)], rng, shipped=shipped)
            for row in rng.sample(rows, len(rows))
            for shipped in [rng.choice(("answer-short", "answer-sentence"))]
        ]
        follow_ups = conversations.read_follow_ups(data / conversations.CANARD, "choosing")
        condensed = list(conversations.writing_rows(follow_ups, 0, shipped=True))
        asked = list(writing.question_rows([], [row for row in rows if row.answers], 0))
        share = max(most // 4, 1)
        yield from map(self.feature, chain(answers[: 2 * share], condensed[:share], asked[:share]))

    def feature(self, row: WritingRow) -> Feature:
        """Tokenize a row."""
        prompt = self._renderer.prompt(row.texts, row.passages)
        return Feature((*prompt.ids, *self._renderer.reply(row.reply)), len(prompt.ids), (KINDS.index(row.kind),))

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
        """Return the mean cross-entropy of all reply tokens."""
        batch = _Batch([features[int(row)] for row in rows])
        return batch.losses(batch.drawn(network)).mean()

    def metrics(self, network: torch.nn.Module, features: Features) -> Mapping[str, float]:
        """Compute the loss, and per kind the share of replies that greedy decoding reproduces exactly."""
        losses: list[float] = []
        exact: dict[Kind, list[bool]] = {}
        for rows in plan(features.lengths, 8192, 0):
            batch = _Batch([features[int(row)] for row in rows])
            drawn = batch.drawn(network)
            losses += batch.losses(drawn).tolist()
            wrong = set(batch.rows[batch.best(drawn) != batch.wanted].tolist())
            for row, feature in enumerate(batch.features):
                exact.setdefault(KINDS[feature.target[0]], []).append(row not in wrong)
        shares = {f"exact_{kind}": sum(hits) / len(hits) for kind, hits in sorted(exact.items())}
        return {"loss": sum(losses) / len(losses), **shares}

    def finish(
        self, network: torch.nn.Module, validation: Features, result: Path, data: Mapping[str, Any]
    ) -> AdapterCard:
        """See ``finetune.tasks.Task``."""
        import torch

        from finetune.adapter_card import new_card, write_result

        sources = {source.name for stage in self._recipe.stages for source in stage.sources}
        with torch.no_grad():
            metrics = self.metrics(network, validation)
        licences = {licence for source in sources for licence in LICENCES[source]}
        card = new_card(self._recipe, self.files, data, licences, metrics)
        write_result(network, card, result)
        return card


class _Batch:
    """Features as tensors, with the tokens to predict.

    Attributes:
        wanted: The tokens, shape ``(asked,)``; ``rows`` has the row of each.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        import torch

        self.features = features
        self._inputs = as_tensors(features)
        asked = [
            (row, place)
            for row, feature in enumerate(features)
            for place in range(feature.second, len(feature.ids))
        ]
        self.rows, places = torch.tensor(asked).T
        self.wanted = self._inputs[0][self.rows, places]
        # The output at a position predicts the token after it.
        self._before = places - 1

    def drawn(self, network: Any) -> Drawn:
        """Return the head's output before every wanted token; shapes begin with ``(asked,)``."""
        found: Drawn = network.replies(*self._inputs, self.rows, self._before)
        return Drawn(*(tensor.float() for tensor in found))

    def losses(self, drawn: Drawn) -> torch.Tensor:
        """Return the negative log-likelihood of every wanted token, shape ``(asked,)``."""
        import torch
        from torch.nn import functional

        vocabulary = -functional.cross_entropy(drawn.vocabulary, self.wanted, reduction="none")
        same = self._inputs[0][self.rows] == self.wanted[:, None]
        copied = drawn.copied.log_softmax(1).masked_fill(~same, FAR_BELOW).logsumexp(1)
        share = functional.logsigmoid(drawn.gate)
        return -torch.logaddexp(share + vocabulary, share - drawn.gate + copied)

    def best(self, drawn: Drawn) -> torch.Tensor:
        """Return the most probable token at every position, shape ``(asked,)``."""
        share = drawn.gate.sigmoid()[:, None]
        copied = (1 - share) * drawn.copied.softmax(1)
        whole = share * drawn.vocabulary.softmax(1)
        return whole.scatter_add(1, self._inputs[0][self.rows], copied).argmax(1)
