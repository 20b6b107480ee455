"""Links between documents, which lead nowhere outside of them: where they cannot be followed, their words stay."""

from __future__ import annotations

import re

_LINK = re.compile(r"(?<![\w!\]])\[([^\[\]\n]+)\]\((?![a-z][a-z\d+.-]*:|//)[^()\s]+\)", re.IGNORECASE)
# What may become a link with the text that follows, and the character before it, which tells whether it is one.
_UNFINISHED = re.compile(r".?\[[^\[\]\n]{0,300}(?:\](?:\([^()\s]{0,300})?)?\Z|.\Z", re.DOTALL)


def without_relative_links(text: str) -> str:
    """Return a text in which links with a relative target are their words."""
    return _LINK.sub(r"\1", text)


class RelativeLinks:
    """Removes relative links from a text that arrives in pieces."""

    def __init__(self) -> None:
        self._kept = ""

    def shown(self, piece: str) -> str:
        """Return what can be shown after another piece; the beginning of what may be a link waits for its end."""
        text = without_relative_links(self._kept + piece)
        found = _UNFINISHED.search(text)
        at = found.start() if found else len(text)
        self._kept = text[at:]
        return text[:at]

    def rest(self) -> str:
        """Return what has waited, at the end of the text."""
        kept, self._kept = self._kept, ""
        return kept
