"""From a language model and its adapters to a folder of int8 weights that CTranslate2 serves on the processor.

    export_int8("org/model", [Path("models/adapters/citer")], Path("models/citer-int8"))

The folder is served with ``model = "local:FOLDER"``. It appears whole or not at all.
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
from rag.models.local.local_device import Place, check_memory
from rag.models.local.local_files import LocalFiles, locate_local
from rag.models.local.torch_backend import stored_end_tokens, window_of
from rag.models.local.tune_libraries import need_library
from rag.workspace import disk_errors

QUANTIZATION = "int8"
# What of a model's folder is copied to the export as it is, so that the tokenizer and its template are the same.
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
        folder: What ``local:`` may name.
        card: What is in it.
    """

    folder: Path
    card: ExportCard

    @property
    def bytes(self) -> int:
        """The size of all files."""
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
        adapters: Merged in this order.
        target: The folder to make; its parent is made where it is missing.
        on_step: Told what is done next.

    Raises:
        SettingsError: The target exists, or the model is an export already.
        ModelUnavailable: The model or an adapter is missing, does not fit, or is of a kind that CTranslate2 does
            not know.
        StorageFull: The disk has no room left.
    """
    target = target.expanduser().absolute()
    if target.exists():
        raise SettingsError(f"{target} exists already.", fix="Name a folder that does not, or remove it.")
    need_library("ctranslate2", f"model {model}")
    for adapter in adapters:
        need_library("peft", f"adapter {adapter.name}")
    files = locate_local(model)
    if files.kind == "ctranslate2":
        raise SettingsError(
            f"The model {model} is an export already.", fix="Name the model that it was made from."
        )
    # Converting holds the weights once as they are and once as CTranslate2 takes them.
    check_memory(files, Place("cpu", "f32"), fix="Free some memory, or export on a machine with more of it.")
    with disk_errors(f"write {target}"), _made_whole(target) as folder, _scratch(target) as prepared:
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
def _made_whole(target: Path) -> Iterator[Path]:
    """A new folder beside the target that takes its name at the end, and is removed where that does not come."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        yield folder
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """A folder for the merged model, on the disk of the target: it may be larger than the one for such files."""
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".merged", dir=target.parent) as folder:
        yield Path(folder)


def _prepare(files: LocalFiles, adapters: Sequence[AdapterFiles], prepared: Path) -> int | None:
    """Save the model with its adapters merged, and a tokenizer that has what CTranslate2 asks for.

    Returns:
        Tokens that the model reads at most; None where it has no limit.
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
            fix="Name a causal language model that transformers knows, and adapters that were trained on it.",
        ) from error
    window = window_of(model.config)
    model.save_pretrained(prepared)
    del model
    gc.collect()
    # Neither is ever written by the conversion: a prompt brings its first token along, and every token is known.
    stand_in = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    tokenizer.bos_token = tokenizer.bos_token or stand_in
    tokenizer.unk_token = tokenizer.unk_token or stand_in
    tokenizer.save_pretrained(prepared)
    return window


def _merged(model: Any, adapter: AdapterFiles) -> Any:
    from peft import PeftModel

    with quiet_peft():
        wrapped = PeftModel.from_pretrained(model, str(adapter.folder))
    # Safe: it refuses weights that are no numbers.
    return wrapped.merge_and_unload(safe_merge=True)


def _convert(prepared: Path, folder: Path, name: str) -> None:
    from ctranslate2.converters import TransformersConverter

    try:
        # The folder exists, and is ours.
        TransformersConverter(str(prepared)).convert(str(folder), quantization=QUANTIZATION, force=True)
    except OSError:
        raise
    except Exception as error:
        raise ModelUnavailable(
            f"CTranslate2 cannot convert the model {name}: {first_line(error)}.",
            fix="Serve it as it is with `local:`, or choose a Llama, Mistral, Qwen, Gemma or Phi model.",
        ) from error


def _source_of(name: str, files: LocalFiles, adapters: Sequence[AdapterFiles]) -> Path | None:
    """Where a file of the tokenizer comes from: an adapter may bring a chat template of its own."""
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
