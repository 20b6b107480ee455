"""HTML from the templates in ``ui/templates``, which escape every value."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rag.evaluation.report_rendering import escaping_templates, printable

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent.parent / "templates"


def render(template: str, **values: object) -> str:
    """Return the HTML of a template, such as ``evaluate_runs.html.jinja``.

    A value is escaped unless it is ``Markup``.

    Raises:
        jinja2.UndefinedError: The template uses a value that is not given.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    return escaping_templates(TEMPLATES, printable)
