"""The tuned reader beside the first one: reading one paragraph, answering out of a corpus, and how long it takes.

Everything is asked of text that was never trained on: XQuAD's paragraphs, and the articles that
``finetune.data.splits`` keeps out.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.bench_report import Group, Row, p50_p95
from tests.benchmarks.child import call
from tests.benchmarks.ours import answer_to, settings_for
from tests.benchmarks.plan import Plan

if TYPE_CHECKING:
    from rag.evaluation.squad import Article, Paragraph, Question
    from rag.settings import Settings

CORPUS = "squad"
FILES = ("squad/cs224n-dev-v2.0.json", "squad/cs224n-test-v2.0-noanswers.json")
XQUAD = "squad/xquad.en.json"
READERS = {"tuned": "reader", "first": ""}
QUICK = 60
# Of the answerable questions, those that may be refused so that the unanswerable ones are.
REFUSED = 0.15


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of a question that was asked of the whole corpus.

    Attributes:
        answerable: Whether the corpus answers it.
        found: Whether the paragraph that answers it is among the passages.
        right: Whether the answer was told and holds a sentence of that paragraph with the answer.
        refused: Whether the reply was that the documents do not answer this.
        sure: How probably the answer is one, 0 to 1: what is compared with the threshold.
    """

    id: str
    question: str
    answerable: bool
    found: bool
    right: bool
    refused: bool
    sure: float
    answer: str
    milliseconds: float


def run(plan: Plan) -> Iterator[Group]:
    """Measure; a group for each way."""
    home = plan.workspace("reading")
    call("tests.benchmarks.bench_reading:ingest", home=home, data=plan.data)
    most = QUICK if plan.quick else None
    gold = {
        name: call(
            "tests.benchmarks.bench_reading:gold", home=home, data=plan.data, adapter=adapter, most=most
        ).value
        for name, adapter in READERS.items()
    }
    yield _gold_group(gold)
    whole = {
        name: [
            Asked(**each)
            for each in call(
                "tests.benchmarks.bench_reading:ask_corpus", home=home, data=plan.data, adapter=adapter, most=most
            ).value
        ]
        for name, adapter in READERS.items()
    }
    yield _corpus_group(whole)
    yield _time_group(call("tests.benchmarks.bench_reading:five_passages", home=home, data=plan.data).value)


# Each of these runs in a process of its own.


def ingest(home: str, data: str) -> None:
    """All paragraphs of both files as one corpus, a record each."""
    from rag.evaluation.squad import read_articles
    from ui.app.app import open_app

    path = Path(home) / "paragraphs.jsonl"
    records = [
        {"id": f"{article.title}-{number}", "title": article.title.replace("_", " "), "text": paragraph.text}
        for name in FILES
        for article in read_articles(Path(data) / name)
        for number, paragraph in enumerate(article.paragraphs)
    ]
    text = "".join(json.dumps(record) + "\n" for record in records)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    app = open_app(settings_for(home))
    done = app.stores.ingest(CORPUS, [path])
    if done.problems:
        raise ValueError(done.problems[0].reason)
    app.close()


def gold(home: str, data: str, adapter: str, most: int | None) -> dict[str, dict[str, float | None]]:
    """Read the paragraph that a question was asked about."""
    from rag.evaluation.reading_metrics import predict, score
    from rag.evaluation.squad import read_articles
    from ui.app.app import open_app

    sets = {"XQuAD": read_articles(Path(data) / XQUAD), "held-out articles": test_articles(Path(data))}
    app = open_app(settings_of(home, adapter))
    found: dict[str, dict[str, float | None]] = {}
    for name, articles in sets.items():
        if adapter:
            found[name] = asdict(
                score(list(predict(app.models.reader(app.settings.reader.adapter), _first(articles, most))))
            )
        else:
            found[name] = {"right_sentence": _first_reader(app, _first(articles, most))}
    app.close()
    return found


