"""The generator beside the reader and beside what needs no model: answers, follow-ups, questions, speed.

Everything is asked of text that was never trained on: XQuAD's paragraphs, the articles that
``finetune.data.splits`` keeps out, and dialogs that ``finetune.data.follow_ups`` keeps out.
"""

from __future__ import annotations

import random
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.bench_reading import XQUAD, test_articles
from tests.benchmarks.bench_report import Group, Row, p50_p95
from tests.benchmarks.child import call
from tests.benchmarks.ours import settings_for
from tests.benchmarks.plan import Plan

if TYPE_CHECKING:
    from finetune.rows import ReadingRow, WritingRow
    from rag.models.extractive.evidence import Evidence
    from rag.models.extractive.span_reader import SpanReader
    from rag.models.generator.generator_decoding import Generator

# Cases of each task; chance decides which, and nobody looks at them before.
CASES, QUICK, PRINTED = 500, 30, 50
MOST_TOKENS = 96
_MARKER = re.compile(r"\s*\[(\d+)\]\s*$")


@dataclass(frozen=True, slots=True)
class Written:
    """What the generator wrote to one prompt.

    Attributes:
        shown: What the prompt was about, in short.
        wanted: What a person wrote.
        first_s, rest_s: Seconds to the first token, and from it to the end.
    """

    task: str
    shown: str
    text: str
    wanted: str
    tokens: int
    first_s: float
    rest_s: float


def run(plan: Plan) -> Iterator[Group]:
    """Measure; a group for each task."""
    home = plan.workspace("generator")
    most = QUICK if plan.quick else CASES
    written: list[Written] = []
    groups = {"answers": _answer_group, "follow_ups": _follow_up_group, "questions": _question_group}
    for name, group in groups.items():
        told = call(f"tests.benchmarks.bench_generator:{name}", home=home, data=plan.data, most=most).value
        written += [Written(**each) for each in told["written"]]
        yield group(told["cases"])
    yield _speed_group(written)
    yield _printed_group(written)


# Each of these runs in a process of its own.


def answers(home: str, data: str, most: int) -> dict[str, Any]:
    """Questions over their own paragraph and another one of the same article."""
    from finetune.data import questions, writing
    from finetune.data.wordings import REFUSALS
    from rag.evaluation.reading_metrics import DEFAULT_THRESHOLD
    from rag.evaluation.squad import read_articles
    from rag.evaluation.text_metrics import exact, f1

    generator, reader = _models(home)
    held = [*read_articles(Path(data) / XQUAD), *test_articles(Path(data))]
    rows = list({row.question: row for row in questions.reading_rows(held)}.values())
    people = {q.text: [text for text, _ in q.answers] for a in held for p in a.paragraphs for q in p.questions}
    beside = writing.Beside(rows)
    chance = random.Random(0)
    cases, written = [], []
    for row in chance.sample(rows, min(most, len(rows))):
        others = beside.draw(row, 1, chance)
        right = people[row.question]
        short_row = writing.answer_row(row, others, chance, shipped="answer-short")
        long_row = writing.answer_row(row, others, chance, shipped="answer-sentence")
        short, long = (
            _written(generator, each, _evidence(row.question, each.passages)) for each in (short_row, long_row)
        )
        written += [short, long]
        text, sure = _read(reader, row, short_row.passages)
        ours = _MARKER.sub("", short.text)
        cases.append(
            {
                "question": row.question,
                "answerable": bool(right),
                "refused": REFUSALS[0] in short.text,
                "f1": max((f1(ours, each) for each in right), default=0.0),
                "exact": max((exact(ours, each) for each in right), default=0.0),
                "cited": _marker(short.text) == _marker(short_row.reply),
                "sentence": _MARKER.sub("", long_row.reply).casefold() in " ".join(long.text.split()).casefold(),
                "sentence_cited": _marker(long.text) == _marker(long_row.reply),
                "sentence_refused": REFUSALS[0] in long.text,
                "reader_f1": max((f1(text, each) for each in right), default=0.0),
                "reader_exact": max((exact(text, each) for each in right), default=0.0),
                "reader_refused": sure < DEFAULT_THRESHOLD,
            }
        )
    return {"cases": cases, "written": [asdict(each) for each in written]}


