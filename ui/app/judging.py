"""Models as judges: they score one answer by a rubric, or choose the better of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag.errors import SettingsError
from rag.evaluation.scoring import Judge, NullJudge
from rag.evaluation.variants import with_prompt
from rag.settings import DecodingSettings, Settings

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from prompts import PromptTemplate
    from rag.evaluation.judge import Price, Spent
    from ui.app.models import Models
    from ui.app.stores import Stores


@dataclass(frozen=True, slots=True)
class Judges:
    """Opens judges, with the prompts of the workspace."""

    settings: Settings
    stores: Stores
    models: Models

    def of_answers(self, model: str, run_id: str = "") -> Judge:
        """Return a judge of single answers; for an empty name one that judges nothing.

        Args:
            model: The name of the judging model.
            run_id: The run whose answers it judges.

        Raises:
            SettingsError: The model cannot judge.
        """
        if not model:
            return NullJudge()
        from rag.evaluation.judge import ModelJudge

        prompt = self.stores.prompt("judge-answer")
        return ModelJudge(
            self.model(model, prompt),
            prompt,
            model,
            repair=self.stores.prompt("repair-json"),
            price=self.price_of(model),
            on_spent=lambda spent: self.record(spent, model, prompt.label, run_id),
        )

    def record(self, spent: Spent, model: str, prompt: str, subject: str) -> None:
        """Add what a judgement took to the ledger.

        Args:
            spent: Tokens and seconds; nothing is added if the model was not asked.
            model: The name of the judging model.
            prompt: ``NAME@VERSION`` of its prompt.
            subject: The run whose answers it judged.
        """
        from rag.models.chat_models import OPENAI
        from rag.tracing.ledger import Expense

        if not spent.requests:
            return
        usage = spent.usage
        self.stores.ledger.add(
            Expense(
                "judging",
                subject,
                "judge",
                model,
                self.stores.prices.checked.isoformat(),
                self.price_of(model)(usage, spent.seconds),
                None if model.startswith(OPENAI) else spent.seconds,
                usage.input_tokens,
                usage.output_tokens,
                usage.cached_tokens,
                prompt=prompt,
                calls=spent.requests,
            )
        )

    def price_of(self, model: str) -> Price:
        """Return the price of a judge: by tokens for a model server, else by the seconds of this machine."""
        from rag.models.chat_models import OPENAI

        prices = self.stores.prices
        if model.startswith(OPENAI):
            return lambda usage, _seconds: prices.tokens_usd(model, usage)
        return lambda _usage, seconds: prices.seconds_usd(seconds)

    def model(self, name: str, prompt: PromptTemplate) -> BaseChatModel:
        """Open a model with the settings of a judge's prompt.

        Raises:
            SettingsError: The model cannot judge.
        """
        from rag.models.chat_models import EXTRACTIVE, check_model_name

        name = check_model_name(name)
        if name == EXTRACTIVE:
            raise SettingsError(
                f"The model {name} cannot judge.",
                fix="Name a language model: openai:NAME, local:PATH-OR-NAME or smollm2.",
            )
        # Decoding settings for answers do not apply to a judge.
        plain = self.settings.model_copy(update={"model": name, "decoding": DecodingSettings()})
        return self.models.language_model(with_prompt(plain, prompt.settings))
