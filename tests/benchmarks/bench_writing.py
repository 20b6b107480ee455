"""smollm2 as the model that answers: from the evidence of one paragraph, by prompt, and what it has forgotten.

Paragraphs and instructions are text that was never trained on: XQuAD's paragraphs, and the instructions that
``finetune.data.instructions`` holds out. ``bench_handbook`` asks the same model through the whole chain.
"""

from __future__ import annotations

import json
import lzma
import math
import random
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.documents.citation_markers import without_markers
from tests.benchmarks.bench_handbook import ask_all, prepared_home
from tests.benchmarks.bench_reading import CORPUS, corpus_cases
from tests.benchmarks.bench_report import Group, Row, p50_p95
from tests.benchmarks.child import call
from tests.benchmarks.ours import answer_to, settings_for
from tests.benchmarks.plan import Plan

if TYPE_CHECKING:
    from rag.settings import Settings
    from ui.app.app import App

XQUAD = "squad/xquad.en.json"
FORMS = Path(__file__).with_name("form_instructions.jsonl")
# What answers: the model, and the adapter in place of the usual one.
MODELS: Mapping[str, tuple[str, str | None]] = {
    "writer": ("smollm2", None),
    "base": ("smollm2", ""),
    "extractive": ("extractive", None),
}
PARAGRAPHS, PROSE, INSTRUCTIONS, ASKED, QUICK = 120, 200, 60, 60, 12
PROMPTS = ("evidence-short", "evidence-explained")
# Tokens of a document whose perplexity is measured.
PROSE_TOKENS = 256
_NUMBER = re.compile(r"\d[\d.,]*\d|\d")
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][\w'-]+")
_WORD = re.compile(r"\w+")


def run(plan: Plan) -> Iterator[Group]:
    """Measure; a group for each question."""
    home = prepared_home(plan)
    here = "tests.benchmarks.bench_writing"
    most = QUICK if plan.quick else PARAGRAPHS
    told = {
        name: call(f"{here}:paragraphs", home=home, data=plan.data, name=name, most=most).value for name in MODELS
    }
    yield _paragraph_group(told)
    corpus = plan.workspace("reading")
    call("tests.benchmarks.bench_reading:ingest", home=corpus, data=plan.data)
    yield _corpus_group(
        {
            name: call(f"{here}:whole_corpus", home=corpus, data=plan.data, name=name, most=most).value
            for name in MODELS
            if name != "base"
        }
    )
    most = QUICK if plan.quick else ASKED
    yield _prompt_group(
        {name: call(f"{here}:by_prompt", home=home, prompt=name, most=most).value for name in PROMPTS}
    )
    few = (QUICK, QUICK) if plan.quick else (PROSE, INSTRUCTIONS)
    kept = {
        name: call(f"{here}:kept", home=home, data=plan.data, name=name, prose=few[0], instructions=few[1]).value
        for name in ("writer", "base")
    }
    yield _kept_group(kept)


# Each of these runs in a process of its own.


def paragraphs(home: str, data: str, name: str, most: int) -> list[dict[str, Any]]:
    """Answers to questions about a paragraph that is the only passage."""
    import asyncio

    from rag.evaluation.squad import read_articles
    from rag.types import Ask, Hit, Passage

    asked = [
        (article.title, paragraph.text, question)
        for article in read_articles(Path(data) / XQUAD)
        for paragraph in article.paragraphs
        for question in paragraph.questions
    ]
    drawn = random.Random(0).sample(asked, min(most, len(asked)))
    app = _opened(home, name)
    app.health.warm()

    async def everything() -> list[dict[str, Any]]:
        cases = []
        for number, (title, text, question) in enumerate(drawn):
            passage = Passage(number, number, title, title, title.replace("_", " "), text, 0, len(text))
            similarity = _similarity(app, question.text, text)
            ask = Ask(question.text, hits=(Hit(passage, similarity, dense_score=similarity),))
            accepted = [each for each, _ in question.answers]
            cases.append(_judged(question.text, text, accepted, await answer_to(app, ask)))
        return cases

    try:
        return asyncio.run(everything())
    finally:
        app.close()


def whole_corpus(home: str, data: str, name: str, most: int) -> list[dict[str, Any]]:
    """Answers to answerable questions about paragraphs of SQuAD, all of which are searched."""
    import asyncio

    from rag.types import Ask

    asked = [(paragraph, question) for paragraph, question in corpus_cases(Path(data)) if question.answers]
    drawn = random.Random(0).sample(asked, min(most, len(asked)))
    app = _opened(home, name, corpus=CORPUS)
    app.health.warm()

    async def everything() -> list[dict[str, Any]]:
        cases = []
        for paragraph, question in drawn:
            answer = await answer_to(app, Ask(question.text))
            accepted = [each for each, _ in question.answers]
            cases.append(_judged(question.text, paragraph.text, accepted, answer))
        return cases

    try:
        return asyncio.run(everything())
    finally:
        app.close()


def by_prompt(home: str, prompt: str, most: int) -> list[int]:
    """The words of the answers to questions about the handbook with one of the prompts."""
    asked = ask_all(home, "smollm2", prompt=prompt, kind="answerable", most=most)
    return [len(without_markers(each["answer"]).split()) for each in asked if each["status"] == "answered"]


def kept(home: str, data: str, name: str, prose: int, instructions: int) -> dict[str, Any]:
    """Perplexity of prose, likeness to people's replies to general instructions, and forms that are obeyed."""
    from langchain_core.language_models import LanguageModelInput

    from finetune.data.instructions import DOLLY, read_instructions
    from rag.evaluation.text_metrics import rouge_l

    app = _opened(home, name)
    model = app.models.language_model(app.settings)

    def written(texts: Sequence[str]) -> list[str]:
        prompts: list[LanguageModelInput] = [[("user", text)] for text in texts]
        return [str(reply.text).strip() for reply in model.batch(prompts, {"max_concurrency": 4})]

    held = [each for each in read_instructions(Path(data) / DOLLY) if each.held_out]
    held = random.Random(0).sample(held, min(instructions, len(held)))
    replies = written([each.text for each in held])
    forms = [json.loads(line) for line in FORMS.read_text(encoding="utf-8").splitlines()]
    formed = written([form["text"] for form in forms])
    perplexity = _perplexity(app, name, _prose(Path(data), prose))
    app.close()
    return {
        "perplexity": perplexity,
        "rouge": [rouge_l(reply, each.reply) for reply, each in zip(replies, held, strict=True)],
        "forms": [
            {**form, "reply": reply, "obeyed": obeys(reply, form)}
            for form, reply in zip(forms, formed, strict=True)
        ],
    }


def obeys(reply: str, form: Mapping[str, str]) -> bool:
    """Whether a reply has the form that an instruction asks for."""
    if form["form"] == "one word":
        return len(reply.split()) == 1
    if form["form"] == "ten words":
        return 0 < len(reply.split()) <= 10
    if form["form"] == "start":
        return reply.startswith(form["start"])
    if form["form"] == "numbered":
        return [line[:2] for line in reply.splitlines() if line.strip()] == ["1.", "2.", "3."]
    try:
        return set(json.loads(reply)) == {"title", "text"}
    except (ValueError, TypeError):
        return False


def _opened(home: str, name: str, **settings: object) -> App:
    from ui.app.app import open_app

    return open_app(_settings(home, name, **settings))


def _settings(home: str, name: str, **settings: object) -> Settings:
    model, adapter = MODELS[name]
    base = settings_for(home)
    local = base.local.model_copy(update={"adapter": adapter})
    return base.model_copy(update={"model": model, "local": local, **settings})


def _similarity(app: App, question: str, text: str) -> float:
    asked, read = app.stores.encoder.embed([question, text])
    return float(asked @ read)


def _judged(question: str, paragraph: str, answers: Sequence[str], answer: Any) -> dict[str, Any]:
    from finetune.data.target_filter import has_answer

    text = without_markers(answer.text)
    answered = answer.status == "answered"
    given = f"{paragraph} {question}".casefold()
    words = set(_WORD.findall(given))
    added = [
        each
        for each in (*_NUMBER.findall(text), *_NAME.findall(text))
        if each.casefold() not in given and not set(_WORD.findall(each.casefold())) <= words
    ]
    return {
        "question": question,
        "answer": answer.text,
        "accepted": list(answers),
        "status": answer.status,
        "contained": answered and any(has_answer(text, each) for each in answers),
        "cited": answered and {each.marker for each in answer.citations} == {1} and "[1]" in answer.text,
        "added": added if answered else [],
        "words": len(text.split()),
        "quoted": bool(answer.replaced),
        "milliseconds": answer.latency_s * 1e3,
    }


def _prose(data: Path, most: int) -> list[str]:
    """Every twentieth document of a part of the prose, which the writer was not trained on."""
    texts = []
    with lzma.open(data / "prose" / "wiki-02.jsonl.xz", "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number % 20 == 0:
                texts.append(json.loads(line)["text"])
            if len(texts) == most:
                break
    return texts


def _perplexity(app: App, name: str, texts: Sequence[str]) -> float:
    """The perplexity of the beginnings of texts, of all their tokens together."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from rag.models.local.local_adapters import find_lora
    from rag.models.local.local_tokenizer import load_tokenizer
    from rag.models.local.shipped_base import prepare_base

    workspace = app.stores.workspace
    files = prepare_base(workspace.models)
    tokenizer = load_tokenizer(files)
    model: Any = AutoModelForCausalLM.from_pretrained(files.folder, dtype=torch.float32)
    if name == "writer":
        model = PeftModel.from_pretrained(model, str(find_lora("writer", workspace.adapters).folder))
    model.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for text in texts:
            ids = torch.tensor([tokenizer(text)["input_ids"][:PROSE_TOKENS]])
            if ids.shape[1] > 1:
                total += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
                count += ids.shape[1] - 1
    return math.exp(total / count)


# Here again.


def _paragraph_group(told: Mapping[str, list[dict[str, Any]]]) -> Group:
    def row(title: str, share: Any) -> Row:
        return Row(title, *(f"{100 * share(told[name]):.1f}" for name in MODELS))

    def cited(cases: Sequence[Mapping[str, Any]]) -> float:
        contained = [each for each in cases if each["contained"]]
        return statistics.mean(each["cited"] for each in contained) if contained else 0.0

    rows = (
        row(
            "an accepted answer is contained, %",
            lambda cases: statistics.mean(each["contained"] for each in cases),
        ),
        row("of these, with the right marker, %", cited),
        row("a number or name that was not given, %", lambda cases: _share(cases, "added")),
        row("refused, %", lambda cases: statistics.mean(each["status"] == "abstained" for each in cases)),
        row("quoted in place of what was written, %", lambda cases: _share(cases, "quoted")),
        Row(
            "words, median", *(f"{statistics.median(each['words'] for each in told[name]):.0f}" for name in MODELS)
        ),
        Row(
            "milliseconds, p50 / p95", *(p50_p95([each["milliseconds"] for each in told[name]]) for name in MODELS)
        ),
    )
    how = (
        f"{len(told['writer'])} questions of XQuAD, each with its paragraph as the only passage, through the "
        "chain after the search. Columns: smollm2 with its writer, without an adapter, and the extractive reader."
    )
    return Group("Answers from one paragraph of XQuAD", rows, how, dict(told))


def _corpus_group(told: Mapping[str, list[dict[str, Any]]]) -> Group:
    def row(title: str, share: Any) -> Row:
        return Row(title, *(f"{100 * share(cases):.1f}" for cases in told.values()))

    rows = (
        row(
            "an accepted answer is contained, %",
            lambda cases: statistics.mean(each["contained"] for each in cases),
        ),
        row("refused, %", lambda cases: statistics.mean(each["status"] == "abstained" for each in cases)),
        Row("words, median", *(f"{statistics.median(each['words'] for each in told[name]):.0f}" for name in told)),
    )
    how = (
        f"{len(told['writer'])} answerable questions that were not trained on, asked of all paragraphs of SQuAD. "
        "Columns: smollm2 with its writer, and the extractive reader."
    )
    return Group("Answers from the paragraphs of SQuAD", rows, how, dict(told))


def _share(cases: Sequence[Mapping[str, Any]], name: str) -> float:
    return statistics.mean(bool(each[name]) for each in cases)


def _prompt_group(words: Mapping[str, list[int]]) -> Group:
    short, explained = (statistics.mean(words[name]) for name in PROMPTS)
    rows = (
        Row("words of an answer, mean", f"{short:.1f}", f"{explained:.1f}", f"{explained / short:.1f} times"),
        Row("answered", *(str(len(words[name])) for name in PROMPTS)),
    )
    how = f"Questions about the handbook with the prompts {PROMPTS[0]} and {PROMPTS[1]}, all else alike."
    return Group("Two prompts for smollm2", rows, how, dict(words))


def _kept_group(kept: Mapping[str, Mapping[str, Any]]) -> Group:
    tuned, base = kept["writer"], kept["base"]

    def obeyed(told: Mapping[str, Any], form: str | None = None) -> str:
        return str(sum(each["obeyed"] for each in told["forms"] if form in (None, each["form"])))

    def compared(ours: float, theirs: float) -> str:
        return f"{100 * (ours / theirs - 1):+.1f} %"

    rouge = [100 * statistics.mean(each["rouge"]) for each in (tuned, base)]
    rows = [
        Row(
            "perplexity of prose",
            f"{tuned['perplexity']:.2f}",
            f"{base['perplexity']:.2f}",
            compared(tuned["perplexity"], base["perplexity"]),
        ),
        Row("ROUGE-L with people's replies", f"{rouge[0]:.1f}", f"{rouge[1]:.1f}", compared(*rouge)),
        Row(f"forms obeyed, of {len(base['forms'])}", obeyed(tuned), obeyed(base)),
        *(
            Row(f"of these, {form}", obeyed(tuned, form), obeyed(base, form))
            for form in dict.fromkeys(each["form"] for each in base["forms"])
        ),
    ]
    how = (
        f"smollm2 with the writer, and without an adapter: {PROSE} beginnings of encyclopedia articles, "
        f"{len(base['rouge'])} held-out instructions of Dolly, and {FORMS.name}."
    )
    return Group(
        "What the writer has kept of smollm2", tuple(rows), how, {name: dict(each) for name, each in kept.items()}
    )