def follow_ups(home: str, data: str, most: int) -> dict[str, Any]:
    """Follow-ups of dialogs, made to stand alone."""
    from finetune.data import follow_ups as conversations
    from rag.answering.condense import carry_topic
    from rag.evaluation.text_metrics import exact, f1, rouge_l

    generator, _ = _models(home)
    chance = random.Random(0)
    held = conversations.read_follow_ups(Path(data) / conversations.CANARD, "measured")
    ways: dict[str, Callable[[conversations.FollowUp, str], str]] = {
        "generator": lambda each, text: text,
        "unchanged": lambda each, text: each.question,
        "carried": lambda each, text: carry_topic(each.question, (conversations.opening(each), *each.history)),
    }
    cases, written = [], []
    for each in chance.sample(held, min(most, len(held))):
        done = _written(generator, conversations.writing_row(each, chance, shipped=True))
        written.append(done)
        told = {name: way(each, done.text) for name, way in ways.items()}
        cases.append(
            {"question": each.question, "rewrite": each.rewrite}
            | {f"{name}_f1": f1(text, each.rewrite) for name, text in told.items()}
            | {f"{name}_rouge": rouge_l(text, each.rewrite) for name, text in told.items()}
            | {f"{name}_exact": exact(text, each.rewrite) for name, text in told.items()}
        )
    return {"cases": cases, "written": [asdict(each) for each in written]}


def questions(home: str, data: str, most: int) -> dict[str, Any]:
    """A question for a sentence: does the reader find in the paragraph the sentence that it was written for?"""
    from finetune.data import writing
    from finetune.data.sentence_pairs import SentencePair
    from rag.documents.sentences import split_sentences
    from rag.evaluation.squad import read_articles

    generator, reader = _models(home)
    chance = random.Random(0)
    held = [
        (paragraph.text, sentence, question.text)
        for article in (*read_articles(Path(data) / XQUAD), *test_articles(Path(data)))
        for paragraph in article.paragraphs
        for question in paragraph.questions
        for _, start in question.answers[:1]
        for sentence in split_sentences(paragraph.text)
        if sentence.start <= start < sentence.end and len(split_sentences(paragraph.text)) > 2
    ]
    cases, written = [], []
    for paragraph, sentence, question in chance.sample(held, min(most, len(held))):
        pair = SentencePair(sentence.text, question)
        done = _written(generator, writing.pair_row(pair, chance, shipped=True))
        written.append(done)
        told = {"generator": done.text, "person": question, "beginning": " ".join(sentence.text.split()[:6])}
        found = {name: _sentence_of(reader, text, paragraph) == sentence.start for name, text in told.items()}
        words = set(sentence.text.casefold().split())
        own = [word for word in done.text.casefold().split() if word not in words]
        cases.append(
            {"sentence": sentence.text, "question": done.text, "asks": done.text.endswith("?"), "own": len(own)}
            | {f"{name}_found": value for name, value in found.items()}
        )
    return {"cases": cases, "written": [asdict(each) for each in written]}


def _models(home: str) -> tuple[Generator, SpanReader]:
    from ui.app.app import open_app

    app = open_app(settings_for(home))
    if app.models.reader(app.settings.reader.adapter) is None:
        raise ValueError("There is no tuned reader to compare with.")
    return app.models.generator(app.settings.generator.adapter), app.models.reader(app.settings.reader.adapter)


def _evidence(question: str, passages: Sequence[str]) -> Evidence:
    from finetune.data.wordings import REFUSALS
    from rag.models.extractive.evidence import Evidence, EvidencePassage

    numbered = (EvidencePassage(number, text, "", (), None) for number, text in enumerate(passages, 1))
    return Evidence(question, tuple(numbered), REFUSALS[0])


def _written(generator: Generator, row: WritingRow, evidence: Evidence | None = None) -> Written:
    from langchain_core.messages import HumanMessage

    from rag.models.generator.generator_chat import GeneratorChatModel

    model = GeneratorChatModel(generator=generator, max_tokens=MOST_TOKENS)
    begun = time.perf_counter()
    first, text, tokens = 0.0, "", 0
    messages = [HumanMessage(each) for each in row.texts]
    messages[-1].additional_kwargs["evidence"] = evidence
    for chunk in model.stream(messages):
        text += str(chunk.text)
        tokens += (chunk.usage_metadata or {}).get("output_tokens", 0)
        if text and not first:
            first = time.perf_counter()
    return Written(row.kind, row.texts[-1], text, row.reply, tokens, first - begun, time.perf_counter() - first)


def _read(reader: SpanReader, row: ReadingRow, passages: Sequence[str]) -> tuple[str, float]:
    from rag.models.extractive.span_reader import ReadPassage

    read = reader.read(row.question, [ReadPassage(each, row.place) for each in passages])
    spans = [
        (span.margin, text[span.start : span.end])
        for text, found in zip(passages, read, strict=True)
        for span in found
    ]
    margin, text = max(spans)
    return text, reader.probability(margin)


