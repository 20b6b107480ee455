"""smollm2 in its small jobs: follow-ups rewritten as standalone questions, and questions about sentences.

Everything is asked of text that was never trained on: dialogs that ``finetune.data.follow_ups`` keeps out,
conversations about the handbook, and the articles that ``finetune.data.splits`` keeps out.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.bench_handbook import FOLDER, TOP, prepared_home
from tests.benchmarks.bench_reading import test_articles
from tests.benchmarks.bench_report import Group, Row, p50_p95
from tests.benchmarks.child import call
from tests.benchmarks.ours import settings_for
from tests.benchmarks.plan import Plan

if TYPE_CHECKING:
    from rag.models.extractive.span_reader import SpanReader
    from rag.types import Turn
    from ui.app.app import App

# Follow-ups and sentences; chance decides which. ``None`` is every follow-up that was kept out.
FOLLOW_UPS, SENTENCES, QUICK, PRINTED = None, 200, 16, 50
TIMED = 20
CONVERSATIONS = {
    "follow-ups of the handbook": FOLDER / "followups.jsonl",
    "conversations that change their topic": Path(__file__).with_name("topic_changes.jsonl"),
}
WAYS = {
    "checked": "smollm2",
    "written": "smollm2, unchecked",
    "pointing": "smollm2, only where a question points back",
    "typed": "as typed",
    "carried": "topic words",
}


def run(plan: Plan) -> Iterator[Group]:
    """Measure; a group for each task."""
    home = prepared_home(plan)
    here = "tests.benchmarks.bench_rewriting"
    most = QUICK if plan.quick else FOLLOW_UPS
    yield _follow_up_group(call(f"{here}:follow_ups", home=home, data=plan.data, most=most).value)
    yield _page_group(call(f"{here}:pages", home=home).value)
    most = QUICK if plan.quick else SENTENCES
    yield _question_group(call(f"{here}:questions", home=home, data=plan.data, most=most).value)


# Each of these runs in a process of its own.


def follow_ups(home: str, data: str, most: int | None) -> dict[str, Any]:
    """Follow-ups of dialogs, compared with what people made of them."""
    from finetune.data.follow_ups import CANARD, read_follow_ups
    from rag.evaluation.text_metrics import exact, f1
    from ui.app.app import open_app

    held = read_follow_ups(Path(data) / CANARD, "measured")
    if most is not None:
        held = random.Random(0).sample(held, min(most, len(held)))
    app = open_app(settings_for(home))
    asked = [(each.question, each.conversation) for each in held]
    told = _ways(app, asked)
    cases = [
        {"question": each.question, "rewrite": each.rewrite, **texts}
        | {f"{way}_f1": f1(texts[way], each.rewrite) for way in WAYS}
        | {f"{way}_exact": exact(texts[way], each.rewrite) for way in WAYS}
        for each, texts in zip(held, told, strict=True)
    ]
    taken = _milliseconds(app, asked[:TIMED])
    app.close()
    return {"cases": cases, "milliseconds": taken}


def pages(home: str) -> dict[str, list[dict[str, Any]]]:
    """Last questions of conversations about the handbook: is their page among the first passages?"""
    from rag.types import Turn
    from ui.app.app import open_app

    app = open_app(settings_for(home))
    retriever = app.releases.retriever()

    def rank(query: str, page: str) -> int:
        """The place of the page among the first passages; 0 if it is not there."""
        found = [Path(hit.passage.source).name for hit in retriever.search(query)[:TOP]]
        return found.index(page) + 1 if page in found else 0

    groups = {}
    for name, path in CONVERSATIONS.items():
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        histories = [tuple(Turn(turn["question"], turn["answer"]) for turn in each["history"]) for each in records]
        questions = [each["question"] for each in records]
        told = _ways(app, list(zip(questions, histories, strict=True)))
        groups[name] = [
            {"id": each["id"], "question": each["question"], "source": each["source"], **texts}
            | {f"{way}_rank": rank(texts[way], each["source"]) for way in WAYS}
            for each, texts in zip(records, told, strict=True)
        ]
    app.close()
    return groups


def questions(home: str, data: str, most: int) -> list[dict[str, Any]]:
    """A question for a sentence: does the reader find in the paragraph the sentence that it was written for?"""
    from rag.documents.sentences import split_sentences
    from ui.app.app import open_app
    from ui.app.proposing import question_model, question_writer

    held = [
        (paragraph.text, sentence, question.text)
        for article in test_articles(Path(data))
        for paragraph in article.paragraphs
        if len(split_sentences(paragraph.text)) > 2
        for sentence in split_sentences(paragraph.text)
        for question in paragraph.questions
        if any(sentence.start <= start < sentence.end for _, start in question.answers[:1])
    ]
    # A sentence about which people asked several questions is drawn once.
    held = list({sentence.text: (text, sentence, question) for text, sentence, question in held}.values())
    drawn = random.Random(0).sample(held, min(most, len(held)))
    app = open_app(settings_for(home))
    reader = app.models.reader(app.settings.reader.adapter)
    if reader is None:
        raise ValueError("There is no tuned reader to find the sentences with.")
    write = question_writer(app.stores.prompt("write-question"), question_model(app.models, app.settings))
    written = write([" ".join(sentence.text.split()) for _, sentence, _ in drawn])
    cases = []
    for (paragraph, sentence, question), text in zip(drawn, written, strict=True):
        asks = text.strip().endswith("?")
        # A copy of the sentence would find it, too.
        told = {
            "smollm2": text if asks else "",
            "person": question,
            "beginning": " ".join(sentence.text.split()[:6]),
        }
        own = set(text.casefold().split()) - set(sentence.text.casefold().split())
        cases.append(
            {"sentence": sentence.text, "question": text, "asks": asks, "own": len(own)}
            | {
                f"{name}_found": _sentence_of(reader, each, paragraph) == sentence.start
                for name, each in told.items()
            }
        )
    app.close()
    return cases


def _ways(app: App, asked: Sequence[tuple[str, Sequence[Turn]]]) -> list[dict[str, str]]:
    """The texts that are searched for in place of follow-ups."""
    from rag.answering.condense import carry_topic, is_rewrite, points_back, shortened
    from rag.answering.steps import HISTORY

    told = []
    for (question, history), text in zip(asked, _written(app, asked), strict=True):
        right = is_rewrite(text, question, shortened(history[-HISTORY:]))
        carried = carry_topic(question, history)
        checked = text if right else carried
        told.append(
            {
                "checked": checked,
                "written": text,
                "pointing": checked if points_back(question) else question,
                "typed": question,
                "carried": carried,
            }
        )
    return told


def _written(app: App, asked: Sequence[tuple[str, Sequence[Turn]]]) -> list[str]:
    """What smollm2 writes in place of follow-ups; nothing for what has no end."""
    from langchain_core.language_models import LanguageModelInput

    from rag.answering.condense import shortened
    from rag.answering.steps import HISTORY, condense_messages
    from ui.app.models import CONDENSED_TOKENS, CONDENSER

    model = app.models.helper(app.settings, CONDENSER, CONDENSED_TOKENS)
    prompt = app.stores.prompt("condense")
    prompts: list[LanguageModelInput] = [
        condense_messages(prompt, shortened(history[-HISTORY:]), question) for question, history in asked
    ]
    replies = model.batch(prompts, {"max_concurrency": app.settings.local.max_batch})
    endless = [reply.response_metadata.get("finish_reason") == "length" for reply in replies]
    return ["" if without else str(reply.text).strip() for reply, without in zip(replies, endless, strict=True)]


def _milliseconds(app: App, asked: Sequence[tuple[str, Sequence[Turn]]]) -> list[float]:
    """The time that each rewriting takes, one after the other."""
    taken = []
    for each in asked:
        started = time.perf_counter()
        _written(app, [each])
        taken.append((time.perf_counter() - started) * 1e3)
    return taken


def _sentence_of(reader: SpanReader, question: str, paragraph: str) -> int:
    from rag.models.extractive.span_reader import ReadPassage

    spans = reader.read(question, [ReadPassage(paragraph)])[0]
    return max(spans, key=lambda span: span.margin).sentence.start if spans else -1


# Here again.


def _follow_up_group(told: Mapping[str, Any]) -> Group:
    cases = told["cases"]
    rows = [
        Row(f"{title}, {name}, %", _mean(cases, f"{way}_{metric}"))
        for title, metric in (("word F1", "f1"), ("word for word", "exact"))
        for way, name in WAYS.items()
    ]
    refused = 100 * statistics.mean(each["checked"] != each["written"] for each in cases)
    rows.append(Row("refused by the check, %", f"{refused:.1f}"))
    rows.append(Row("milliseconds a rewriting, p50 / p95", p50_p95(told["milliseconds"])))
    how = (
        f"{len(cases)} questions of CANARD's dialogs that were kept out, in the prompt `condense`, against what a "
        "person made of them. Where the check refuses what smollm2 wrote, topic words replace it "
        "(`rag.answering.condense`)."
    )
    printed = tuple(f"{_shown(each)}  \n  a person: {each['rewrite']}" for each in cases[:PRINTED])
    return Group("Follow-ups rewritten by smollm2", tuple(rows), how, {"cases": cases}, printed)


def _page_group(groups: Mapping[str, list[dict[str, Any]]]) -> Group:
    rows = tuple(
        Row(f"{name}, {title}", _ranks([each[f"{way}_rank"] for each in cases]))
        for name, cases in groups.items()
        for way, title in WAYS.items()
    )
    how = f"Conversations whose last question finds its page in the first {TOP} passages, and as the first one."
    printed = tuple(
        f"{_shown(each)}  \n  {each['source']}: {each['checked_rank'] or 'not found'}"
        for cases in groups.values()
        for each in cases
    )
    return Group("Conversations about the handbook, rewritten by smollm2", rows, how, dict(groups), printed)


def _question_group(cases: list[dict[str, Any]]) -> Group:
    rows = (
        Row(
            "the reader finds the sentence it was written for, %",
            _mean(cases, "smollm2_found"),
            f"{_mean(cases, 'person_found')} a person's, {_mean(cases, 'beginning_found')} its first words",
        ),
        Row("ends in a question mark, %", _mean(cases, "asks")),
        Row("distinct questions, %", f"{100 * len({each['question'] for each in cases}) / len(cases):.1f}"),
        Row("words that are not in the sentence", f"{statistics.mean(each['own'] for each in cases):.1f}"),
    )
    how = f"{len(cases)} sentences of held-out articles, in the prompt `write-question`."
    printed = tuple(
        f"{' '.join(each['sentence'].split())}  \n  **{each['question']}**" for each in cases[:PRINTED]
    )
    return Group("Questions written by smollm2", rows, how, {"cases": cases}, printed)


def _shown(case: Mapping[str, Any]) -> str:
    refused = "" if case["checked"] == case["written"] else " (refused)"
    return f"{case['question']} → **{case['written']}**{refused}"


def _ranks(ranks: Sequence[int]) -> str:
    return f"{sum(map(bool, ranks))} of {len(ranks)}; {ranks.count(1)}"


def _mean(cases: Sequence[Mapping[str, Any]], name: str) -> str:
    return f"{100 * statistics.mean(float(each[name]) for each in cases):.1f}"
