"""Opening the configured encoder on the best runtime."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from rag.encoders.encoder import Encoder
from rag.encoders.encoder_conversion import convert, converted_folder
from rag.encoders.encoder_files import locate_model
from rag.encoders.openvino_encoder import OpenVINOEncoder
from rag.encoders.torch_encoder import TorchEncoder
from rag.errors import EncoderError
from rag.settings import EncoderSettings
from rag.workspace import Workspace


def open_encoder(settings: EncoderSettings, workspace: Workspace) -> Encoder:
    """Load the encoder: on the GPU if there is one, else through OpenVINO, else on torch.

    The first call on a machine converts the model for OpenVINO, which takes about ten seconds.

    Raises:
        EncoderError: The model is missing or altered, or cannot run.
    """
    files = locate_model(settings)
    if settings.device == "cuda" or (settings.device == "auto" and gpu_present()):
        if cuda_works():
            precision = "f32" if settings.precision == "f32" else "bf16"
            return TorchEncoder(files, device="cuda", precision=precision, batch_size=settings.batch_size)
        if settings.device == "cuda":
            raise EncoderError(
                "encoder.device is cuda, but torch finds no usable GPU.",
                fix="Install a CUDA build of torch, or set encoder.device to auto.",
            )
    if importlib.util.find_spec("openvino") is None:
        notice = "OpenVINO is not installed: the encoder runs on torch, about four times slower."
        return TorchEncoder(files, device="cpu", precision="f32", batch_size=settings.batch_size, notice=notice)
    precision, notice = choose_precision(settings)
    folder = converted_folder(files, workspace.models)
    if not folder.is_dir():
        convert(files, folder)
    return OpenVINOEncoder(folder, precision=precision, batch_size=settings.batch_size, notice=notice)


def choose_precision(settings: EncoderSettings) -> tuple[str, str]:
    """Return the precision for this CPU, and a notice if it is slower than bf16.

    Raises:
        EncoderError: The settings demand bf16, but the CPU does not support it.
    """
    if settings.precision == "f32":
        return "f32", ""
    if cpu_has_bf16():
        return "bf16", ""
    if settings.precision == "bf16":
        raise EncoderError(
            "encoder.precision is bf16, but this CPU does not support bf16.",
            fix="Set encoder.precision to auto.",
        )
    return "f32", "This CPU does not support bf16: the encoder runs in f32, about half as fast."


def cpu_has_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this CPU."""
    if importlib.util.find_spec("openvino") is None:
        return False
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def gpu_present() -> bool:
    """Whether there may be an NVIDIA GPU, checked without torch."""
    return Path("/dev/nvidiactl").exists() or Path("/dev/nvidia0").exists()


def cuda_works() -> bool:
    """Whether torch can use a GPU."""
    import torch

    return bool(torch.cuda.is_available())
