"""Export of a language model and its adapters to int8 weights that CTranslate2 serves on the CPU.

    export_int8("org/model", [Path("models/adapters/citer")], Path("models/citer-int8"))

The folder is written atomically and served with ``model = "local:FOLDER"``.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rag.encoders.own_code import FIX, needs_own_code, refusal_of
from rag.errors import ModelUnavailable, RagsmithError, SettingsError, first_line
from rag.models.local.export_card import CARD, ExportCard, describe_files
from rag.models.local.local_adapters import AdapterFiles, check_fit, quiet_peft
from rag.models.local.local_device import Device, check_memory
from rag.models.local.local_files import LocalFiles, locate_local
from rag.models.local.torch_backend import stored_end_tokens, window_of
from rag.models.local.tune_libraries import need_library
from rag.workspace import disk_errors

QUANTIZATION = "int8"
# Files that are copied unchanged, so that the tokenizer and its template stay the same.
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


@dataclass(frozen=True, slots=True)
class Export:
    """A finished export.

    Attributes:
        folder: The folder to name after ``local:``.
        card: The description of its content.
    """

    folder: Path
    card: ExportCard

    @property
    def bytes(self) -> int:
        """Total size of all files."""
        return sum(file.bytes for file in self.card.files.values())


def export_int8(
    model: str,
    adapters: Sequence[AdapterFiles],
    target: Path,
    on_step: Callable[[str], None] = lambda _: None,
) -> Export:
    """Merge adapters into a model and convert it to int8.

    Args:
        model: A folder or a name on the hub.
        adapters: The adapters to merge, in this order.
        target: The folder to create; missing parents are created too.
        on_step: Called with a message before each step.

    Raises:
        SettingsError: The target exists, or the model is already an export.
        ModelUnavailable: The model or an adapter is missing, does not fit, or is of a kind that CTranslate2 does
            not support.
        StorageFull: The disk is full.
    """
    target = target.expanduser().absolute()
    if target.exists():
        raise SettingsError(f"{target} already exists.", fix="Choose a new folder, or remove this one.")
    need_library("ctranslate2", f"model {model}")
    for adapter in adapters:
        need_library("peft", f"adapter {adapter.name}")
    files = locate_local(model)
    if files.kind == "ctranslate2":
        raise SettingsError(f"The model {model} is already an export.", fix="Name the model it was exported from.")
    # The conversion keeps two copies of the weights in memory.
    check_memory(files, Device("cpu", "f32"), fix="Free some memory, or export on a machine with more of it.")
    with disk_errors(f"write {target}"), _atomic_folder(target) as folder, _scratch(target) as prepared:
        on_step("Merging the adapters." if adapters else "Reading the model.")
        window = _prepare(files, adapters, prepared)
        on_step("Converting to int8.")
        _convert(prepared, folder, files.name)
        for name in _TOKENIZER_FILES:
            source = _source_of(name, files, adapters)
            if source is not None:
                shutil.copyfile(source, folder / name)
        card = _card(files, adapters, folder, window)
        (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return Export(target, card)


@contextmanager
def _atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside the target; rename it to the target on success, remove it on failure."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        yield folder
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """Yield a temporary folder for the merged model on the target's disk, which may be larger than /tmp."""
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".merged", dir=target.parent) as folder:
        yield Path(folder)


def _prepare(files: LocalFiles, adapters: Sequence[AdapterFiles], prepared: Path) -> int | None:
    """Save the merged model, and a tokenizer with the special tokens that CTranslate2 requires.

    Returns:
        The context window in tokens; None if the model has no limit.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        options = {"local_files_only": True, "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(files.folder, **options)
        model = AutoModelForCausalLM.from_pretrained(files.folder, dtype="auto", **options)
        for adapter in adapters:
            check_fit(adapter, model, files.name)
            model = _merged(model, adapter)
    except RagsmithError:
        raise
    except Exception as error:
        if needs_own_code(error):
            raise ModelUnavailable(refusal_of(files.folder), fix=FIX) from error
        raise ModelUnavailable(
            f"The model {files.name} cannot be prepared: {first_line(error)}.",
            fix="Use a causal language model that transformers supports, and adapters that were trained on it.",
        ) from error
    window = window_of(model.config)
    model.save_pretrained(prepared)
    del model
    gc.collect()
    # The conversion requires both tokens but never uses them: a prompt includes its own first token.
    stand_in = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    tokenizer.bos_token = tokenizer.bos_token or stand_in
    tokenizer.unk_token = tokenizer.unk_token or stand_in
    tokenizer.save_pretrained(prepared)
    return window


def _merged(model: Any, adapter: AdapterFiles) -> Any:
    from peft import PeftModel

    with quiet_peft():
        wrapped = PeftModel.from_pretrained(model, str(adapter.folder))
    # safe_merge refuses weights that are NaN.
    return wrapped.merge_and_unload(safe_merge=True)


def _convert(prepared: Path, folder: Path, name: str) -> None:
    from ctranslate2.converters import TransformersConverter

    try:
        # force: the folder exists, and is ours.
        TransformersConverter(str(prepared)).convert(str(folder), quantization=QUANTIZATION, force=True)
    except OSError:
        raise
    except Exception as error:
        raise ModelUnavailable(
            f"CTranslate2 cannot convert the model {name}: {first_line(error)}.",
            fix="Serve it unconverted with `local:`, or choose a Llama, Mistral, Qwen, Gemma or Phi model.",
        ) from error


def _source_of(name: str, files: LocalFiles, adapters: Sequence[AdapterFiles]) -> Path | None:
    """Find a tokenizer file; an adapter may have its own chat template."""
    folders = [files.folder]
    if name == "chat_template.jinja":
        folders = [*(adapter.folder for adapter in reversed(adapters)), files.folder]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _card(files: LocalFiles, adapters: Sequence[AdapterFiles], folder: Path, window: int | None) -> ExportCard:
    import ctranslate2
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    ends = stored_end_tokens(files.folder, tokenizer)
    return ExportCard(
        base=files.name,
        adapters=tuple(adapter.name for adapter in adapters),
        quantization=QUANTIZATION,
        window=window,
        end_tokens=tuple(sorted(ends)),
        made=datetime.now(UTC).date().isoformat(),
        ctranslate2=ctranslate2.__version__,
        files=describe_files(folder),
    )
