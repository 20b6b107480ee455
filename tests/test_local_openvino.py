"""Local models on OpenVINO GenAI: batches, adapters, and failures."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from tiny import whole
from tiny_lm import MESSAGES, OTHERS, chat, make_adapter, make_model, make_tokenizer, opened

from rag.errors import ModelError, ModelUnavailable
from rag.models.local import genai_pipeline
from rag.models.local.batching import Piece
from rag.models.local.chat_template import render
from rag.models.local.local_adapters import find_lora
from rag.models.local.local_engine import Decoding, LocalEngine

MANY = [MESSAGES, OTHERS, [HumanMessage("Why?")], [HumanMessage("When is the pier closed? " * 12)]]


@pytest.fixture(scope="module")
def engine(tiny_lm: Path) -> Iterator[LocalEngine]:
    with opened(tiny_lm, tiny_lm.parent, runtime="openvino", adapters=("citer", "poet-1.5")) as made:
        yield made


@pytest.fixture
def own_engine(tiny_lm: Path) -> Iterator[LocalEngine]:
    """An engine without adapters that a test may change."""
    with opened(tiny_lm, tiny_lm.parent, runtime="openvino") as made:
        yield made


def peft_text(model: Path, adapter: Path | None = None, messages: Any = MESSAGES, tokens: int = 24) -> str:
    """What transformers and peft write."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tokenizer = make_tokenizer()
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter is not None:
        loaded = PeftModel.from_pretrained(loaded, str(adapter))
    ids = list(render(tokenizer, messages).ids)
    with torch.no_grad():
        found = loaded.generate(
            input_ids=torch.tensor([ids]), max_new_tokens=tokens, do_sample=False, pad_token_id=0
        )
    return str(tokenizer.decode(found[0][len(ids) :], skip_special_tokens=True))


class Reader:
    """A request whose pieces are collected."""

    def __init__(self, engine: LocalEngine, tokens: int, messages: Any = MESSAGES, adapter: str | None = None):
        self.pieces: list[Piece | ModelError] = []
        self.begun, self.over = threading.Event(), threading.Event()
        self.began_at = 0.0
        self.row = engine.start(messages, Decoding(tokens), self._take, adapter)

    def _take(self, piece: Piece | ModelError) -> None:
        self.pieces.append(piece)
        if not self.begun.is_set():
            self.began_at = time.monotonic()
        self.begun.set()
        if isinstance(piece, ModelError) or piece.ending:
            self.over.set()

    def text(self) -> str:
        assert self.over.wait(60)
        assert not isinstance(self.pieces[-1], ModelError)
        return "".join(piece.text for piece in self.pieces if isinstance(piece, Piece))

    def error(self) -> ModelError:
        assert self.over.wait(60)
        assert isinstance(self.pieces[-1], ModelError)
        return self.pieces[-1]

    def until_written(self) -> None:
        deadline = time.monotonic() + 60
        while len(self.pieces) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.001)


# Batches


def test_requests_join_a_running_batch_and_are_written_as_alone(engine: LocalEngine) -> None:
    alone = [chat(engine).invoke(each).text for each in MANY]
    long_alone = Reader(engine, 900).text()
    long = Reader(engine, 900)
    long.until_written()
    joined = [Reader(engine, 24, each) for each in MANY]
    assert [each.text() for each in joined] == alone
    assert not long.over.is_set()
    assert long.text() == long_alone


def test_another_adapter_waits_only_for_what_came_before(engine: LocalEngine) -> None:
    first = Reader(engine, 300)
    first.until_written()
    other = Reader(engine, 5, adapter="citer")
    later = [Reader(engine, 300) for _ in range(3)]
    for each in (first, other, *later):
        each.text()
    assert first.began_at < other.began_at < min(each.began_at for each in later)


def test_a_cancelled_request_ends_while_others_go_on(engine: LocalEngine) -> None:
    expected = chat(engine, max_tokens=300).invoke(OTHERS).text
    cancelled, other = Reader(engine, 2000), Reader(engine, 300, OTHERS)
    cancelled.until_written()
    cancelled.row.cancel()
    read = len(cancelled.pieces)
    assert other.text() == expected
    assert len(cancelled.pieces) <= read + 1
    # The next adapter would otherwise wait for the rest of the 2,000 tokens.
    after = Reader(engine, 3, adapter="citer")
    after.text()
    assert not cancelled.over.is_set()


def test_more_requests_than_a_batch_has_room_for_are_all_answered(tiny_lm: Path) -> None:
    with opened(tiny_lm, tiny_lm.parent, runtime="openvino", max_batch=2) as engine:
        expected = chat(engine).invoke(MESSAGES).text
        assert [each.text() for each in [Reader(engine, 24) for _ in range(7)]] == [expected] * 7


