"""Versioned prompt templates: strict data, kept as YAML files that a person can read, diff and commit."""

from __future__ import annotations

from prompts.library import find_prompt, list_prompts, load_prompt
from prompts.template import Message, PromptTemplate, PromptTemplateError

__all__ = ["Message", "PromptTemplate", "PromptTemplateError", "find_prompt", "list_prompts", "load_prompt"]
