"""Tokens of supervised fine-tuning: those of serving, then the reply and its end. Batches change no loss."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_lm import TEMPLATE, make_model, make_tokenizer, opened

from finetune.batches import stage_batches
from finetune.chat_features import ChatEncoder, messages_of
from finetune.completion_batches import IGNORED, LENGTH_STEP, Batches, as_batch, token_losses
from finetune.features import Feature, Features
from finetune.recipe import CausalStage, Source
from finetune.rows import ChatRow
from prompts import Message
from rag.errors import TuningError
from rag.models.local.chat_template import PLAIN_STOPS
from rag.models.local.local_engine import Decoding, LocalEngine
from rag.models.local.local_files import locate_local
from rag.models.local.local_tokenizer import load_tokenizer

# Templates of other families: one with an end of turn that is not the tokenizer's, one without a system role.
GEMMA = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for message in messages %}<s>{{ message.role }}\n{{ message.content | trim }}<|im_start|>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>model\n{% endif %}"
)
SMALL: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("base") / "tiny-llama", **SMALL)


@pytest.fixture(scope="module")
def engine(base: Path) -> Iterator[LocalEngine]:
    with opened(base) as loaded:
        yield loaded


@cache
def encoder_of(folder: Path, template: str | None = None) -> ChatEncoder:
    files = locate_local(str(folder))
    return ChatEncoder(files, load_tokenizer(files), template)


def served_ids(engine: LocalEngine, row: ChatRow) -> tuple[int, ...]:
    """The prompt that serving gives to the model."""
    started = engine.start(messages_of(row.turns), Decoding(max_tokens=1), lambda _: None)
    started.cancel()
    return started.request.prompt


TEXTS = st.text(min_size=1, max_size=60) | st.sampled_from(
    ["<|im_end|>\n<|im_start|>system\n", "<s>", "The ferry leaves at noon.\n", " ", "＜|im_end|>", "[INST]"]
)
TURNS = st.builds(Message, role=st.sampled_from(("system", "user", "assistant")), content=TEXTS)
ROWS = st.builds(ChatRow, st.lists(TURNS, min_size=1, max_size=4).map(tuple), TEXTS)


@given(ROWS)
def test_a_row_begins_with_the_tokens_of_serving_and_ends_with_one_end_of_turn(
    engine: LocalEngine, base: Path, row: ChatRow
) -> None:
    feature = encoder_of(base).feature(row)
    served = served_ids(engine, row)
    assert feature.ids[: feature.second] == served
    reply = feature.ids[feature.second :]
    special = set(load_tokenizer(locate_local(str(base))).all_special_ids)
    # Whatever the reply's text says, it contains no special token but the end.
    assert reply[-1] in engine.backend.ends
    assert not special & set(reply[:-1]) - {0}


@pytest.mark.parametrize("completion", ["Ida Brandt.", " Two\n\nlines. ", "Œuvre № 7 🗼", "x"])
def test_the_reply_is_the_text_of_the_completion(completion: str, base: Path) -> None:
    feature = encoder_of(base).feature(ChatRow((Message(role="user", content="Who?"),), completion))
    tokenizer = make_tokenizer()
    assert tokenizer.decode(feature.ids[feature.second :]) == f"{completion}<|im_end|>"
    assert tokenizer.decode(feature.ids[: feature.second]).endswith("<|im_start|>assistant\n")


def configured(folder: Path, template: str | None, ends: list[int] | None) -> Path:
    """A folder with a tokenizer and the end tokens of a generation configuration, and no weights."""
    tokenizer = make_tokenizer(template)
    if ends is None:
        tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    (folder / "model.safetensors").touch()
    if ends is not None:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}), encoding="utf-8")
    return folder


ROW = ChatRow(
    (Message(role="system", content="Be brief."), Message(role="user", content="Who?")),
    " Ida. ",
    "answers.jsonl, line 7",
)


@pytest.mark.parametrize(
    ("template", "ends", "expected"),
    [
        (TEMPLATE, [1, 3], "<|im_end|>"),
        (GEMMA, [1, 2, 3], "<|im_start|>"),
        # None of the end tokens is in the template: the tokenizer's own ends the reply.
        ("{{ messages[-1].content }}", [1, 3], "<|im_end|>"),
    ],
)
def test_the_end_is_the_token_that_ends_a_turn_of_the_template(
    template: str, ends: list[int], expected: str, tmp_path: Path
) -> None:
    feature = encoder_of(configured(tmp_path, template, ends)).feature(ROW)
    assert make_tokenizer().decode(feature.ids[-1:]) == expected


def test_without_a_template_a_reply_follows_the_plain_form(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    plain = encoder_of(configured(tmp_path / "plain", None, [3])).feature(ROW)
    expected = "System: Be brief.\n\nUser: Who?\n\nAssistant: Ida."
    assert tokenizer.decode(plain.ids) == f"{expected}<|im_end|>"
    # Where no token ends a reply, serving stops at the next turn of the user.
    endless = encoder_of(configured(tmp_path / "endless", None, None)).feature(ROW)
    assert tokenizer.decode(endless.ids) == f"{expected}\n\nUser:"
    assert PLAIN_STOPS[0] in tokenizer.decode(endless.ids[endless.second :])


def test_a_conversation_that_the_template_refuses_is_named_by_its_line(tmp_path: Path) -> None:
    refusing = "{{ raise_exception('roles must alternate') }}"
    encoder = encoder_of(configured(tmp_path, TEMPLATE, [3]), None)
    encoder._template = refusing
    with pytest.raises(TuningError, match=r"^answers\.jsonl, line 7: .*roles must alternate"):
        encoder.feature(ROW)


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 250_000), min_size=2, max_size=9), st.integers(1, 9)), max_size=6),
    st.integers(0, 1),
)
def test_tokens_of_a_large_vocabulary_survive_packing(given_rows: list[tuple[list[int], int]], least: int) -> None:
    features = [Feature(tuple(ids), min(second, len(ids) - 1), (-least,)) for ids, second in given_rows]
    packed = Features.pack(features)
    assert list(packed) == features
    small = all(token < 65_536 for feature in features for token in feature.ids)
    assert packed._arrays["ids"].dtype == (np.uint16 if small else np.uint32)


# Batches


def features_of(base: Path, count: int = 5) -> list[Feature]:
    encoder = encoder_of(base)
    texts = ["Who?", "When does the ferry leave the harbour?", "Who reads the tide gauge? " * 3]
    return [
        encoder.feature(ChatRow((Message(role="user", content=texts[number % 3]),), "The ferry. " * (1 + number)))
        for number in range(count)
    ]


def test_the_loss_of_a_padded_batch_is_that_of_its_rows_alone(base: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    features = features_of(base)
    batch = as_batch(features)
    found = token_losses(
        model(**{name: value for name, value in batch.items() if name != "labels"}).logits, batch["labels"]
    )
    alone = []
    for feature in features:
        ids = torch.tensor([feature.ids])
        scores = model(input_ids=ids).logits[0].log_softmax(-1)
        wanted = range(feature.second, len(feature.ids))
        alone.append(torch.stack([-scores[at - 1, feature.ids[at]] for at in wanted]))
        # As transformers itself computes the loss.
        labels = ids.clone()
        labels[:, : feature.second] = IGNORED
        own = model(input_ids=ids, labels=labels).loss
        torch.testing.assert_close(own, alone[-1].mean(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found, torch.cat(alone), atol=1e-4, rtol=1e-4)
    gradients = []
    for losses in (found, torch.cat(alone)):
        model.zero_grad()
        losses.mean().backward()
        gradients.append(model.model.layers[0].self_attn.q_proj.weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-3)


def test_logits_are_computed_only_where_there_may_be_a_loss(base: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    features = [Feature((*range(10, 110), 5, 3), 100, ())] * 2
    (batch,) = Batches(Features.pack(features), [np.array([0, 1])], as_batch, model)
    assert batch.keys() == {"input_ids", "attention_mask", "position_ids", "logits_to_keep", "labels"}
    labels = batch.pop("labels")
    logits = model(**batch).logits
    assert batch["input_ids"].shape == (2, 128)
    assert logits.shape[:2] == (2, 17)
    assert token_losses(logits, labels).shape == (4,)


def test_a_model_is_given_only_inputs_that_it_knows() -> None:
    import torch

    class Old(torch.nn.Module):
        def forward(self, input_ids: Any, attention_mask: Any) -> Any: ...

    (batch,) = Batches(Features.pack([Feature((1, 2, 3), 2, ())]), [np.array([0])], as_batch, Old())
    assert batch.keys() == {"input_ids", "attention_mask", "labels"}
    # All logits come then, and those that count are the last ones.
    assert token_losses(torch.zeros(1, 64, 9), batch["labels"]).shape == (1,)


def test_batches_of_many_lengths_have_few_shapes() -> None:
    rng = np.random.default_rng(1)
    features = Features.pack(Feature((1,) * int(n), int(n) - 3, ()) for n in rng.integers(20, 256, 600))
    stage = CausalStage(name="answers", sources=(Source(name="answers"),), learning_rate=1e-3, epochs=2)
    batches = stage_batches(features, stage, 1, LENGTH_STEP)
    shapes = [as_batch([features[int(row)] for row in rows])["input_ids"].shape for rows in batches]
    assert {length for _, length in shapes} == {64, 128, 192, 256}
    assert all(rows * length <= stage.batch_tokens for rows, length in shapes)
    assert len(set(shapes)) <= 9
