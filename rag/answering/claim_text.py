"""Texts in the form in which claims and sources are compared."""

from __future__ import annotations

import re
import unicodedata

from rag.documents.citation_markers import without_markers
from rag.indexing.lexical_index import english_analyzer

WORD = re.compile(r"[^\W\d_]+")
_SPACE = re.compile(r"\s+")
_SIGNS = str.maketrans(
    {
        **dict.fromkeys("’‘ʼ′´", "'"),
        **dict.fromkeys("“”„«»″", '"'),
        **dict.fromkeys("‐‑‒–−", "-"),
        "—": " ; ",
    }
)
# Letters with a stroke, which have no decomposition.
_LETTERS = str.maketrans({"ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D", "ı": "i"})

STOP_WORDS = frozenset(
    "a an the this that these those and or but nor so yet if then than as at by for from in into of off "
    "on onto out over per to up upon with within about above across after against along among around "
    "before behind below beneath beside besides between beyond during down near since through throughout "
    "toward towards under until till via while when where who whom whose which what why how whether "
    "because although though whereas however therefore thus hence also too very just only even still "
    "already again once ever almost quite rather more most less least much many few several some any each "
    "every both either all another other others such same own it its itself he him his himself she her "
    "hers herself they them their theirs themselves we us our ours ourselves you your yours yourself i me "
    "my mine myself one there here is are am was were be been being do does did doing done have has had "
    "having can could may might must shall should will would ought let get gets got yes ok etc well like "
    "instead otherwise moreover furthermore meanwhile overall finally additionally according based due "
    "order s t d ll re ve m "
    # The words of a negation: whether it is right is a question of polarity.
    "no not never none nobody nothing nowhere neither cannot without unless don doesn didn isn aren wasn "
    "weren hasn haven hadn couldn wouldn shouldn mustn needn won ain".split()
)
CONNECTING = frozenset(
    "called named known located situated found placed lies stands refers referred includes include "
    "included including contains contain contained consists consist consisting made make makes used use "
    "uses using takes take took taken given gives give provides provide provided means mean meant needs "
    "need needed requires require required happens happen happened occurs occur occurred describes "
    "describe described says say said states stated mentions mentioned shows show shown explains "
    "explained became become becomes began begun comes come came kind type way thing things time times "
    "example specifically approximately total number amount different various certain particular "
    "following".split()
)
"""Content words that join others without a claim of their own."""
FRAME = frozenset(
    "answer answers question questions document documents text texts passage passages source sources "
    "context evidence information details above below here".split()
)
"""Words of a sentence that speaks about the answer or the sources."""


def folded(text: str) -> str:
    """Return a text on one line with plain letters, digits and signs, in its case, without markers."""
    text = without_markers(text).replace("**", "").translate(_SIGNS)
    if text.isascii():
        return _SPACE.sub(" ", text).strip()
    # A superscript or a fraction is a number of its own: 6½ is not 61.
    text = "".join(f" {sign}" if unicodedata.category(sign) == "No" else sign for sign in text)
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text)).translate(_LETTERS)
    signs = (sign for sign in text if not unicodedata.combining(sign))
    return _SPACE.sub(" ", "".join(_digit(sign) for sign in signs).translate(_SIGNS)).strip()


def _digit(sign: str) -> str:
    return str(unicodedata.decimal(sign)) if not sign.isascii() and sign.isdecimal() else sign


class Stemmer:
    """Stems of the content words of folded texts."""

    def __init__(self) -> None:
        self._analyzer = english_analyzer()

    def stems(self, text: str) -> set[str]:
        """Return the distinct stems of a text."""
        return set(self.by_word(text).values())

    def by_word(self, text: str) -> dict[str, str]:
        """Return the content words of a text in lower case, each with its stem."""
        words = [word for word in dict.fromkeys(WORD.findall(text.casefold())) if word not in STOP_WORDS]
        stems = {word: self._analyzer.analyze(word) for word in words}
        return {word: found[0] for word, found in stems.items() if found}
