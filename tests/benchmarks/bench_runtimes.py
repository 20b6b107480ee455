"""A local language model on OpenVINO and on torch: the same prompts, in turns.

Each runtime has a process of its own. All of them are open at once and answer one prompt after the other, so that
a busy moment of the machine meets them all.
"""

from __future__ import annotations

import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.bench_reading import XQUAD
from tests.benchmarks.bench_report import Group, Row, percentile
from tests.benchmarks.child import Worker, call
from tests.benchmarks.machine import load_line
from tests.benchmarks.plan import Plan

if TYPE_CHECKING:
    from rag.models.local.local_engine import LocalEngine

PROMPTS, QUICK = 40, 10
MOST_TOKENS = 48
TOGETHER = 4
# Runtime and number format; the last one is the reference.
RUNTIMES = (("openvino", "bf16"), ("openvino", "f32"), ("torch", "bf16"), ("torch", "f32"))
SYSTEM = "Answer the question in one sentence, with the words of the passage."


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to one prompt.

    Attributes:
        read, written: Tokens of the prompt and of the answer.
        first_s, total_s: Seconds from the request to the first token, and to the end.
    """

    text: str
    read: int
    written: int
    first_s: float
    total_s: float


@dataclass
class Measured:
    """What one runtime did.

    Attributes:
        start_s: From the start of the process to an open model.
        alone: Answers to one prompt at a time.
        together: Tokens and seconds of each group of prompts that were asked at once.
        rss_mb: Resident memory at the end.
    """

    start_s: float
    alone: list[Answer]
    together: list[tuple[int, float]]
    rss_mb: float = 0.0


Turn = tuple[Worker, Measured]


def run(plan: Plan) -> Iterator[Group]:
    """Measure; one group."""
    before = load_line()
    home = plan.cache / "runtimes"
    model = str(plan.model) if plan.model else call("tests.benchmarks.bench_runtimes:prepared", home=home).value
    prompts = _prompts(plan.data, QUICK if plan.quick else PROMPTS)
    call("tests.benchmarks.bench_runtimes:converted", home=home, model=model)
    measured: list[Measured] = []
    with ExitStack() as stack:
        workers = []
        for runtime, dtype in RUNTIMES:
            started = time.perf_counter()
            worker = stack.enter_context(
                Worker(
                    "tests.benchmarks.bench_runtimes:answering",
                    home=home,
                    model=model,
                    runtime=runtime,
                    dtype=dtype,
                )
            )
            worker.ask(prompts=[])
            measured.append(Measured(time.perf_counter() - started, [], []))
            workers.append(worker)
            worker.ask(prompts=prompts[:1])  # The first one takes longer, on both.
        turns = list(zip(workers, measured, strict=True))
        for number, prompt in enumerate(prompts):
            for worker, found in _rotated(turns, number):
                found.alone.append(Answer(**worker.ask(prompts=[prompt])["answers"][0]))
        for number, start in enumerate(range(0, len(prompts) - TOGETHER + 1, TOGETHER)):
            for worker, found in _rotated(turns, number):
                given = worker.ask(prompts=prompts[start : start + TOGETHER])
                found.together.append((sum(each["written"] for each in given["answers"]), given["seconds"]))
                found.rss_mb = given["rss_mb"]
    yield _group(measured, Path(model).name, f"Load average {before} before, {load_line()} after.")


# Each of these runs in a process of its own.


def prepared(home: str) -> str:
    """Prepare SmolLM2, and return its folder."""
    from rag.models.local.shipped_base import prepare_base

    return str(prepare_base(Path(home) / "models").folder)


def converted(home: str, model: str) -> str:
    """Convert a model for OpenVINO, which a machine does once."""
    _open(home, model, "openvino", "f32").close()
    return ""


def answering(home: str, model: str, runtime: str, dtype: str) -> Callable[..., dict[str, Any]]:
    """Open a model, and return what answers a list of prompts at once."""
    import psutil

    engine = _open(home, model, runtime, dtype)

    def answer(prompts: list[str]) -> dict[str, Any]:
        started = time.perf_counter()
        answers = _answers(engine, prompts)
        return {
            "answers": [asdict(each) for each in answers],
            "seconds": time.perf_counter() - started,
            "rss_mb": psutil.Process(os.getpid()).memory_info().rss / 1e6,
        }

    return answer


def _open(home: str, model: str, runtime: str, dtype: str) -> LocalEngine:
    from rag.models.local.local_engine import open_local_engine
    from rag.models.local.local_files import locate_local
    from rag.settings import LocalSettings

    settings = LocalSettings.model_validate({"runtime": runtime, "dtype": dtype, "device": "cpu"})
    return open_local_engine(locate_local(model, download=False), settings, Path(home) / "models")


def _answers(engine: LocalEngine, prompts: Sequence[str]) -> list[Answer]:
    from langchain_core.messages import HumanMessage, SystemMessage

    from rag.models.local.batching import Piece
    from rag.models.local.local_engine import Decoding

    def start(prompt: str) -> Callable[[], Answer]:
        started = time.perf_counter()
        pieces: list[tuple[float, Piece]] = []
        over = threading.Event()

        def take(piece: Any) -> None:
            if not isinstance(piece, Piece):
                over.set()
                raise piece
            pieces.append((time.perf_counter() - started, piece))
            if piece.ending:
                over.set()

        engine.start([SystemMessage(SYSTEM), HumanMessage(prompt)], Decoding(MOST_TOKENS), take)

        def finished() -> Answer:
            over.wait()
            return Answer(
                "".join(piece.text for _, piece in pieces),
                sum(piece.read for _, piece in pieces),
                sum(piece.written for _, piece in pieces),
                next(at for at, piece in pieces if piece.written),
                pieces[-1][0],
            )

        return finished

    return [finished() for finished in [start(prompt) for prompt in prompts]]


# Here again.


def _prompts(data: Path, most: int) -> list[str]:
    from rag.evaluation.squad import read_articles

    asked = [
        f"{paragraph.text}\n\nQuestion: {question.text}"
        for article in read_articles(data / XQUAD)
        for paragraph in article.paragraphs
        for question in paragraph.questions
    ]
    return random.Random(0).sample(asked, most)


def _rotated(turns: Sequence[Turn], number: int) -> Sequence[Turn]:
    """Who begins changes, so that none is always after the same one."""
    first = number % len(turns)
    return [*turns[first:], *turns[:first]]


def _group(measured: Sequence[Measured], model: str, load: str) -> Group:
    texts = [answer.text for answer in measured[-1].alone]

    def row(what: str, figure: Callable[[Measured], float], digits: int = 1) -> Row:
        shown = [f"{figure(each):,.{digits}f}" for each in measured]
        return Row(what, " / ".join(shown[:2]), " / ".join(shown[2:]))

    rows = (
        row("answers equal to those of torch f32, %", lambda each: _equal(each, texts), 0),
        row("of an answer until the first difference, %", lambda each: _common(each, texts), 0),
        row("first token, p50, ms", lambda each: percentile([a.first_s * 1e3 for a in each.alone], 0.5), 0),
        row("tokens a second after the first, p50", lambda each: statistics.median(map(_rate, each.alone))),
        row(
            "tokens a second, one request at a time",
            lambda each: _whole([(a.written, a.total_s) for a in each.alone]),
        ),
        row(f"tokens a second, {TOGETHER} requests at once", lambda each: _whole(each.together)),
        row("resident memory, MB", lambda each: each.rss_mb, 0),
        row("from the start of the process to an open model, s", lambda each: each.start_s),
    )
    reads = [answer.read for answer in measured[-1].alone]
    how = (
        f"{len(texts)} prompts of XQuAD of {statistics.median(reads):.0f} tokens (median), answers of up to "
        f"{MOST_TOKENS} tokens, greedy. Four processes took turns at every prompt; memory is that at the end. "
        f"{load}"
    )
    names = " / ".join(f"{runtime} {dtype}" for runtime, dtype in RUNTIMES)
    raw = {f"{runtime} {dtype}": asdict(each) for (runtime, dtype), each in zip(RUNTIMES, measured, strict=True)}
    return Group(f"Runtimes of {model}: {names}", rows, how, raw)


def _equal(measured: Measured, texts: Sequence[str]) -> float:
    return 100 * statistics.mean(answer.text == text for answer, text in zip(measured.alone, texts, strict=True))


def _common(measured: Measured, texts: Sequence[str]) -> float:
    shares = [
        _agreeing(answer.text, text) / max(len(answer.text), len(text), 1)
        for answer, text in zip(measured.alone, texts, strict=True)
    ]
    return 100 * statistics.mean(shares)


def _agreeing(one: str, other: str) -> int:
    """How many characters two texts have in common before they differ."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def _rate(answer: Answer) -> float:
    return (answer.written - 1) / max(answer.total_s - answer.first_s, 1e-9)


def _whole(parts: Sequence[tuple[int, float]]) -> float:
    return sum(tokens for tokens, _ in parts) / max(sum(seconds for _, seconds in parts), 1e-9)
