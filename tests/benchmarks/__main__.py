"""Run benchmarks and write the report: ``python -m tests.benchmarks --data FOLDER``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import bench_filings as filings
from tests.benchmarks import bench_handbook as handbook
from tests.benchmarks import bench_ingestion as ingestion
from tests.benchmarks import bench_latency as latency
from tests.benchmarks import bench_masking as masking
from tests.benchmarks import bench_offsets as offsets
from tests.benchmarks import bench_reading as reading
from tests.benchmarks import bench_retrieval as retrieval
from tests.benchmarks import bench_rewriting as rewriting
from tests.benchmarks import bench_runtimes as runtimes
from tests.benchmarks import bench_serving as serving
from tests.benchmarks import bench_startup as startup
from tests.benchmarks import bench_teach as teach
from tests.benchmarks import bench_traces as traces
from tests.benchmarks import bench_tracing as tracing
from tests.benchmarks import bench_training as training
from tests.benchmarks import bench_tune as tune
from tests.benchmarks import bench_weights as weights
from tests.benchmarks import bench_writing as writing
from tests.benchmarks.bench_report import Group, Report
from tests.benchmarks.child import ROOT
from tests.benchmarks.machine import load_line, this_machine
from tests.benchmarks.plan import Plan

DEFAULT_OUT = Path(__file__).parent / "results" / "report.md"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Something that can be measured.

    Attributes:
        run: Gives its figures as they come.
        needs: Folders of the data that it reads.
    """

    run: Callable[[Plan], Iterator[Group]]
    needs: tuple[str, ...] = ()


# In this order: ingestion leaves the indexes behind that latency and start-up are measured on.
BENCHMARKS = {
    "ingestion": Benchmark(ingestion.run, ("docs/peps",)),
    "latency": Benchmark(latency.run, ("docs/peps",)),
    "startup": Benchmark(startup.run, ("docs/peps",)),
    "retrieval": Benchmark(retrieval.run, ("scifact", "cranfield")),
    "filings": Benchmark(filings.run, ("financebench",)),
    "offsets": Benchmark(offsets.run, ("docs/peps", "docs/fastapi", "financebench")),
    "handbook": Benchmark(handbook.run),
    "serving": Benchmark(serving.run),
    "reading": Benchmark(reading.run, ("squad",)),
    "rewriting": Benchmark(rewriting.run, ("squad", "conversational/canard")),
    "writing": Benchmark(writing.run, ("squad", "prose", "instruct")),
    "masking": Benchmark(masking.run, ("pii", "docs/fastapi", "docs/peft", "docs/trl")),
    "runtimes": Benchmark(runtimes.run, ("squad",)),
    "teach": Benchmark(teach.run),
    "traces": Benchmark(traces.run),
    "tracing": Benchmark(tracing.run),
    "training": Benchmark(training.run),
    "tune": Benchmark(tune.run, ("scifact",)),
    "weights": Benchmark(weights.run, ("squad",)),
}
BY_NAME_ONLY = ("masking", "runtimes", "teach", "traces", "tracing", "training", "tune", "weights")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="Measure speed and quality, and write one table."
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="the benchmark data: docs/peps (reStructuredText files), scifact and cranfield "
        "(BEIR layout), squad (SQuAD format), conversational/canard",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=BENCHMARKS,
        metavar="NAME",
        help=f"which ones: {', '.join(BENCHMARKS)} (by default all but {', '.join(BY_NAME_ONLY)})",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", default=DEFAULT_OUT, help="the report, Markdown")
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="FOLDER",
        help="keep the indexes there (by default they are thrown away)",
    )
    parser.add_argument(
        "--peps",
        type=int,
        metavar="N",
        help="take N of the proposals, at equal distances (all of them take the plain pipeline half an hour)",
    )
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="a causal language model of transformers for `runtimes` (by default SmolLM2)",
    )
    parser.add_argument("--quick", action="store_true", help="see whether everything runs; not to be quoted")
    return parser.parse_args(arguments)


def complaint(data: Path | None, names: Sequence[str]) -> str:
    """What is wrong with the data folder, in a sentence; empty when nothing is."""
    needed = {need: name for name in names for need in BENCHMARKS[name].needs}
    if not needed:
        return ""
    if data is None:
        return (
            "The benchmarks need real data, which is not part of the project: name its folder with "
            "--data FOLDER. `--only handbook` needs none."
        )
    if not data.is_dir():
        return f"The data folder {data} does not exist."
    missing = [need for need in needed if not (data / need).is_dir()]
    return f"The data folder {data} lacks {', '.join(missing)}." if missing else ""


def main() -> int:
    """Measure what was asked for.

    Returns:
        0, or 1 where something was not measured, 2 for a wrong call, 130 when it was stopped.
    """
    options = parse()
    names = options.only or [name for name in BENCHMARKS if name not in BY_NAME_ONLY]
    wrong = complaint(options.data, names)
    if wrong:
        print(wrong, file=sys.stderr)
        return 2
    report = Report(options.out, this_machine(), quick=options.quick)
    with ExitStack() as stack:
        cache = options.cache or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ragsmith-bench-")))
        cache.mkdir(parents=True, exist_ok=True)
        model = options.model.resolve() if options.model else None
        plan = Plan((options.data or ROOT).resolve(), cache.resolve(), options.quick, options.peps, model)
        stopped = _run(names, plan, report)
    print(report.markdown())
    print(f"Written to {options.out} and {options.out.with_suffix('.json').name} beside it.")
    if stopped:
        return 130
    return 1 if report.failures else 0


def _run(names: Sequence[str], plan: Plan, report: Report) -> bool:
    for name in BENCHMARKS:
        if name not in names:
            continue
        started = time.monotonic()
        print(f"{name} … (load average {load_line()})", file=sys.stderr, flush=True)
        try:
            for group in BENCHMARKS[name].run(plan):
                report.add(group)
        except KeyboardInterrupt:
            report.fail(name, "stopped before its end")
            return True
        # One that fails must not cost the figures of the others.
        except Exception as error:  # noqa: BLE001
            report.fail(name, f"{type(error).__name__}: {error}")
            print(f"{name} failed: {error}", file=sys.stderr, flush=True)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return False


if __name__ == "__main__":
    sys.exit(main())