def test_short_requests_that_come_and_go_are_all_answered(own_engine: LocalEngine) -> None:
    # Some join a batch in the moment in which it ends.
    expected = {tokens: chat(own_engine, max_tokens=tokens).invoke(MESSAGES).text for tokens in (1, 2, 3, 7)}
    found: list[bool] = []

    def ask(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(80):
            tokens = rng.choice((1, 2, 3, 7))
            found.append(chat(own_engine, max_tokens=tokens).invoke(MESSAGES).text == expected[tokens])
            time.sleep(rng.random() * 0.01)

    threads = [threading.Thread(target=ask, args=(seed,), daemon=True) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [True] * 320


def test_closing_ends_what_runs_and_what_waits(tiny_lm: Path) -> None:
    with opened(tiny_lm, tiny_lm.parent, runtime="openvino", adapters=("citer",)) as engine:
        running, waiting = Reader(engine, 2000), Reader(engine, 5, adapter="citer")
        running.until_written()
        engine.close()
        for each in (running, waiting):
            assert "has been closed" in each.error().message
        assert engine.backend._pipeline is None  # type: ignore[attr-defined]


def test_stops_and_counts_equal_those_of_torch(engine: LocalEngine, tiny_lm: Path) -> None:
    with opened(tiny_lm) as reference:
        told = chat(reference).invoke(MESSAGES).text
        for given in ({}, {"stop": [told[5:8]]}, {"stop": [told[-2:] + "x"]}, {"max_tokens": 1}):
            ours, theirs = (whole(chat(each).stream(MESSAGES, **given)) for each in (engine, reference))
            assert (ours.text, ours.usage_metadata) == (theirs.text, theirs.usage_metadata)
            assert ours.response_metadata["finish_reason"] == theirs.response_metadata["finish_reason"]


# Memory


def test_a_window_larger_than_the_cache_is_cut_to_it(tiny_lm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(genai_pipeline, "CACHE_TOKENS", 256)
    with opened(tiny_lm, tiny_lm.parent, runtime="openvino") as engine:
        with pytest.raises(ModelError, match="reads at most 256"):
            chat(engine).invoke([HumanMessage("ferry " * 300)])
        usage = chat(engine, max_tokens=500).invoke(MESSAGES).usage_metadata
        assert usage is not None
        assert usage["total_tokens"] == 256
        # Together they need more than the cache has.
        alone = Reader(engine, 150).text()
        assert [each.text() for each in [Reader(engine, 150) for _ in range(4)]] == [alone] * 4


# Adapters


def test_switching_back_and_forth_writes_what_peft_does(engine: LocalEngine, tiny_lm: Path) -> None:
    adapters = tiny_lm.parent / "adapters"
    expected = {name: peft_text(tiny_lm, name and adapters / name) for name in (None, "citer", "poet-1.5")}
    for name in (None, "citer", "poet-1.5", None, "poet-1.5", "citer", "citer", None):
        assert chat(engine, adapter=name).invoke(MESSAGES).text == expected[name]


def test_an_adapter_may_be_loaded_later(own_engine: LocalEngine, tiny_lm: Path, tmp_path: Path) -> None:
    plain = chat(own_engine).invoke(MESSAGES).text
    adapters = [
        tiny_lm.parent / "adapters" / "citer",
        make_adapter(tiny_lm, tmp_path / "same", seed=3),
        make_adapter(tiny_lm, tmp_path / "others", seed=4, target_modules=["o_proj", "up_proj", "down_proj"], r=2),
    ]
    for adapter in adapters:
        own_engine.load_adapter(find_lora(str(adapter), tmp_path))
        own_engine.load_adapter(find_lora(str(adapter), tmp_path))
        assert chat(own_engine, adapter=str(adapter)).invoke(MESSAGES).text == peft_text(tiny_lm, adapter)
        assert chat(own_engine).invoke(MESSAGES).text == plain
    first = str(adapters[0])
    assert chat(own_engine, adapter=first).invoke(MESSAGES).text == peft_text(tiny_lm, adapters[0])


def test_an_adapter_may_be_loaded_while_others_are_answered(
    own_engine: LocalEngine, tiny_lm: Path, tmp_path: Path
) -> None:
    running = Reader(own_engine, 600)
    running.until_written()
    adapter = tiny_lm.parent / "adapters" / "citer"
    own_engine.load_adapter(find_lora(str(adapter), tmp_path))
    asked = Reader(own_engine, 24, adapter=str(adapter))
    assert asked.text() == peft_text(tiny_lm, adapter)
    assert running.over.is_set()


def test_rslora_and_weights_of_16_bits_write_what_peft_does(
    own_engine: LocalEngine, tiny_lm: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    stabilized = make_adapter(tiny_lm, tmp_path / "stabilized", use_rslora=True)
    half = make_adapter(tiny_lm, tmp_path / "half", seed=6)
    weights = load_file(half / "adapter_model.safetensors")
    rounded = {name: value.to(torch.bfloat16) for name, value in weights.items()}
    save_file(rounded, half / "adapter_model.safetensors", metadata={"format": "pt"})
    for adapter in (stabilized, half):
        own_engine.load_adapter(find_lora(str(adapter), tmp_path))
        assert chat(own_engine, adapter=str(adapter)).invoke(MESSAGES).text == peft_text(tiny_lm, adapter)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"use_dora": True}, "uses use_dora"),
        ({"bias": "lora_only"}, "uses bias"),
        ({"rank_pattern": {"q_proj": 2}}, "uses rank_pattern"),
        ({"alpha_pattern": {"q_proj": 2}}, "uses alpha_pattern"),
        ({"modules_to_save": ["lm_head"]}, "uses modules_to_save"),
        ({"init_lora_weights": "pissa"}, "uses init_lora_weights pissa"),
        ({"target_modules": ["q_proj", "lm_head"]}, "changes the layer lm_head"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "lora_embedding_A"),
    ],
)
def test_what_openvino_would_ignore_is_refused_with_the_remedy(
    engine: LocalEngine, tiny_lm: Path, tmp_path: Path, config: Any, words: str
) -> None:
    adapter = make_adapter(tiny_lm, tmp_path / "adapter", **config)
    with pytest.raises(ModelUnavailable, match=words) as caught:
        engine.load_adapter(find_lora(str(adapter), tmp_path))
    assert "which OpenVINO does not support" in caught.value.message
    assert caught.value.fix == "Set local.runtime to torch."


