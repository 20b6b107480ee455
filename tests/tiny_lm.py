"""Causal language models of a few thousand weights, made on the spot: what they write has no meaning."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from tiny import PAGES

from rag.models.local.local_chat import LocalChatModel
from rag.models.local.local_engine import LocalEngine, open_local_engine
from rag.models.local.local_files import locate_local
from rag.settings import LocalSettings

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<unk>", "<s>", "<|im_start|>", "<|im_end|>"]
MESSAGES: list[BaseMessage] = [SystemMessage("Be brief."), HumanMessage("When does the ferry leave?")]
OTHERS: list[BaseMessage] = [HumanMessage("Who reads the tide gauge, and how often on an ordinary day in March?")]


def make_tokenizer(template: str | None = TEMPLATE) -> Any:
    """A byte-level tokenizer of 400 tokens, trained on the pages of ``tiny``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(PAGES.values(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="<|im_end|>",
        chat_template=template,
    )


def make_model(folder: Path, *, seed: int = 0, template: str | None = TEMPLATE, **config: Any) -> Path:
    """Save a small Llama with random weights and its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(template)
    torch.manual_seed(seed)
    given = {
        "vocab_size": 400,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        # Wide enough that the most probable token is so by far, and no rounding changes it.
        "initializer_range": 0.3,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": False,
    }
    LlamaForCausalLM(LlamaConfig(**given | config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_adapter(base: Path, folder: Path, *, seed: int = 1, **config: Any) -> Path:
    """Save a LoRA adapter for a model, with weights that change what it writes."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    given = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
    made = LoraConfig(**given | {"task_type": "CAUSAL_LM"} | config)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), made).save_pretrained(
        str(folder), save_embedding_layers=False
    )
    return folder


def make_other(kind: str, folder: Path, **config: Any) -> Path:
    """Save a small model of another architecture, with random weights, and its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    given = {
        "vocab_size": 400,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.3,
        "bos_token_id": 1,
        "eos_token_id": 3,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **given | config)).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@contextmanager
def opened(model: Path | str, below: Path | None = None, **settings: Any) -> Iterator[LocalEngine]:
    """An engine of torch on the processor in f32, closed at the end; ``below`` is the folder of models."""
    given = {"runtime": "torch", "device": "cpu", "dtype": "f32"} | settings
    files = locate_local(str(model), download=False)
    engine = open_local_engine(files, LocalSettings(**given), below or Path("no-models"))
    try:
        yield engine
    finally:
        engine.close()


def chat(engine: LocalEngine, **fields: Any) -> LocalChatModel:
    return LocalChatModel(**{"engine": engine, "model": engine.name, "max_tokens": 24} | fields)


@dataclass
class Steps:
    """What a model was given at each step: the rows, and the positions that each of them had."""

    shapes: list[tuple[int, int]] = field(default_factory=list)
    before: Callable[[int], None] = lambda _: None

    @property
    def prefills(self) -> list[int]:
        """The rows of each batch, in order."""
        return [rows for rows, length in self.shapes if length > 1]


def watch(engine: LocalEngine, before: Callable[[int], None] = lambda _: None) -> Steps:
    """Count the steps of an engine; ``before`` is called with their number before each."""
    steps = Steps(before=before)

    def note(_: Any, __: Any, given: dict[str, Any]) -> None:
        ids = given["input_ids"]
        steps.shapes.append((ids.shape[0], ids.shape[1]))
        steps.before(len(steps.shapes))

    backend: Any = engine.backend
    if engine.runtime.startswith("OpenVINO"):
        backend._pipeline = Watched(backend._pipeline, steps)
    else:
        backend.model.register_forward_pre_hook(note, with_kwargs=True)
    return steps


class Watched:
    """A pipeline of OpenVINO GenAI that counts as steps the tokens of its longest request."""

    def __init__(self, pipeline: Any, steps: Steps) -> None:
        self._pipeline = pipeline
        self._steps = steps
        self._handles: list[Counted] = []

    def add_request(self, *given: Any) -> Counted:
        self._handles.append(Counted(self._pipeline.add_request(*given)))
        return self._handles[-1]

    def generate(self, *given: Any) -> Any:
        self._steps.before(len(self._steps.shapes) + 1)
        self._handles.clear()
        leading: list[int] = []
        try:
            written = self._pipeline.generate(*given)
            leading = written[0].m_generation_ids[0]
            return written
        finally:
            most = max((len(leading), *(handle.computed() for handle in self._handles)))
            self._steps.shapes += [(0, 0)] * most

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)


class Counted:
    """A handle of a request that counts its tokens, also those that nobody has read."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._unread: list[Any] = []
        self._count = 0
        self._lock = threading.Lock()

    def can_read(self) -> bool:
        self.computed()
        return bool(self._unread)

    def read(self) -> Any:
        return self._unread.pop(0)

    def computed(self) -> int:
        with self._lock:
            while self._handle.can_read():
                found = self._handle.read()
                self._count += sum(len(part.generated_ids) for part in found.values())
                self._unread.append(found)
            return self._count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)
