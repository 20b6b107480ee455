"""The language of a text, guessed by its script and its most frequent words."""

from __future__ import annotations

import re
from collections import Counter

UNKNOWN = "unknown"
# Fewer words say too little.
FEWEST_WORDS = 4
_WORD = re.compile(r"[^\W\d_]+")
_COMMON = {
    "English": "the of and to in is that it for was with as on are this by be from or his her he she an not which",
    "German": "der die das und ist nicht ein eine zu den von mit sich auf für im dem des auch wird es sie als",
    "French": "le la les des et est une un du que dans pour qui pas sur au par avec il elle ce sont plus",
    "Spanish": "el los las de y que en un una por con para es se del al lo como más su pero sus",
    "Italian": "il di che la e un una per non è sono con del della le gli dei si da nel al come più",
    "Portuguese": "o os as de e que em um uma para com não é se do da dos das no na por mais como",
    "Dutch": "de het een en van is dat niet te op voor met zijn aan er maar om ook als bij door",
}
_WORDS = {language: frozenset(words.split()) for language, words in _COMMON.items()}
_SCRIPTS = {
    "Russian": re.compile(r"[\u0400-\u04ff]"),
    "Greek": re.compile(r"[\u0370-\u03ff]"),
    "Arabic": re.compile(r"[\u0600-\u06ff]"),
    "Hebrew": re.compile(r"[\u0590-\u05ff]"),
    "Hindi": re.compile(r"[\u0900-\u097f]"),
    "Japanese": re.compile(r"[\u3040-\u30ff]"),
    "Korean": re.compile(r"[\uac00-\ud7af]"),
    "Chinese": re.compile(r"[\u4e00-\u9fff]"),
}
# Characters that are looked at.
_HEAD = 2_000


def language_of(text: str) -> str:
    """Return the name of the language; ``unknown`` for a short text, or one without frequent words."""
    head = text[:_HEAD]
    letters = sum(character.isalpha() for character in head)
    for language, script in _SCRIPTS.items():
        # Japanese mixes its own script with the characters of Chinese.
        if letters and len(script.findall(head)) > (0.1 if language == "Japanese" else 0.3) * letters:
            return language
    words = _WORD.findall(head.lower())
    if len(words) < FEWEST_WORDS:
        return UNKNOWN
    scores = Counter({language: sum(word in common for word in words) for language, common in _WORDS.items()})
    (best, score), (_, second) = scores.most_common(2)
    return best if score > second and score >= 0.08 * len(words) else UNKNOWN
