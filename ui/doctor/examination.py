"""All checks, in the order in which one depends on another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rag.errors import RagsmithError
from ui.doctor.check import Check
from ui.doctor.model_checks import check_encoder, check_model, check_openvino, check_smollm2, check_torch
from ui.doctor.setup_checks import (
    check_otlp,
    check_port,
    check_python,
    check_settings,
    check_wandb,
    check_workspace,
)
from ui.doctor.store_checks import (
    check_alerts,
    check_chroma,
    check_database,
    check_index,
    check_pending,
    check_prompts,
)

if TYPE_CHECKING:
    from rag.settings import Settings
    from ui.context import Context


def examine(context: Context) -> Iterator[Check]:
    """Run every check; settings that cannot be read end the examination."""
    yield check_python()
    try:
        settings = context.settings
    except RagsmithError as error:
        yield Check("settings", False, error.message, error.fix)
        return
    yield check_settings(settings, context.config)
    workspace = _guarded(check_workspace, settings)
    yield workspace
    if workspace.ok is not False:
        yield _guarded(check_prompts, settings)
        stores = [_guarded(check, settings) for check in (check_database, check_chroma)]
        yield from stores
        if stores[0].ok:
            yield _guarded(check_pending, settings)
            yield _guarded(check_alerts, settings)
        # The index check compares the two stores.
        if all(store.ok for store in stores):
            yield _guarded(check_index, settings)
    models = (check_encoder, check_openvino, check_torch, check_smollm2, check_model)
    for check in (*models, check_wandb, check_otlp, check_port):
        yield _guarded(check, settings)


def _guarded(check: Callable[[Settings], Check], settings: Settings) -> Check:
    name = check.__name__.removeprefix("check_")
    try:
        return check(settings)
    except RagsmithError as error:
        return Check(name, False, error.message, error.fix)
    except ImportError as error:
        return Check(name, False, f"{error}.", "Install ragsmith again: `make install`.")
    except Exception as error:  # noqa: BLE001 - whatever breaks a check is its result
        return Check(name, False, f"{type(error).__name__}: {error}", "Report this line as a bug in ragsmith.")
