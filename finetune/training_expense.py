"""What a training has cost: the seconds of its process, in the ledger of the workspace."""

from __future__ import annotations

import logging

from finetune.run_folder import RunFolder
from rag.database import open_database
from rag.errors import RagsmithError
from rag.settings import load_settings
from rag.tracing.cost import load_prices
from rag.tracing.ledger import Expense, Ledger, Spending
from rag.workspace import Workspace

_log = logging.getLogger(__name__)


def record_training(run: RunFolder, model: str, seconds: float) -> Spending:
    """Add the seconds of a training process to the ledger, and return what they have cost.

    An unreadable price list or database never fails a training: the log says that the cost is missing.

    Args:
        run: The run, in the workspace of the ledger.
        model: What was trained.
        seconds: The seconds of this machine.
    """
    try:
        settings = load_settings()
        prices = load_prices(settings.cost)
        expense = Expense(
            "training",
            run.name,
            "train",
            model,
            prices.checked.isoformat(),
            prices.seconds_usd(seconds),
            seconds,
        )
        url = settings.database_url
        engine = open_database(Workspace(run.path.parent.parent), url.get_secret_value() if url else None)
        try:
            Ledger(engine).add(expense)
        finally:
            engine.dispose()
    except RagsmithError as error:
        _log.warning("The cost of the training is not in the ledger: %s", error)
        return Spending(calls=1, unknown=1, seconds=seconds)
    return expense.spending


def machine_usd(seconds: float) -> float:
    """Return what seconds of this machine cost at the configured rate; 0 if the price list cannot be read."""
    try:
        return load_prices(load_settings().cost).seconds_usd(seconds)
    except RagsmithError as error:
        _log.warning("The cost of the training is unknown: %s", error)
        return 0.0
