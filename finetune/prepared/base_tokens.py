"""Tokens of examples, counted with the tokenizer of a base as a training reads them."""

from __future__ import annotations

from pathlib import Path

from finetune.chat_features import ChatEncoder
from finetune.language_model import Base
from finetune.prepared.examples import Example
from finetune.prepared.text_rendering import Rendering
from finetune.rows import ChatRow
from rag.models.local.local_tokenizer import load_tokenizer


class BaseTokens:
    """Counts the tokens of texts and examples.

    Args:
        name: The base, as in a recipe.
        models: The workspace's folder of models.

    Raises:
        ModelUnavailable: There is no such model.
        TuningError: peft is not installed.
    """

    def __init__(self, name: str, models: Path) -> None:
        self.base = Base.locate(name, models)
        self._tokenizer = load_tokenizer(self.base.files)
        self._encoders: dict[Rendering, ChatEncoder] = {}

    @property
    def window(self) -> int | float:
        """Context window of the base in tokens; infinite if there is no limit."""
        return self.base.window

    def of_text(self, text: str) -> int:
        """Return the tokens of a text alone."""
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def of_example(self, example: Example, rendering: Rendering) -> int:
        """Return the tokens of an example as it is trained on, with template and end token."""
        return sum(self.parts(example, rendering))

    def parts(self, example: Example, rendering: Rendering) -> tuple[int, int]:
        """Return the tokens of the prompt and of the completion of an example as it is trained on."""
        encoder = self._encoders.get(rendering)
        if encoder is None:
            encoder = ChatEncoder(self.base.files, self._tokenizer, rendering.chat_template)
            self._encoders[rendering] = encoder
        row = ChatRow(
            rendering.turns(example.turns), rendering.completion(example.completion), f"Row {example.number}"
        )
        feature = encoder.feature(row)
        return feature.second, len(feature.ids) - feature.second
