"""The factors in which two configurations differ, and all combinations of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from rag.errors import SettingsError
from rag.evaluation.variants import Variant

FactorName = Literal["prompt", "retrieval", "model"]

FACTORS: tuple[FactorName, ...] = ("prompt", "retrieval", "model")


@dataclass(frozen=True, slots=True)
class Factor:
    """What differs between two configurations and is turned as one.

    Attributes:
        a, b: The settings of each that belong to it, by their dotted names.
    """

    name: FactorName
    a: Mapping[str, JsonValue]
    b: Mapping[str, JsonValue]


def factors(a: Variant, b: Variant) -> tuple[Factor, ...]:
    """The factors in which two configurations differ, in the order of ``FACTORS``.

    ``retrieval.*`` is the retrieval; the model and the adapters are the model; all else is the prompt: it decides
    with it what is said. A setting that only one of them names differs: name all of them in both. What a prompt
    version itself asks for is a part of the prompt unless the configuration names it.
    """
    return tuple(
        Factor(name, *parts) for name in FACTORS if (parts := (_part(a, name), _part(b, name)))[0] != parts[1]
    )


def combinations(a: Variant, b: Variant) -> tuple[Variant, ...]:
    """All combinations of the factors that differ: A first, B last, and between them as ``prompt of B``.

    Their order is that of counting in binary, where factor i is bit i, and a bit that is set takes it from B.

    Raises:
        SettingsError: The two do not differ.
    """
    differing = factors(a, b)
    if not differing:
        raise SettingsError(
            "A and B are the same configuration.", fix="Change the prompt, retrieval or model of B."
        )
    last = (1 << len(differing)) - 1
    made = []
    for number in range(last + 1):
        turned = [each.name for each in differing if number >> differing.index(each) & 1]
        name = {0: "A", last: "B"}.get(number, f"{listed(turned)} of B")
        changes = {
            key: value for each in FACTORS for key, value in _part(b if each in turned else a, each).items()
        }
        made.append(Variant(name=name, changes=changes))
    return tuple(made)


def listed(names: Sequence[str], last: str = "and") -> str:
    """``prompt, retrieval and model``."""
    return f" {last} ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def _part(variant: Variant, factor: FactorName) -> dict[str, JsonValue]:
    """The settings of a configuration that belong to a factor."""
    return {name: value for name, value in variant.changes.items() if _factor_of(name) == factor}


def _factor_of(name: str) -> FactorName:
    if name.startswith("retrieval."):
        return "retrieval"
    return "model" if name == "model" or name.endswith(".adapter") else "prompt"
