"""The training rows and the recipe of a lesson: corrections to learn, and answers not to forget.

Corrections alone would make the adapter forget what else it knows. So it rehearses answers of its own that were
good (Robins, Connection Science 1995): the rows are the messages that it was given and what it wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.data import chat_rows
from finetune.data.feedback_rows import answering_span, turns_of, written_in
from finetune.lesson import write_rows
from rag.answering.corrections import AnswerSources, sources_of
from rag.encoders.adapters import CONFIG
from rag.errors import TuningError
from rag.models.local.local_adapters import AdapterFiles
from rag.models.local.local_files import read_json
from rag.tracing.span_json import is_truncated
from rag.tracing.trace_store import Trace

CORRECTIONS, KEPT, VALIDATION = "corrections", "kept", "held-out"
# One in this many rehearsed answers is held out for validation.
HELD_OUT = 10
CORRECTIONS_PER_KEPT = 2
LEAST_KEPT, MOST_KEPT = 10, 200


@dataclass(frozen=True, slots=True)
class Dose:
    """How strongly a lesson changes the adapter; measured by ``tests/benchmarks/bench_teach.py``.

    A rule is then obeyed in 95 % of other answers, and 83 % have the expected text, of 90 % before: answers become
    shorter. While quotations of the chain lost what was taught, it was 79 % and 88 %; with four times as many
    rehearsed answers and four passes over a correction, not nine, 67 % and as much of the expected text.

    Attributes:
        learning_rate: The highest learning rate.
        epochs: Number of times that all rows are read.
        repeat: Number of times that a correction occurs in an epoch, beside rehearsed answers that occur once. A
            rule that people ask for is against what is rehearsed, and must win.
        batch_tokens: Tokens of a batch, padding included.
    """

    learning_rate: float = 5e-4
    epochs: float = 3.0
    repeat: int = 3
    batch_tokens: int = 768


@dataclass
class CorrectionRows:
    """Rows of corrections.

    Attributes:
        lines: Lines of a training file, as ``finetune.data.chat_rows`` reads them.
        traces: The ids of their traces.
        unsupported: Questions of those that say what their sources do not contain.
        left_out: Number of corrections that cannot be learnt, by reason.
    """

    lines: list[str] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)
    unsupported: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, reason: str) -> None:
        """Count a correction that cannot be learnt."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1


def correction_rows(traces: Iterable[Trace], model: str) -> CorrectionRows:
    """Make a row of every accepted correction of the model's answers.

    Args:
        traces: Traces with their spans.
        model: The model that is taught, as its traces name it.
    """
    rows = CorrectionRows()
    for trace in traces:
        said = trace.feedback
        if said is None or said.review != "accepted" or not said.correction:
            continue
        turns = turns_of(trace)
        if trace.model != model:
            rows.leave_out("of another model")
        elif not turns:
            # The reader had found nothing, or the trace was truncated.
            rows.leave_out("the model was not asked")
        else:
            sources = sources_of(trace)
            target = target_of(said.correction, sources, trace)
            rows.lines.append(chat_rows.as_line(turns, target))
            rows.traces.append(trace.id)
            if not _is_refusal(target, trace) and sources.faults_of(target):
                rows.unsupported.append(trace.question)
    return rows


def target_of(correction: str, sources: AnswerSources, trace: Trace) -> str:
    """Return what the model should have written: the correction, with a marker for every sentence.

    A refusal and JSON stay as they are.
    """
    text = correction.strip()
    return text if _is_refusal(text, trace) or _is_json(text) else sources.cited(text)


def is_kept(trace: Trace, model: str, adapter: str) -> bool:
    """Whether an answer is worth rehearsing: the adapter wrote it, whole or liked, and nobody objects."""
    said, span = trace.feedback, answering_span(trace)
    output: Any = span.output if span else None
    root: Any = next((one.output for one in trace.spans if one.parent_id is None), None)
    if trace.status != "ok" or trace.model != model or not isinstance(output, dict) or not isinstance(root, dict):
        return False
    if said is not None and said.rating == "down":
        return False
    metadata = output.get("response_metadata")
    wrote = metadata.get("adapter", "") if isinstance(metadata, dict) else ""
    is_whole = not root.get("cut") or (said is not None and said.rating == "up")
    return wrote == adapter and is_whole and bool(kept_row(trace))