def _sentence_of(reader: SpanReader, question: str, paragraph: str) -> int:
    from rag.models.extractive.span_reader import ReadPassage

    spans = reader.read(question, [ReadPassage(paragraph)])[0]
    return max(spans, key=lambda span: span.margin).sentence.start if spans else -1


def _marker(text: str) -> str:
    found = _MARKER.search(text)
    return found[1] if found else ""


def _mean(cases: Sequence[dict[str, Any]], name: str) -> str:
    return f"{100 * statistics.mean(float(each[name]) for each in cases):.1f}" if cases else "–"


def _answer_group(cases: list[dict[str, Any]]) -> Group:
    able = [each for each in cases if each["answerable"]]
    other = [each for each in cases if not each["answerable"]]
    better = sum(each["f1"] > each["reader_f1"] for each in able)
    worse = sum(each["f1"] < each["reader_f1"] for each in able)
    rows = (
        Row("short answer: F1, %", _mean(able, "f1"), _mean(able, "reader_f1")),
        Row("short answer: exact match, %", _mean(able, "exact"), _mean(able, "reader_exact")),
        Row("short answer nearer to a person's than the reader's / farther, cases", f"{better} / {worse}"),
        Row("short answer: right passage cited, %", _mean(able, "cited")),
        Row("sentence: word for word the right one, %", _mean(able, "sentence")),
        Row("sentence: right passage cited, %", _mean(able, "sentence_cited")),
        Row("answerable, but refused, %", _mean(able, "refused"), _mean(able, "reader_refused")),
        Row("unanswerable, and refused, %", _mean(other, "refused"), _mean(other, "reader_refused")),
    )
    how = (
        f"{len(able)} answerable and {len(other)} unanswerable questions of XQuAD and the held-out articles, each "
        "over its own paragraph and another one of the article, in the prompts `answer-short` and "
        "`answer-sentence`. The third column is the reader's best span over the same passages; what it would "
        "refuse counts in F1."
    )
    return Group("Generator: answers", rows, how, {"cases": cases})


def _follow_up_group(cases: list[dict[str, Any]]) -> Group:
    rows = tuple(
        Row(
            f"{title}, %",
            _mean(cases, f"generator_{name}"),
            f"{_mean(cases, f'unchanged_{name}')} unchanged, {_mean(cases, f'carried_{name}')} words carried",
        )
        for title, name in (("word F1", "f1"), ("ROUGE-L", "rouge"), ("word for word", "exact"))
    )
    how = (
        f"{len(cases)} questions of CANARD's dialogs that were kept out, in the prompt `condense`, against what a "
        "person made of them. The third column leaves the question as it is, or adds words of the conversation "
        "(`rag.answering.condense.carry_topic`)."
    )
    return Group("Generator: follow-ups that stand alone", rows, how, {"cases": cases})


def _question_group(cases: list[dict[str, Any]]) -> Group:
    rows = (
        Row(
            "the reader finds the sentence it was written for, %",
            _mean(cases, "generator_found"),
            f"{_mean(cases, 'person_found')} a person's, {_mean(cases, 'beginning_found')} its first words",
        ),
        Row("ends in a question mark, %", _mean(cases, "asks")),
        Row("words that are not in the sentence", f"{statistics.mean(each['own'] for each in cases):.1f}"),
    )
    how = f"{len(cases)} sentences of held-out paragraphs, in the prompt `write-question`."
    return Group("Generator: questions", rows, how, {"cases": cases})


def _speed_group(written: Sequence[Written]) -> Group:
    rates = [(each.tokens - 1) / each.rest_s for each in written if each.tokens > 4 and each.rest_s > 0]
    rows = (
        Row("first word, ms, p50 / p95", p50_p95([each.first_s * 1e3 for each in written])),
        Row("tokens a second, p50 / p95", p50_p95(rates)),
    )
    return Group("Generator: speed", rows, "One prompt after another, all of those above.")


def _printed_group(written: Sequence[Written]) -> Group:
    drawn = random.Random(1).sample(list(written), min(PRINTED, len(written)))
    printed = tuple(
        f"*{each.task}* {' '.join(each.shown.split())[-320:]}  \n"
        f"  **wrote:** {each.text}  \n  wanted: {each.wanted}"
        for each in drawn
    )
    how = "Drawn by chance from all that was written, none left out."
    return Group(f"{len(printed)} outputs of the generator", (), how, printed=printed)
