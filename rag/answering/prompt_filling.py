"""What the chain fills a prompt with, and whether a version can be filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prompts import PRODUCTION, PromptTemplate, find_prompt
from prompts.template import placeholders_in
from rag.errors import PromptError

FILLED = ("condense", "repair-json", "judge-answer", "judge-pair", "write-question")
"""The prompts, beside the one for answers, that ragsmith itself fills; it runs their label ``production``."""
_ANSWER_FIX = (
    "An answer prompt has the variables question, refusal, and passages or evidence, and the fragments refusal "
    "and passage or evidence."
)
_FRAGMENTS = {
    "passages": ("passage", ("number", "place", "text")),
    "evidence": ("evidence", ("number", "title", "text")),
}


@dataclass(frozen=True, slots=True)
class Filling:
    """What a prompt is filled with.

    Attributes:
        variables: The variables with a value.
        fragments: The fragments that are used, with the variables that have a value in them.
    """

    variables: frozenset[str]
    fragments: Mapping[str, frozenset[str]]

    @classmethod
    def of_answer(cls, prompt: PromptTemplate) -> Filling:
        """Return what an answer prompt is filled with: passages, sentences, or both, as it asks."""
        given = [name for name in _FRAGMENTS if name in prompt.variables] or ["passages"]
        shown = {fragment: frozenset(inside) for fragment, inside in (_FRAGMENTS[name] for name in given)}
        return cls(frozenset({"question", "refusal", *given}), {"refusal": frozenset(), **shown})

    @classmethod
    def of_shipped(cls, name: str) -> Filling:
        """Return what another prompt is filled with: all that its shipped version asks for."""
        shipped = find_prompt(name)
        inside = {fragment: frozenset(placeholders_in(text)) for fragment, text in shipped.fragments.items()}
        return cls(frozenset(shipped.variables), inside)

    def misfit(self, prompt: PromptTemplate) -> str:
        """Return why a prompt cannot be filled, as a clause; empty if it can."""
        problems = _differences("", frozenset(prompt.variables), self.variables)
        for name, given in self.fragments.items():
            if name not in prompt.fragments:
                problems.append(f"it lacks the fragment {name}")
            else:
                wanted = frozenset(placeholders_in(prompt.fragments[name]))
                problems += _differences(f" of the fragment {name}", wanted, given)
        return ", and ".join(problems)


def is_filled(reference: str, answer_prompt: str) -> bool:
    """Whether ragsmith itself fills the version that ``NAME@LABEL`` names.

    Args:
        answer_prompt: Reference of the prompt for answers.
    """
    name, _, label = reference.partition("@")
    filled = {f"{name}@{PRODUCTION}" for name in (*FILLED, answer_prompt.partition("@")[0])}
    return f"{name}@{label or PRODUCTION}" in filled | {answer_prompt}


def check_fillable(prompt: PromptTemplate) -> None:
    """Check that the part of ragsmith that uses a prompt has a value for all that it asks for.

    Args:
        prompt: One of ``FILLED``, else a prompt for answers; its includes resolved.

    Raises:
        PromptError: A variable has no value, or one that must be filled is missing.
    """
    other = prompt.name in FILLED
    filling = Filling.of_shipped(prompt.name) if other else Filling.of_answer(prompt)
    if problem := filling.misfit(prompt):
        fix = f"Compare it with the shipped prompt {prompt.name}@1." if other else _ANSWER_FIX
        raise PromptError(f"ragsmith cannot fill the prompt {prompt.label}: {problem}.", fix=fix)


def _differences(of: str, wanted: frozenset[str], given: frozenset[str]) -> list[str]:
    strange, missing = sorted(wanted - given), sorted(given - wanted)
    return [
        *([f"there is no value for its {_variables(strange)}{of} {', '.join(strange)}"] if strange else []),
        *([f"it lacks the {_variables(missing)}{of} {', '.join(missing)}"] if missing else []),
    ]


def _variables(names: Sequence[str]) -> str:
    return "variable" if len(names) == 1 else "variables"