def kept_row(trace: Trace) -> str:
    """Return the row of an answer; empty if the trace does not have all of it.

    Where quotations have replaced what was written, they are what the adapter should have written. That the answer
    ends there is not learnt: it would be against a correction that adds something to the end.
    """
    root: Any = next((one.output for one in trace.spans if one.parent_id is None), None)
    replaced = root.get("replaced") if isinstance(root, dict) else None
    quoted = any(isinstance(one, dict) and one.get("quotation") for one in replaced or ())
    turns = turns_of(trace)
    answer = sources_of(trace).cited(trace.answer) if quoted else written_in(trace).strip()
    return chat_rows.as_line(turns, answer, ends=False) if turns and answer and not is_truncated(answer) else ""


def wanted_kept(corrections: int) -> int:
    """Return how many answers are rehearsed beside some corrections."""
    return min(max(corrections // CORRECTIONS_PER_KEPT, LEAST_KEPT), MOST_KEPT)


def write_lesson_data(folder: Path, corrections: Sequence[str], kept: Sequence[str]) -> None:
    """Write the files of a lesson.

    Args:
        folder: The folder to write into.
        corrections, kept: Lines of rows; at least two rehearsed answers to other questions than the corrections'.

    Raises:
        TuningError: There are fewer.
    """
    asked = {_conversation(line) for line in corrections}
    distinct = [line for line in dict.fromkeys(kept) if _conversation(line) not in asked]
    held_out = max(len(distinct) // HELD_OUT, 1)
    if len(distinct) < 2:
        raise TuningError(
            "The model has fewer than two good answers to rehearse, so a lesson could only make it forget.",
            fix="Ask it some questions that it answers well, or rate good answers with a thumbs-up.",
        )
    for name, lines in (
        (CORRECTIONS, list(corrections)),
        (KEPT, distinct[held_out:]),
        (VALIDATION, distinct[:held_out]),
    ):
        write_rows(folder / f"{name}.jsonl", lines)


def recipe_text(name: str, base: str, adapter: AdapterFiles | None, dose: Dose | None = None) -> str:
    """Return the recipe of a lesson, which continues the training of an adapter.

    Args:
        name: Name of the recipe.
        base: The model, as a recipe names it.
        adapter: The adapter to continue; None to train a new one.
        dose: How strongly to train.
    """
    given = dose or Dose()
    lines = [
        "# Written by `ragsmith teach`.",
        f"name = {json.dumps(name)}",
        'task = "sft"',
        f"base = {json.dumps(base)}",
        f"validation = {json.dumps(VALIDATION)}",
        'licences = ["corrections and questions of the users of this workspace"]',
        "checkpoint_s = 60",
        # Rows with whole passages are long.
        "max_tokens = 2048",
    ]
    if adapter is not None:
        config = read_json(adapter.folder / CONFIG)
        lines += [
            f"start = {json.dumps(str(adapter.folder))}",
            "",
            "[lora]",
            f"rank = {int(config['r'])}",
            f"alpha = {int(config['lora_alpha'])}",
        ]
    lines += [
        "",
        "[[stages]]",
        'name = "lesson"',
        f"learning_rate = {given.learning_rate}",
        f"epochs = {given.epochs}",
        f"batch_tokens = {given.batch_tokens}",
        "warmup = 0.1",
        "validate_every = 20",
        f'sources = [{{ name = "{CORRECTIONS}", repeat = {given.repeat} }}, {{ name = "{KEPT}" }}]',
    ]
    return "\n".join(lines) + "\n"


def _conversation(line: str) -> str:
    return json.dumps(json.loads(line)["messages"], sort_keys=True)


def _is_refusal(text: str, trace: Trace) -> bool:
    filled = next((span.output for span in trace.spans if span.name == "prompt"), None)
    variables = filled.get("variables") if isinstance(filled, dict) else None
    refusal = variables.get("refusal") if isinstance(variables, dict) else None
    return isinstance(refusal, str) and text.casefold().startswith(refusal.strip().rstrip(".").casefold())


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False