@pytest.mark.parametrize("change", [{"hidden_size": 32}, {"num_hidden_layers": 4}])
def test_an_adapter_of_another_base_is_refused_before_it_touches_the_model(
    own_engine: LocalEngine, tiny_lm: Path, tmp_path: Path, change: dict[str, int]
) -> None:
    plain = chat(own_engine).invoke(MESSAGES).text
    other = make_adapter(make_model(tmp_path / "other", **change), tmp_path / "foreign")
    with pytest.raises(ModelUnavailable, match="does not match the model"):
        own_engine.load_adapter(find_lora(str(other), tmp_path))
    assert chat(own_engine).invoke(MESSAGES).text == plain


def test_nothing_is_printed_beside_the_answers(tiny_lm: Path, tmp_path: Path, capfd: Any) -> None:
    other = make_adapter(tiny_lm, tmp_path / "others", seed=4, target_modules=["o_proj"])
    capfd.readouterr()
    with opened(tiny_lm, tiny_lm.parent, runtime="openvino", adapters=("citer", str(other))) as engine:
        for name in ("citer", str(other), None, "citer"):
            chat(engine, adapter=name).invoke(MESSAGES)
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


# Failures


class Failing:
    """A pipeline whose next call of ``generate`` fails."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def generate(self, *_: Any) -> None:
        raise RuntimeError("the processor is on fire\nsecond line")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)


def test_a_failing_pipeline_is_told_to_all_and_the_next_request_is_served(engine: LocalEngine) -> None:
    backend: Any = engine.backend
    expected = {name: chat(engine, adapter=name).invoke(MESSAGES).text for name in (None, "citer")}
    for name in (None, "citer"):
        running = Reader(engine, 600, adapter="poet-1.5")
        running.until_written()
        backend._pipeline = Failing(backend._pipeline)
        failed = [Reader(engine, 5, adapter="citer") for _ in range(3)]
        for each in failed:
            assert each.error().message.endswith("failed: the processor is on fire.")
            assert "local.runtime to torch" in each.error().fix
        # The base comes first once: a new pipeline must not begin with the adapters that it knows.
        assert chat(engine, adapter=name).invoke(MESSAGES).text == expected[name]


def test_a_request_that_the_pipeline_refuses_fails_alone(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = chat(engine, max_tokens=200).invoke(MESSAGES).text
    running = Reader(engine, 200)
    running.until_written()
    with pytest.raises(ModelError, match="refuses the request") as caught:
        chat(engine, temperature=1.0, repetition_penalty=-1.0).invoke(MESSAGES)
    assert "under decoding" in caught.value.fix
    assert running.text() == expected
    with pytest.raises(ModelError, match="refuses the request"):
        chat(engine, temperature=1.0, repetition_penalty=-1.0).invoke(MESSAGES)
    assert chat(engine, max_tokens=200).invoke(MESSAGES).text == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot limit a process to a core")
def test_a_single_core_serves_a_model_in_bf16_too(tiny_lm: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from tiny_lm import MESSAGES, chat, opened\n"
        "model = Path(sys.argv[1])\n"
        "with opened(model, model.parent, runtime='openvino', dtype='bf16') as engine:\n"
        "    assert chat(engine).invoke(MESSAGES).text\n"
        "    print(engine.runtime)\n"
    )
    with opened(tiny_lm, tiny_lm.parent, runtime="openvino"):
        pass
    told = subprocess.run(
        [sys.executable, "-c", code, str(tiny_lm)], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr[-500:]
    assert told.stdout.strip() == "OpenVINO GenAI on cpu, f32"