def ask_corpus(home: str, data: str, adapter: str, most: int | None) -> list[dict[str, Any]]:
    """Ask the whole corpus, through the whole chain."""
    import asyncio

    from rag.types import Ask
    from ui.app.app import open_app

    cases = corpus_cases(Path(data))
    app = open_app(settings_of(home, adapter))
    app.health.warm()

    async def everything() -> list[dict[str, Any]]:
        asked = []
        for paragraph, question in cases[:most]:
            answer = await answer_to(app, Ask(question.text))
            if answer.status == "failed":
                raise ValueError(f"{question.id} was not answered")
            right = right_sentences(paragraph, [start for _, start in question.answers])
            told = " ".join(answer.text.split())
            asked.append(
                Asked(
                    id=question.id,
                    question=question.text,
                    answerable=bool(question.answers),
                    found=any(hit.passage.text in paragraph.text for hit in answer.hits),
                    right=answer.status == "answered" and any(sentence in told for sentence in right),
                    refused=answer.status == "abstained",
                    sure=answer.support or 0.0,
                    answer=answer.text,
                    milliseconds=answer.latency_s * 1e3,
                )
            )
        return [asdict(each) for each in asked]

    try:
        return asyncio.run(everything())
    finally:
        app.close()


def five_passages(home: str, data: str) -> dict[str, Any]:
    """The tuned reader alone: from importing it to its first reading, then one question after another."""
    import sys

    begun = time.perf_counter()
    from rag.models.extractive.span_reader import ReadPassage
    from ui.app.app import open_app

    settings = settings_of(home, READERS["tuned"])
    reader = open_app(settings).models.reader(settings.reader.adapter)
    if reader is None:
        raise ValueError("There is no tuned reader.")
    articles = test_articles(Path(data))
    passages = [ReadPassage(p.text[:900], (a.title,)) for a in articles for p in a.paragraphs][:100]
    questions = [q.text for a in articles for p in a.paragraphs for q in p.questions][:100]
    reader.read(questions[0], passages[:5])
    first = time.perf_counter() - begun
    taken = []
    for number, question in enumerate(questions):
        five = [passages[(number + at) % len(passages)] for at in range(5)]
        started = time.perf_counter()
        reader.read(question, five)
        taken.append((time.perf_counter() - started) * 1e3)
    return {"first_s": first, "milliseconds": taken[10:], "torch": "torch" in sys.modules}


def settings_of(home: str, adapter: str) -> Settings:
    """The defaults, with that reader, on the corpus of paragraphs."""
    settings = settings_for(home)
    return settings.model_copy(
        update={"corpus": CORPUS, "reader": settings.reader.model_copy(update={"adapter": adapter})}
    )


def corpus_cases(data: Path) -> list[tuple[Paragraph, Question]]:
    """The questions that no reader was trained on, about paragraphs of the corpus."""
    from rag.evaluation.squad import read_articles

    held = {
        paragraph.text
        for name in FILES
        for article in read_articles(data / name)
        for paragraph in article.paragraphs
    }
    cases = {
        question.text: (paragraph, question)
        for article in [*test_articles(data), *read_articles(data / XQUAD)]
        for paragraph in article.paragraphs
        if paragraph.text in held
        for question in paragraph.questions
    }
    return list(cases.values())


def test_articles(data: Path) -> list[Article]:
    from finetune.data.splits import TEST
    from rag.evaluation.squad import read_articles

    return [article for article in read_articles(data / FILES[0]) if article.title in TEST]


def _first(articles: Sequence[Article], most: int | None) -> Sequence[Article]:
    if most is None:
        return articles
    return [replace(article, paragraphs=article.paragraphs[:2]) for article in articles[:10]]


def _first_reader(app: Any, articles: Sequence[Article]) -> float:
    """How often the sentence that it ranks first holds an answer, in percent of the answerable."""
    from rag.models.extractive.evidence import Evidence, EvidencePassage
    from rag.models.extractive.sentence_ranking import SentenceRanking

    ranking = SentenceRanking(app.stores.encoder, app.stores.index(CORPUS).lexical)
    right = []
    for article in articles:
        for paragraph in article.paragraphs:
            passage = EvidencePassage(1, paragraph.text, article.title.replace("_", " "), (), 0.0)
            for question in paragraph.questions:
                if question.answers:
                    ranked = ranking.rank(Evidence(question.text, (passage,), ""))[:1]
                    right.append(
                        any(
                            best.sentence.start <= start < best.sentence.end
                            for best in ranked
                            for _, start in question.answers
                        )
                    )
    return 100 * statistics.mean(right)


