"""Texts that the language model smollm2 writes for many prompts, on OpenVINO GenAI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.chat_features import messages_of
from prompts import Message
from rag.encoders.adapters import WEIGHTS
from rag.errors import ModelUnavailable, first_line
from rag.models.local.causal_conversion import converted_causal, refusal_reason
from rag.models.local.chat_template import render
from rag.models.local.end_tokens import stored_end_tokens
from rag.models.local.genai_pipeline import servable_dtype
from rag.models.local.local_adapters import AdapterFiles
from rag.models.local.local_device import choose_device
from rag.models.local.local_files import LocalFiles
from rag.models.local.local_tokenizer import load_tokenizer
from rag.settings import LocalSettings

TOP_P = 0.95
# Blocks of 32 tokens: a cached beginning and the running prompts.
_CACHE_BLOCKS = 2_048
_STEP_TOKENS = 1_024


@dataclass(frozen=True, slots=True)
class Drawing:
    """How the texts of a prompt are drawn.

    Attributes:
        count: Number of texts; greedy texts are all alike.
        temperature: 0 for the most probable tokens.
        max_tokens: Maximum tokens of a text.
        seed: Decides the random numbers; no effect at temperature 0.
    """

    count: int = 1
    temperature: float = 0.0
    max_tokens: int = 48
    seed: int = 0


class TextSampler:
    """Writes with one adapter or none; prompts that begin alike are read once.

    Args:
        files: A causal language model, such as the one that ``shipped_base.prepare_base`` returns.
        models: The workspace's folder of models; the first use converts the model into it.
        adapter: A LoRA adapter that matches the model.

    Raises:
        EncoderError: The conversion failed.
        ModelUnavailable: OpenVINO cannot run the model.
    """

    def __init__(self, files: LocalFiles, models: Path, adapter: AdapterFiles | None = None) -> None:
        import openvino_genai

        folder = converted_causal(files, models)
        if reason := refusal_reason(folder):
            raise ModelUnavailable(f"The model {files.name} cannot run on OpenVINO: {reason}.")
        self._tokenizer = load_tokenizer(files)
        self._ends = stored_end_tokens(folder, self._tokenizer)
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.num_kv_blocks = _CACHE_BLOCKS
        scheduler.max_num_batched_tokens = _STEP_TOKENS
        scheduler.dynamic_split_fuse = True
        scheduler.enable_prefix_caching = True
        dtype = servable_dtype(choose_device(LocalSettings(device="cpu")).dtype)
        properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": dtype, "KV_CACHE_PRECISION": "f16"}
        if adapter is not None:
            # The only mode that applies to requests that are run step by step.
            adapters = openvino_genai.AdapterConfig(mode=openvino_genai.AdapterConfig.Mode.MODE_STATIC)
            adapters.add(openvino_genai.Adapter(adapter.folder / WEIGHTS), adapter.scale)
            properties["adapters"] = adapters
        try:
            self._pipeline = openvino_genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", properties)
        except RuntimeError as error:
            raise ModelUnavailable(
                f"The converted model in {folder} cannot be loaded: {first_line(error)}.",
                fix="Delete that folder; it is created again.",
            ) from error

    def texts(self, prompts: Sequence[tuple[Sequence[Message], Drawing]]) -> list[list[str]]:
        """Write for all prompts in one batch; Ctrl-C ends it after the current token.

        Returns:
            The texts of each prompt, without white space around them.
        """
        import numpy as np
        import openvino

        handles = []
        for number, (turns, drawing) in enumerate(prompts):
            ids = render(self._tokenizer, messages_of(turns)).ids
            tensor = openvino.Tensor(np.array([ids], dtype=np.int64))
            handles.append(self._pipeline.add_request(number, tensor, self._configured(drawing)))
        try:
            # Unlike `generate`, a step returns to Python, which then sees a Ctrl-C.
            while self._pipeline.has_non_finished_requests():
                self._pipeline.step()
        except BaseException:
            for handle in handles:
                handle.cancel()
            raise
        return [[self._decoded(output.generated_ids) for output in handle.read_all()] for handle in handles]

    def _configured(self, drawing: Drawing) -> Any:
        import openvino_genai

        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = drawing.max_tokens
        config.num_return_sequences = drawing.count
        config.stop_token_ids = set(self._ends)
        if self._ends:
            config.eos_token_id = min(self._ends)
        config.do_sample = drawing.temperature > 0
        if config.do_sample:
            config.temperature, config.top_p, config.rng_seed = drawing.temperature, TOP_P, drawing.seed
        return config

    def _decoded(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text.strip()
