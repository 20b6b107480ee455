"""The tokenizer of a converted model: what it does must be what transformers does."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from tiny import PAGES
from tiny_lm import MESSAGES, SPECIAL, TEMPLATE, make_tokenizer, opened

from rag.errors import ModelProtocolError, ModelUnavailable
from rag.models.local.chat_template import render
from rag.models.local.light_tokenizer import FACTS, TOKENIZER, LightTokenizer, sample_texts, store_tokenizer


def byte_level() -> Any:
    return make_tokenizer()


def with_beginning() -> Any:
    """A tokenizer of pieces with spaces, bytes for unknown characters, and a token before each text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=[*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    made.train_from_iterator(PAGES.values(), trainer)
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="<|im_end|>", chat_template=TEMPLATE
    )


def words() -> Any:
    """A tokenizer of whole words and their ends, which joins and strips what it decodes."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=SPECIAL, show_progress=False)
    made.train_from_iterator(PAGES.values(), trainer)
    made.enable_truncation(5)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", pad_token="<s>", eos_token="<|im_end|>", chat_template=None
    )


@pytest.mark.parametrize("make", [byte_level, with_beginning, words])
def test_a_thousand_texts_have_the_ids_and_the_words_of_transformers(make: Any, tmp_path: Path) -> None:
    reference = make()
    store_tokenizer(reference, tmp_path)
    light = LightTokenizer(tmp_path)
    rng = random.Random(20)
    texts = [
        text for _ in range(4) for text in sample_texts(rng, [*SPECIAL, "ferry", " pier", "<0x41>", "▁", "Ġ"])
    ]
    assert len(texts) >= 1000
    for text in texts:
        for special in (True, False):
            ids = reference(text, add_special_tokens=special)["input_ids"]
            assert light(text, add_special_tokens=special)["input_ids"] == ids
            for skipped in (True, False):
                assert light.decode(ids, skip_special_tokens=skipped) == reference.decode(
                    ids, skip_special_tokens=skipped, clean_up_tokenization_spaces=False
                )
    for name in ("chat_template", "eos_token_id", "pad_token_id", "unk_token_id"):
        assert getattr(light, name) == getattr(reference, name)
    assert set(light.all_special_ids) == set(reference.all_special_ids)


TURNS = [
    SystemMessage("Be <|im_end|> brief."),
    HumanMessage("One?"),
    AIMessage("First."),
    HumanMessage("Zwei 🙂?"),
]


@pytest.mark.parametrize(
    "template",
    [
        None,
        TEMPLATE,
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}{{ eos_token }}{% endfor %}",
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
        "{% set ns = namespace(found=false) %}{% for m in messages %}\n  {% if m.role == 'user' %}\n"
        "{% set ns.found = true %}{{ messages | tojson }}\n{% break %}{% endif %}{% endfor %}{{ ns.found }}",
        "{{ strftime_now('%Y') }}{{ tools is none }}{{ enable_thinking }}{{ dict(a=1) }}",
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}",
    ],
)
def test_prompts_are_those_of_transformers(template: str | None, tmp_path: Path) -> None:
    reference = make_tokenizer(template)
    store_tokenizer(reference, tmp_path)
    light = LightTokenizer(tmp_path)
    for turns in (TURNS, MESSAGES, TURNS[1:2]):
        for own in (None, "{{ messages | length }}{{ messages[-1].content }}"):
            assert render(light, turns, own) == render(reference, turns, own)


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages.__class__ }}{{ messages.append(1) }}",
        "{% set ns = namespace(_secret=1) %}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{% if %}",
    ],
)
def test_a_template_that_fails_or_breaks_out_is_refused(template: str, tmp_path: Path) -> None:
    store_tokenizer(make_tokenizer(), tmp_path)
    light = LightTokenizer(tmp_path)
    with pytest.raises(TemplateError):
        light.apply_chat_template([{"role": "user", "content": "x"}], chat_template=template)
    with pytest.raises(ModelProtocolError, match="does not accept these messages"):
        render(light, MESSAGES, template)


def test_what_differs_from_transformers_is_not_stored(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    class Shouting(PreTrainedTokenizerFast):  # type: ignore[misc]
        def _encode_plus(self, text: Any, *args: Any, **given: Any) -> Any:
            return super()._encode_plus(text.upper(), *args, **given)

    plain = make_tokenizer()
    shouting = Shouting(tokenizer_object=plain.backend_tokenizer, eos_token="<|im_end|>")
    store_tokenizer(shouting, tmp_path)
    assert list(tmp_path.iterdir()) == []
    plain.chat_template = {"default": TEMPLATE, "tools": TEMPLATE}
    store_tokenizer(plain, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [FACTS, TOKENIZER])
def test_a_damaged_file_is_told(name: str, tmp_path: Path) -> None:
    store_tokenizer(make_tokenizer(), tmp_path)
    (tmp_path / name).write_text("{}")
    with pytest.raises(ModelUnavailable, match="is damaged") as caught:
        LightTokenizer(tmp_path)
    assert "Delete that folder" in caught.value.fix


def test_a_converted_model_answers_without_torch_and_transformers(tiny_lm: Path) -> None:
    with opened(tiny_lm, tiny_lm.parent, runtime="openvino"):
        pass
    code = """
import sys
from pathlib import Path
from langchain_core.messages import HumanMessage
from rag.models.local.local_chat import LocalChatModel
from rag.models.local.local_engine import open_local_engine
from rag.models.local.local_files import locate_local
from rag.settings import LocalSettings
settings = LocalSettings(runtime="openvino", device="cpu", dtype="f32", adapters=("citer",))
files = locate_local(sys.argv[1], download=False)
engine = open_local_engine(files, settings, Path(sys.argv[1]).parent)
assert LocalChatModel(engine=engine, model="tiny", max_tokens=5).invoke([HumanMessage("Why?")]).text
engine.close()
print({"torch", "transformers", "peft"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tiny_lm)], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
