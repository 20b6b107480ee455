"""The questions of listed traces, answered again as an evaluation run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag.errors import ReplayError
from ui.app.login_name import login_name

if TYPE_CHECKING:
    from rag.evaluation.cases import Case
    from rag.evaluation.dataset_store import DatasetStore, DatasetVersion
    from rag.tracing.trace_query import TraceQuery
    from rag.tracing.trace_store import Trace
    from ui.app.stores import Stores

DATASET = "replayed"
"""The dataset that receives the questions, unless another one is named."""


@dataclass(frozen=True, slots=True)
class ListReplay:
    """What a replay of a list asks.

    Attributes:
        cases: The distinct questions, with the turns before them.
        traces: Number of the traces that they are from.
        corpus: The corpus of all these traces; empty if none names one.
        seconds: What it takes to answer the cases once, one after the other, if it takes as long as before.
    """

    cases: tuple[Case, ...]
    traces: int
    corpus: str
    seconds: float

    def save(self, datasets: DatasetStore, dataset: str = DATASET) -> DatasetVersion:
        """Make the cases a version of a dataset; equal cases use the version that is there."""
        from rag.tracing.figures import counted

        message = f"questions of {counted(self.traces, 'trace')}"
        return datasets.save(dataset, self.cases, by=login_name(), message=message)


def listed_traces(stores: Stores, query: TraceQuery, limit: int) -> tuple[list[Trace], bool]:
    """Return the first traces of a list that have a question, with their spans, and whether the list has more.

    Args:
        limit: Maximum traces that are read.

    Raises:
        FilterError: The filter is not understood.
    """
    # One more, to know whether there are more.
    found = list(stores.trace_queries.walk(query, limit=limit + 1))
    traces = map(stores.traces.get, found[:limit])
    return [trace for trace in traces if trace.question.strip()], len(found) > limit


def replay_of(traces: Sequence[Trace], corpus: str = "") -> ListReplay:
    """Return the replay of traces.

    Args:
        traces: Traces with their spans.
        corpus: Leaves out those of other corpora; by default, all must be of one.

    Raises:
        ReplayError: The traces are of several corpora.
    """
    from rag.evaluation.traced import replayed_cases

    corpora = sorted({trace.corpus for trace in traces if trace.corpus})
    if not corpus and len(corpora) > 1:
        raise ReplayError(
            f"The traces are of several corpora: {', '.join(corpora)}.",
            fix="Choose one, with `corpus = NAME` in the filter or with --corpus.",
        )
    wanted = corpus or "".join(corpora)
    kept = [trace for trace in traces if trace.corpus in ("", wanted)]
    cases = replayed_cases(kept)
    times = [trace.latency_s for trace in kept if trace.latency_s is not None]
    return ListReplay(cases, len(kept), wanted, sum(times) / max(len(times), 1) * len(cases))