def right_sentences(paragraph: Paragraph, starts: Sequence[int]) -> list[str]:
    """The sentences of a paragraph in which an answer begins, on one line each."""
    from rag.documents.sentences import split_sentences

    return [
        " ".join(each.text.split())
        for each in split_sentences(paragraph.text)
        if any(each.start <= start < each.end for start in starts)
    ]


def _gold_group(gold: dict[str, dict[str, dict[str, float | None]]]) -> Group:
    rows = []
    for name, figures in gold["tuned"].items():
        first = gold["first"][name]["right_sentence"]
        rows.append(Row(f"{name}: right sentence, %", _shown(figures["right_sentence"]), _shown(first)))
        rows.append(Row(f"{name}: F1 / exact match of the answerable", _pair(figures, "answerable_")))
        if figures["unanswerable"] is not None:
            rows.append(Row(f"{name}: F1 / exact match of all", _pair(figures, "")))
            rows.append(Row(f"{name}: unanswerable left unanswered, %", _shown(figures["unanswerable"])))
            rows.append(Row(f"{name}: expected calibration error", f"{figures['calibration_error']:.3f}"))
    how = (
        "The paragraph is given. `ragsmith eval reading FILE` gives the same figures for any file. XQuAD has no "
        "unanswerable questions, and every one is answered; of the held-out articles "
        "(`finetune.data.splits.TEST`) half are, and an answer is told at a probability of 0.6. The first "
        "reader, in the third column, gives whole sentences."
    )
    return Group("Reading one paragraph", tuple(rows), how, gold)


def _pair(figures: dict[str, float | None], kind: str) -> str:
    return f"{_shown(figures[f'{kind}f1'])} / {_shown(figures[f'{kind}exact'])}"


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _corpus_group(asked: dict[str, list[Asked]]) -> Group:
    def share(name: str, what: str, answerable: bool) -> str:
        some = [each for each in asked[name] if each.answerable == answerable]
        return f"{100 * statistics.mean(getattr(each, what) for each in some):.1f}" if some else "–"

    def row(title: str, what: str, answerable: bool) -> Row:
        return Row(title, share("tuned", what, answerable), share("first", what, answerable))

    rows = (
        row("answerable: its paragraph is retrieved, %", "found", True),
        row("answerable: right sentence told, %", "right", True),
        row("answerable, but refused, %", "refused", True),
        row("unanswerable, and refused, %", "refused", False),
        Row(
            f"the same, at a threshold that refuses {REFUSED:.0%} of the answerable, %",
            *(f"{100 * _refused_at(asked[name], REFUSED):.1f}" for name in ("tuned", "first")),
        ),
        Row(
            "milliseconds an answer, p50 / p95",
            *(p50_p95([each.milliseconds for each in asked[name]]) for name in ("tuned", "first")),
        ),
    )
    count = len(asked["tuned"])
    able = sum(each.answerable for each in asked["tuned"])
    how = (
        f"{able} answerable and {count - able} unanswerable questions, asked through the whole chain with its "
        "defaults. An answer is right when it holds, word for word, a sentence of the question's own paragraph "
        "in which an answer begins. The third column is the first reader (`reader.adapter` empty)."
    )
    raw = {
        name: [asdict(each) for each in cases if each.answerable != each.right] for name, cases in asked.items()
    }
    return Group("Answers out of 1,216 paragraphs", rows, how, raw)


def _refused_at(asked: Sequence[Asked], share: float) -> float:
    """The share of the unanswerable that a threshold refuses which refuses that share of the answerable."""
    able = sorted(each.sure for each in asked if each.answerable)
    threshold = able[int(share * len(able))]
    return statistics.mean(each.sure < threshold for each in asked if not each.answerable)


def _time_group(taken: dict[str, Any]) -> Group:
    rows = (
        Row("one question over five passages, ms, p50 / p95", p50_p95(taken["milliseconds"])),
        Row("from importing it to its first reading, s", f"{taken['first_s']:.2f}"),
        Row("torch imported", "yes" if taken["torch"] else "no"),
    )
    return Group(
        "Time of the tuned reader", rows, "Passages of up to 900 characters; the graph converted before.", taken
    )
