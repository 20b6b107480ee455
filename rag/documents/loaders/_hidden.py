"""What a web page hides from its readers: elements that are marked so, and simple rules of its style sheets."""

from __future__ import annotations

import re
from typing import Any

_HIDES = re.compile(r"(?:^|[;{\s])(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse))", re.IGNORECASE)
_COMMENT = re.compile(r"/\*.*?(?:\*/|$)", re.DOTALL)
_RULE = re.compile(r"([^{}]*)\{([^{}]*)\}")
# A class, an id, or an element with one of them; no combinations, which depend on what is around.
_SELECTOR = re.compile(r"([A-Za-z][\w-]*)?([.#])([\w-]+)|\[hidden\]")
_LONGEST_SHEET = 1_000_000


class Hidden:
    """Knows which elements of a page are not shown.

    Args:
        selectors: Hidden pairs of an element, empty for any, and ``.class`` or ``#id``.
    """

    def __init__(self, selectors: frozenset[tuple[str, str]]) -> None:
        self._selectors = selectors

    def covers(self, element: Any) -> bool:
        """Whether an element and everything in it is hidden."""
        attributes = element.attrib
        if element.tag == "dialog" and "open" not in attributes:
            return True
        # Pages that hide all of themselves until a script has run are shown in the end.
        if not attributes or element.tag in ("html", "body"):
            return False
        # A find-in-page search shows what is "until-found".
        if "hidden" in attributes and attributes["hidden"].lower() != "until-found":
            return True
        if attributes.get("aria-hidden", "").strip().lower() == "true":
            return True
        style = attributes.get("style")
        if style and _HIDES.search(style):
            return True
        if element.tag == "input" or not self._selectors:
            return False
        names = [f".{name}" for name in attributes.get("class", "").split()]
        if "id" in attributes:
            names.append(f"#{attributes['id']}")
        return any((tag, name) in self._selectors for name in names for tag in ("", element.tag))


def hidden_in(root: Any) -> Hidden:
    """Return what the style sheets in a page hide, apart from rules for print and other media."""
    found: set[tuple[str, str]] = set()
    for sheet in root.iter("style") if root is not None else ():
        media = (sheet.get("media") or "all").lower()
        if "all" in media or "screen" in media:
            found.update(_hidden_by(_outside_media(_COMMENT.sub("", (sheet.text or "")[:_LONGEST_SHEET]))))
    return Hidden(frozenset(found))


def _hidden_by(sheet: str) -> set[tuple[str, str]]:
    """Return the selectors that a sheet hides; a later rule that shows them again wins."""
    found: set[tuple[str, str]] = set()
    for selectors, body in _RULE.findall(sheet):
        hides = bool(_HIDES.search(body))
        shows = not hides and re.search(r"(?:display|visibility)\s*:", body, re.IGNORECASE)
        for selector in selectors.split(",") if hides or shows else ():
            match = _SELECTOR.fullmatch(selector.strip())
            if match and match[3]:
                key = ((match[1] or "").lower(), f"{match[2]}{match[3]}")
                found.add(key) if hides else found.discard(key)
    return found


def _outside_media(sheet: str) -> str:
    """Return a sheet without its nested rules, which hold for some screens only."""
    pieces: list[str] = []
    depth = start = 0
    nested = False
    for match in re.finditer(r"@[^{};]*\{|[{}]", sheet):
        sign = match[0]
        if depth == 0 and sign.startswith("@"):
            pieces.append(sheet[start : match.start()])
            nested, depth = True, 1
        elif sign.endswith("{"):
            depth += 1
        elif depth:
            depth -= 1
            if depth == 0 and nested:
                nested, start = False, match.end()
    if not nested:
        pieces.append(sheet[start:])
    return "".join(pieces)
