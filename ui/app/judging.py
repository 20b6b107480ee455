"""Models as judges: they score one answer by a rubric, or choose the better of two."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag.errors import EvaluationError, SettingsError
from rag.evaluation.compare import Side
from rag.evaluation.run_store import by_case
from rag.evaluation.scoring import Judge, NullJudge
from rag.evaluation.variants import with_prompt
from rag.settings import DecodingSettings, Settings

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from prompts import PromptTemplate
    from rag.evaluation.cases import Case
    from rag.evaluation.pairwise import PairTally, PairVerdict
    from ui.app.evaluations import Evaluations
    from ui.app.models import Models
    from ui.app.stores import Stores


@dataclass(frozen=True, slots=True)
class Judges:
    """Opens judges, with the prompts of the workspace."""

    settings: Settings
    stores: Stores
    models: Models

    def of_answers(self, model: str) -> Judge:
        """Return a judge of single answers; for an empty name one that judges nothing.

        Raises:
            SettingsError: The model cannot judge.
        """
        if not model:
            return NullJudge()
        from rag.evaluation.judge import ModelJudge

        prompt = self.stores.prompt("judge-answer")
        return ModelJudge(self.model(model, prompt), prompt, model, repair=self.stores.prompt("repair-json"))

    def model(self, name: str, prompt: PromptTemplate) -> BaseChatModel:
        """Open a model with the settings of a judge's prompt.

        Raises:
            SettingsError: The model cannot judge.
        """
        from rag.models.chat_models import EMBEDDED, GENERATOR, check_model_name

        check_model_name(name)
        if name in (EMBEDDED, GENERATOR):
            raise SettingsError(
                f"The model {name} cannot judge.", fix="Name a language model: openai:NAME or local:PATH-OR-NAME."
            )
        # Decoding settings for answers do not apply to a judge.
        plain = self.settings.model_copy(update={"model": name, "decoding": DecodingSettings()})
        return self.models.language_model(with_prompt(plain, prompt.settings))


async def compare_pairs(
    evaluations: Evaluations,
    one: Side,
    other: Side,
    model: str,
    on_verdict: Callable[[int, int], None] = lambda _done, _all: None,
) -> PairTally:
    """Let a model choose the better answer of two variants for every case, in both orders.

    Args:
        evaluations: The runs, their datasets, and the judges.
        one, other: Variants of runs over the same dataset version, compared on the cases that both answered.
        model: The name of the judge.
        on_verdict: Called after every verdict, with the number of verdicts and of pairs.

    Raises:
        EvaluationError: They were asked different cases, or have no answered case in common.
        SettingsError: The model cannot judge.
    """
    from rag.evaluation.pairwise import compare_pair, tally

    if one.version.sha256 != other.version.sha256:
        raise EvaluationError(
            "The two runs asked different cases.", fix="Compare runs over one version of a dataset."
        )
    judges = evaluations.judges
    prompt, repair = judges.stores.prompt("judge-pair"), judges.stores.prompt("repair-json")
    opened = judges.model(model, prompt)
    pairs = list(_pairs(evaluations, one, other))
    if not pairs:
        raise EvaluationError("No case was answered by both variants.", fix="Wait until the runs have finished.")
    places = asyncio.Semaphore(one.run.plan.at_once)
    verdicts: list[PairVerdict] = []

    async def judged(case: Case, first: str, second: str) -> None:
        async with places:
            verdicts.append(await compare_pair(opened, prompt, case, first, second, repair=repair))
        on_verdict(len(verdicts), len(pairs))

    async with asyncio.TaskGroup() as group:
        for pair in pairs:
            group.create_task(judged(*pair))
    return tally(verdicts)


def _pairs(evaluations: Evaluations, one: Side, other: Side) -> Iterator[tuple[Case, str, str]]:
    """Yield the cases that both variants answered, with their answers."""
    runs, datasets = evaluations.runs, evaluations.datasets
    rows = dict(by_case([runs.cells(side.run.id, side.variant) for side in (one, other)]))
    for position, case in enumerate(datasets.cases(one.version)):
        first, second = rows.get(position, (None, None))
        if first and second and "failed" not in (first.status, second.status):
            yield case, first.answer, second.answer
