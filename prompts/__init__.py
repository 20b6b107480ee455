"""Versioned prompt templates: strict data, stored as YAML files that can be read, diffed and committed."""

from __future__ import annotations

from prompts.files import load_prompt
from prompts.labels import PRODUCTION, Move
from prompts.library import PromptLibrary, find_prompt
from prompts.parts import PromptSettings
from prompts.template import Message, PromptTemplate, PromptTemplateError

__all__ = [
    "PRODUCTION",
    "Message",
    "Move",
    "PromptLibrary",
    "PromptSettings",
    "PromptTemplate",
    "PromptTemplateError",
    "find_prompt",
    "load_prompt",
]
