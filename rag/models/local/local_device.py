"""Device and number format of a local model, and the check of its memory."""

from __future__ import annotations

import json
import math
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.encoders.encoder_opening import cpu_has_bf16, gpu_present
from rag.errors import ModelUnavailable
from rag.models.local.local_files import LocalFiles, read_json, weight_files
from rag.settings import LocalSettings

BYTES = {"bf16": 2, "f16": 2, "f32": 4}
TORCH_NAMES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
# Extra memory for the key-value cache and activations: about 0.4 GB for a model of 8 GB at 3,500 tokens.
WORKING_SHARE = 0.1
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_LONGEST_HEADER = 100_000_000
_GIGABYTE = 1e9


@dataclass(frozen=True, slots=True)
class Device:
    """Where a model runs: kind (``cpu``, ``cuda`` or ``mps``) and number format (``bf16``, ``f16`` or ``f32``)."""

    kind: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.kind}, {self.dtype}"


def choose_device(settings: LocalSettings) -> Device:
    """Return the configured device and number format; ``auto`` means the best of this machine.

    Raises:
        ModelUnavailable: The configured device is not available.
    """
    kind = _choose_kind(settings.device)
    return Device(kind, _best_dtype(kind) if settings.dtype == "auto" else settings.dtype)


def _choose_kind(wanted: str) -> str:
    if wanted == "cpu" or (wanted == "auto" and sys.platform != "darwin" and not gpu_present()):
        # Spare the import of torch.
        return "cpu"
    import torch

    usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(device for device, works in usable.items() if works)
    if not usable[wanted]:
        raise ModelUnavailable(
            f"local.device is {wanted}, but torch finds no such device.",
            fix="Install a build of torch for this machine, or set local.device to auto.",
        )
    return wanted


def _best_dtype(device: str) -> str:
    if device == "cuda":
        import torch

        return "bf16" if torch.cuda.is_bf16_supported() else "f16"
    return "bf16" if device == "cpu" and cpu_has_bf16() else "f32"


def check_memory(files: LocalFiles, device: Device, fix: str = "") -> int:
    """Check that a model fits into the free memory, and return the bytes that it needs.

    Args:
        files: The model.
        device: The device to run it on.
        fix: The remedy if it does not fit; by default, how to serve it with less memory.

    Raises:
        ModelUnavailable: The memory is too small.
    """
    needed = memory_needed(files.folder, device.dtype)
    free = free_memory(device.kind)
    if free is not None and needed > free:
        where = "the GPU's memory" if device.kind == "cuda" else "this machine's memory"
        raise ModelUnavailable(
            f"The model {files.name} needs about {needed / _GIGABYTE:.1f} GB in {device.dtype}, "
            f"but only {free / _GIGABYTE:.1f} GB of {where} are free.",
            fix=fix or _how_to_fit(device),
        )
    return needed


def memory_needed(folder: Path, dtype: str) -> int:
    """Return the bytes that a model of transformers needs: its weights in ``dtype``, and a tenth for its work.

    Raises:
        ModelUnavailable: The weights cannot be read.
    """
    files = weight_files(folder)
    if files[0].suffix == ".safetensors":
        return _with_work(sum(_safetensors_bytes(file, BYTES[dtype]) for file in files))
    stored = sum(file.stat().st_size for file in files)
    return _with_work(stored * BYTES[dtype] // _stored_width(folder))


def free_memory(device: str) -> int | None:
    """Return the free bytes on a device; None if unknown."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    room = _room_in_container(Path("/sys/fs/cgroup"))
    return free if room is None else min(free, room)


def _room_in_container(group: Path) -> int | None:
    """Return the free bytes below a container's memory limit, beyond which the process is killed."""
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
        counts = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        # The page cache of files is reclaimed when needed.
        return None if limit == "max" else int(limit) - used + int(counts.get("inactive_file", 0))
    except (OSError, ValueError):
        return None


def _safetensors_bytes(file: Path, width: int) -> int:
    """Return the bytes of a file's tensors if its floating-point numbers take ``width`` bytes each.

    The file starts with the length of its header in eight bytes, little-endian, and the header in JSON:
    https://huggingface.co/docs/safetensors/index#format
    """
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > _LONGEST_HEADER:
                raise ValueError("its header is too long")
            header: dict[str, Any] = json.loads(opened.read(length))
        tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
        end = max((tensor["data_offsets"][1] for tensor in tensors), default=0)
        if file.stat().st_size < 8 + length + end:
            raise ValueError("it is truncated")
        return sum(_tensor_bytes(tensor, width) for tensor in tensors)
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise ModelUnavailable(
            f"The weights {file} cannot be read: {error}.", fix="Download or copy the file again."
        ) from error


def _tensor_bytes(tensor: dict[str, Any], width: int) -> int:
    begin, end = tensor["data_offsets"]
    # Weights packed into integers keep their size.
    return math.prod(tensor["shape"]) * width if tensor["dtype"] in _FLOATS else int(end) - int(begin)


def _stored_width(folder: Path) -> int:
    config = read_json(folder / "config.json")
    stored = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return 4 if stored == "float32" else 2


def _with_work(weights: int) -> int:
    return int(weights * (1 + WORKING_SHARE))


def _how_to_fit(device: Device) -> str:
    options: Sequence[str] = (
        *(["set local.device to cpu"] if device.kind == "cuda" else []),
        *(["set local.dtype to bf16"] if device.dtype == "f32" else []),
        "choose a smaller model",
    )
    return f"Free some memory, {', '.join(options[:-1])}{', or ' if options[:-1] else 'or '}{options[-1]}."
