"""Fit the weights of ``SpanRanking``: on the validation article and the odd lines of the handbook's questions.

Both are asked through our own retrieval, the article's questions also as though the article were not in the
corpus: questions off the topic and questions beside the point have to be refused alike. The even lines of the
handbook show what the weights are worth, and no text that figures are reported for is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks import bench_handbook as handbook
from tests.benchmarks import bench_reading as reading
from tests.benchmarks.bench_report import Group, Row
from tests.benchmarks.child import call
from tests.benchmarks.plan import Plan


@dataclass(frozen=True, slots=True)
class Ranked:
    """The sentences of one question.

    Attributes:
        features: Of each sentence, in the order of ``SpanRanking.FEATURES``.
        right: Whether each answers.
        answerable: Whether the corpus answers the question.
        fit: Whether the weights are fitted on it.
    """

    id: str
    features: list[list[float]]
    right: list[bool]
    answerable: bool
    fit: bool


def run(plan: Plan) -> Iterator[Group]:
    """Collect, fit, and show what the fit is worth."""
    home = plan.workspace("reading")
    call("tests.benchmarks.bench_reading:ingest", home=home, data=plan.data)
    found = call("tests.benchmarks.bench_weights:squad", home=home, data=plan.data).value
    found += call("tests.benchmarks.bench_weights:of_handbook", home=handbook.prepared_home(plan)).value
    questions = [Ranked(**each) for each in found]
    yield _fitted(questions)


def squad(home: str, data: str) -> list[dict[str, Any]]:
    """The validation article, asked of the whole corpus; in a process of its own."""
    from finetune.data.splits import VALIDATION
    from rag.evaluation.squad import read_articles
    from ui.app.app import open_app

    app = open_app(reading.settings_of(home, reading.READERS["tuned"]))
    found = []
    for article in read_articles(Path(data) / reading.FILES[0]):
        if article.title not in VALIDATION:
            continue
        title = article.title.replace("_", " ")
        for paragraph in article.paragraphs:
            for question in paragraph.questions:
                right = reading.right_sentences(paragraph, [start for _, start in question.answers])
                found.append(_ranked(app, question.id, question.text, right, bool(question.answers), True))
                if question.answers:
                    found.append(_ranked(app, f"{question.id} elsewhere", question.text, [], False, True, title))
    app.close()
    return found


def of_handbook(home: str) -> list[dict[str, Any]]:
    """The handbook's questions, follow-ups left out; in a process of its own."""
    from tests.benchmarks.ours import settings_for
    from ui.app.app import open_app

    app = open_app(settings_for(home))
    found = [
        _ranked(app, case.id, case.question, case.accepted, case.kind == "answerable", case.line % 2 == 1)
        for case in handbook.read_cases()
        if case.kind != "follow-up"
    ]
    app.close()
    return found


def _ranked(
    app: Any, name: str, question: str, right: Sequence[str], answerable: bool, fit: bool, without: str = ""
) -> dict[str, Any]:
    """Ask, as though the document of the title ``without`` were not in the corpus."""
    from rag.models.extractive.evidence import Evidence, EvidencePassage
    from rag.models.extractive.sentence_ranking import SpanRanking
    from rag.retrieval.retriever import SearchOptions

    hits = [
        hit for hit in app.releases.retriever().search(question, SearchOptions(60)) if hit.passage.title != without
    ]
    hits = hits[: app.settings.retrieval.k]
    evidence = Evidence(
        question,
        tuple(
            EvidencePassage(number, hit.passage.text, hit.passage.title, hit.passage.headings, hit.dense_score)
            for number, hit in enumerate(hits, 1)
        ),
        "",
    )
    ranked = SpanRanking(
        app.models.reader(app.settings.reader.adapter),
        app.stores.encoder,
        app.stores.index().lexical,
        looked_at=10_000,
    ).rank(evidence)
    wanted = [" ".join(each.casefold().split()) for each in right]
    told = [" ".join(each.sentence.text.casefold().split()) for each in ranked]
    return asdict(
        Ranked(
            name,
            [list(each.features) for each in ranked],
            [any(text in sentence for text in wanted) for sentence in told],
            answerable,
            fit,
        )
    )


def _fitted(questions: Sequence[Ranked]) -> Group:
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    from rag.models.extractive.sentence_ranking import SpanRanking

    able = [each for each in questions if each.fit and any(each.right)]
    rows = [features for each in able for features in each.features]
    labels = [right for each in able for right in each.right]
    # A question with many sentences counts as much as one with few.
    weights = [1 / len(each.right) for each in able for _ in each.right]
    sentence = LogisticRegression(C=10, max_iter=1000).fit(rows, labels, weights)
    order = sentence.coef_[0]

    def best(each: Ranked) -> int:
        return int(np.argmax(np.array(each.features) @ order))

    some = [each for each in questions if each.features]
    most = len(SpanRanking.CONFIDENCE_WEIGHTS)
    heads = np.array([each.features[best(each)][:most] for each in some])
    fit = np.array([each.fit for each in some])
    known = np.array([each.answerable for each in some])
    sure = LogisticRegression(C=10, max_iter=1000, class_weight="balanced").fit(heads[fit], known[fit])
    told = sure.predict_proba(heads)[:, 1]
    kinds = {
        "fitted on: validation article": [
            each.fit and not each.id.startswith(("h", "u")) and not each.id.endswith("elsewhere") for each in some
        ],
        "fitted on: the same, taken out of the corpus": [each.id.endswith("elsewhere") for each in some],
        "fitted on: handbook, odd lines": [each.fit and each.id.startswith(("h", "u")) for each in some],
        "not fitted on: handbook, even lines": [not each.fit for each in some],
    }
    table = [
        Row(
            "sentence weights",
            ", ".join(f"{name} {value:.3f}" for name, value in zip(SpanRanking.FEATURES, order, strict=True)),
        ),
        Row("confidence weights", ", ".join(f"{value:.3f}" for value in sure.coef_[0])),
        Row("confidence intercept", f"{sure.intercept_[0]:.3f}"),
    ]
    for name, mask in kinds.items():
        chosen = [(each, p) for each, p, kept in zip(some, told, mask, strict=True) if kept]
        yes = [(each, p) for each, p in chosen if each.answerable]
        no = [p for each, p in chosen if not each.answerable]
        first = [each.right[best(each)] for each, _ in yes]
        table.append(Row(f"{name}: first sentence right, %", f"{100 * np.mean(first):.1f}" if first else "–"))
        for least in (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6):
            wrong = np.mean([p < least for _, p in yes]) if yes else 0
            right = np.mean([p < least for p in no]) if no else 0
            table.append(
                Row(
                    f"{name}: refused under {least}, answerable / unanswerable, %",
                    f"{100 * wrong:.1f} / {100 * right:.1f}",
                )
            )
    return Group("Weights of the tuned reader's ranking", tuple(table), __doc__ or "", {})
