"""What the sources panel marks in a passage."""

from __future__ import annotations

import re
from dataclasses import replace

from test_render import ANSWER, CITED, HIT, PASSAGE, TEXT, Markup

from rag.types import Claim
from ui.pages.chat.sources_panel import sources_html


def test_every_sentence_that_an_answer_quotes_is_marked_in_its_passage() -> None:
    said = "The cited sentence. [1] After it. [1] Nowhere in it. [1]"
    claims = tuple(Claim((1,), 0.8, start, end) for start, end in ((0, 23), (24, 37), (38, 56)))
    passage = replace(PASSAGE, text=TEXT.replace("After it", "After\nit"))
    for source in ("/d/guide.md", "/d/guide.txt"):
        hit = replace(HIT, passage=replace(passage, source=source))
        answer = replace(ANSWER, text=said, hits=(hit,), citations=(replace(CITED, hit=hit),), claims=claims)
        marks = re.findall(r"<mark>(.*?)</mark>", sources_html(answer, 0.5))
        assert marks[0] == "The cited sentence."
        assert Markup(" ".join(marks[1:])).text.split() == ["After", "it."]
