"""A small folder of training data in the layout that the reader's task reads, about towns that do not exist."""

from __future__ import annotations

import gzip
import json
import lzma
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.data.document_questions import DOCUMENTS
from finetune.data.follow_ups import CANARD
from finetune.data.splits import SQUAD, TEST, VALIDATION, XQUAD

THINGS = ("lighthouse", "granary", "observatory", "aqueduct", "town hall", "library", "bell tower", "drawbridge")
TOWNS = ("Ostholm", "Varnby", "Kelmouth", "Tressow", "Ardenfield", "Luckau", "Porth Wen", "Sandvik")
PEOPLE = ("Ida Brandt", "Jonas Weir", "Marta Olsen", "Peter Quill", "Ruth Alder", "Simon Vance", "Clara Fenn")
STUFFS = ("red granite", "yellow brick", "grey slate", "oak beams", "white marble", "river stones")
FACTS = 5
STRANGE = "Œuvre № 7\u00a0— naïve, 東京タワー 🗼 [SEP] cafe\u0301 \u200b end.\x00 Ⅷ ﬁn"


@dataclass(frozen=True, slots=True)
class Fact:
    """A building, and what a paragraph tells of it."""

    thing: str
    town: str
    builder: str
    payer: str
    stuff: str
    year: int
    height: int
    visitors: int

    @property
    def sentences(self) -> tuple[str, ...]:
        return (
            f"{self.builder} built the {self.thing} of {self.town} out of {self.stuff} in {self.year}.",
            f"The {self.thing} is {self.height} metres high, and {self.payer} paid for the whole of it.",
            f"A storm of {self.year + 40} took its roof (the {self.stuff} held), {self.builder} made a new one.",
            f"Every summer some {self.visitors} visitors climb the {self.thing} to see the bay of {self.town}.",
        )

    @property
    def paragraph(self) -> str:
        return " ".join(self.sentences)

    @property
    def questions(self) -> tuple[tuple[str, str], ...]:
        """Question and answer; no answer where the paragraph has none."""
        return (
            (f"Who built the {self.thing} of {self.town}?", self.builder),
            (f"When was the {self.thing} of {self.town} built?", str(self.year)),
            (f"Who paid for the {self.thing} of {self.town}?", self.payer),
            (f"Who sold the {self.thing} of {self.town}?", ""),
            (f"What is the {self.thing} of {self.town} made of?", self.stuff),
            (f"What did the keeper of the {self.thing} of {self.town} lose?", ""),
        )


