"""The global options of the command line, and the settings that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rag.settings import Settings


@dataclass(frozen=True)
class Context:
    """The object that click passes to every command.

    Attributes:
        flags: Settings given before the command's name, sections as mappings; None means not given.
        config: The settings file that ``--config`` names.
        debug: Whether a failure shows its traceback.
    """

    flags: Mapping[str, Any] = field(default_factory=dict)
    config: Path | None = None
    debug: bool = False

    @cached_property
    def settings(self) -> Settings:
        """The settings of this call, read at first use.

        Raises:
            SettingsError: A file cannot be read, or a value is invalid.
        """
        return self.settings_with()

    def settings_with(self, **flags: Any) -> Settings:
        """Return the settings with a command's own flags on top; sections are given as mappings.

        Raises:
            SettingsError: A file cannot be read, or a value is invalid.
        """
        # pydantic takes 0.2 s to import; the help texts must not wait for it.
        from rag.settings import load_settings

        _ = self._warned
        return load_settings(self.given(flags), self.config)

    def given(self, flags: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that were given before the command's name or behind it, which counts."""
        return _over(_given(self.flags), _given(flags))

    @cached_property
    def _warned(self) -> bool:
        """Warn, once, about variables that set nothing; whether there are any."""
        from rag.settings import unknown_variables

        unknown = unknown_variables()
        for name, closest in unknown.items():
            hint = f"did you mean {closest}?" if closest else "it is ignored."
            click.echo(f"Warning: no setting is named {name}; {hint}", err=True)
        return bool(unknown)


pass_context = click.make_pass_decorator(Context)


def _given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the flags that were not given, at every depth."""
    return {
        name: _given(value) if isinstance(value, Mapping) else value
        for name, value in flags.items()
        if value is not None
    }


def _over(first: dict[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first flags with the second ones on top, at every depth."""
    merged = dict(first)
    for name, value in second.items():
        inner = first.get(name)
        merged[name] = _over(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return merged


def answer_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that change an answer; the function gets these settings as ``answering``."""

    @click.option(
        "--model",
        metavar="NAME",
        help="The model that answers: extractive (the extractive reader), "
        "smollm2 (the language model that is installed with ragsmith), "
        "local:PATH-OR-NAME for another model on this machine, or openai:NAME for an OpenAI-compatible server.",
    )
    @click.option("--prompt", metavar="REF", help="The prompt for answers: NAME, NAME@VERSION or NAME@LABEL.")
    @click.option("-k", type=click.IntRange(1, 1000), metavar="N", help="The number of passages in the prompt.")
    @wraps(function)
    def command(*arguments: Any, model: str | None, prompt: str | None, k: int | None, **options: Any) -> Any:
        answering = {"model": model, "prompt": prompt, "retrieval": {"k": k}}
        return function(*arguments, answering=answering, **options)

    return command
