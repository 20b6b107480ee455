"""Quote or write: a switch between the two models of the bare machine, and nothing else."""

from __future__ import annotations

import pytest

from rag.settings import Settings
from ui.pages.chat.answer_mode import QUOTE, WRITE, offers_modes, variant_of


@pytest.mark.parametrize(
    ("model", "mode", "changed"),
    [
        ("extractive", QUOTE, None),
        ("extractive", WRITE, {"model": "smollm2"}),
        ("smollm2", WRITE, None),
        ("smollm2", QUOTE, {"model": "extractive"}),
        # A browser may send anything; a configured model stays.
        ("openai:gpt-4o", WRITE, None),
        ("extractive", "openai:gpt-4o", None),
    ],
)
def test_a_mode_changes_the_model_of_a_question(model: str, mode: str, changed: dict[str, str] | None) -> None:
    variant = variant_of(mode, Settings(model=model))
    assert (variant.changes if variant else None) == changed


def test_the_switch_is_offered_where_both_models_can_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert offers_modes(Settings())
    assert not offers_modes(Settings(model="local:org/name"))
    monkeypatch.setattr("ui.pages.chat.answer_mode.find_weights", lambda: None)
    assert not offers_modes(Settings())


def test_each_model_brings_its_prompt_and_its_adapter() -> None:
    quoting, writing = Settings(), Settings(model="smollm2")
    assert (quoting.answer_prompt, quoting.active_adapter) == ("answer", "")
    assert (writing.answer_prompt, writing.active_adapter) == ("answer-from-evidence", "writer")
    base = Settings(model="smollm2", prompt="mine@2", local={"adapter": ""})
    assert (base.answer_prompt, base.active_adapter) == ("mine@2", "")