def fact(number: int) -> Fact:
    """One of any number of facts, no two of them alike; 64 in a row tell of buildings of their own."""
    chance = random.Random(f"fact {number}")
    builder, payer = chance.sample(PEOPLE, 2)
    return Fact(
        THINGS[number % 8],
        TOWNS[number // 8 % 8],
        builder,
        payer,
        chance.choice(STUFFS),
        1300 + number,
        20 + number % 60,
        1000 + 7 * number,
    )


def facts(first: int, count: int = FACTS) -> list[Fact]:
    return [fact(number) for number in range(first, first + count)]


LONG = " ".join(each.paragraph for each in facts(0, 9))
# Facts of their own for each file, and those that stand where they must not be trained on.
OF_XQUAD = facts(100, 2)
OF_HELD_OUT = {title: facts(200 + 10 * number) for number, title in enumerate((*VALIDATION, *TEST))}
OF_TRAINING = {"Towers_of_Ostholm": facts(300), "Old_mills": facts(310), "Bridges": facts(320)}
OF_POLICIES, OF_SEARCHES, OF_PAIRS = facts(400), facts(500, 8), facts(600)
OF_JUDGED, OF_MANUALS = facts(800, 24), facts(950, 3)
OF_DIALOGS = facts(900, 24)


def article(title: str, told: Sequence[Fact]) -> dict[str, Any]:
    """An article in the form of SQuAD 2.0."""
    paragraphs = []
    for each in told:
        text = each.paragraph
        asked = [
            {
                "id": f"{each.year}-{number}",
                "question": question,
                "is_impossible": not answer,
                "answers": [{"text": answer, "answer_start": text.index(answer)}] * 2 if answer else [],
            }
            for number, (question, answer) in enumerate(each.questions)
        ]
        paragraphs.append({"context": text, "qas": asked})
    return {"title": title, "paragraphs": paragraphs}


def dialog(told: Fact) -> list[dict[str, Any]]:
    """The questions about a building, each after the ones before it, and what they mean without them."""
    history = [told.town, f"The {told.thing}"]
    turns = []
    for number, (question, answer) in enumerate(told.questions, 1):
        asked = question.replace(f"the {told.thing} of {told.town}", "it")
        turns.append(
            {
                "History": list(history),
                "QuAC_dialog_id": f"dialog {told.year}",
                "Question": asked,
                "Question_no": number,
                "Rewrite": question,
            }
        )
        history += [asked, answer or "CANNOTANSWER"]
    return turns


def tokenised(text: str) -> str:
    """Text as the files of sentence pairs hold it: in lower case, a space around everything."""
    spaced = re.sub(r"([^\w\s])", r" \1 ", text.lower())
    return " ".join(spaced.replace("(", "-lrb-").replace(")", "-rrb-").split())


def documents() -> list[dict[str, str]]:
    """Prose of several paragraphs each."""
    told = {town: [each.paragraph for each in facts(700 + 10 * number)] for number, town in enumerate(TOWNS)}
    return [{"title": f"A walk through {town}", "text": "\n\n".join(texts)} for town, texts in told.items()]


def write_data(folder: Path) -> Path:
    """Write every file; held-out text also stands where training would read it, if nobody looked."""
    for name in ("squad", "open_qa", "prose"):
        (folder / name).mkdir(parents=True)
    held_out = [article(title, told) for title, told in OF_HELD_OUT.items()]
    training = [article(title, told) for title, told in OF_TRAINING.items()]
    stray = [article("Copied", [*OF_XQUAD, OF_HELD_OUT[TEST[0]][0]])]
    _write_json(folder / SQUAD, {"version": "v2.0", "data": [*held_out, *training, *stray]})
    _write_json(folder / XQUAD, {"version": "1.1", "data": [article("Elsewhere", OF_XQUAD)]})
    _write_json(folder / "open_qa/policyqa-dev.json", {"data": [article("", OF_POLICIES)]})
    _write_pairs(folder / "squad", "dev", [*OF_PAIRS, *OF_XQUAD])
    _write_pairs(folder / "squad", "test", [*facts(610, 3), *OF_HELD_OUT[TEST[1]]])
    searches = [
        {
            "question": f"who built the {each.thing} in {each.town}",
            "answers": [each.builder.lower(), "nobody at all"],
            "ctxs": [{"title": each.town, "text": each.paragraph}, {"title": "other", "text": "Not read."}],
        }
        for each in (*OF_SEARCHES, *OF_XQUAD)
    ]
    (folder / CANARD).parent.mkdir(parents=True)
    _write_json(folder / CANARD, [turn for each in OF_DIALOGS for turn in dialog(each)])
    with gzip.open(folder / "open_qa/nq-open-oracle.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(each) + "\n" for each in searches)
    for manual, each in zip(DOCUMENTS, OF_MANUALS, strict=True):
        (folder / manual).mkdir(parents=True)
        page = f"# The {each.thing}\n\n{each.paragraph}\n\n## Links\n\nThe plans are at https://example.org now.\n"
        (folder / manual / "index.md").write_text(page, encoding="utf-8")
    with lzma.open(folder / "prose/wiki-00.jsonl.xz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(each) + "\n" for each in documents())
    return folder


def write_judged(folder: Path) -> Path:
    """Write a judged collection in the BEIR layout: what was asked about each fact, and the document on it.

    To each tenth question the next document belongs as well. Questions that nothing belongs to, and others that
    nobody judged, are there too.
    """
    (folder / "qrels").mkdir(parents=True)
    corpus = [
        {"_id": str(each.year), "title": f"The {each.thing} of {each.town}", "text": each.paragraph}
        for each in OF_JUDGED
    ]
    asked = [(str(number), each.questions[0][0]) for number, each in enumerate(OF_JUDGED)]
    others = [("none", "What does nobody know?"), ("new", "Who asked this?")]
    judged = ["query-id\tcorpus-id\tscore", "none\t2100\t0"]
    for number, each in enumerate(OF_JUDGED):
        judged += [f"{number}\t{each.year + more}\t{score}" for more, score in _judgements(number)]
    _write_lines(folder / "corpus.jsonl", [json.dumps(each) for each in corpus])
    queries = [json.dumps({"_id": number, "text": text, "metadata": {}}) for number, text in (*asked, *others)]
    _write_lines(folder / "queries.jsonl", queries)
    _write_lines(folder / "qrels" / "train.tsv", judged)
    return folder


def _judgements(number: int) -> list[tuple[int, int]]:
    """How far after its own document each that was judged comes, and the score."""
    return [(0, 1), (1, int(number % 10 == 0))] if number < len(OF_JUDGED) - 1 else [(0, 1)]


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _write_pairs(folder: Path, part: str, told: Sequence[Fact]) -> None:
    # What is asked of the last sentence is who sold the building: the sentence does not say, and nobody minds.
    pairs = [
        (sentence, question)
        for each in told
        for sentence, (question, _) in zip(each.sentences, each.questions, strict=False)
    ]
    for name, side in (("src", 0), ("tgt", 1)):
        lines = "".join(f"{tokenised(pair[side])}\n" for pair in pairs)
        (folder / f"nqg-{name}-{part}.txt").write_text(lines, encoding="utf-8")


def wait_until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait for another process, which may be slow on a busy machine."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
