"""On what was measured, and how busy it was."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = (
    "openvino",
    "torch",
    "sentence-transformers",
    "chromadb",
    "tantivy",
    "langchain-core",
    "langchain-chroma",
    "langchain-huggingface",
    "gradio",
)


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine and the versions that were measured on it.

    Attributes:
        cores: Logical ones that this process may use.
        bf16: Whether the processor computes in bfloat16, which decides how fast the encoder is.
    """

    cpu: str
    cores: int
    memory_gb: float
    bf16: bool
    system: str
    python: str
    versions: dict[str, str]

    def line(self) -> str:
        """The machine in one line, the versions in another."""
        bf16 = "with" if self.bf16 else "without"
        known = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return (
            f"{self.cpu}, {self.cores} cores ({bf16} bf16), {self.memory_gb:.0f} GB, {self.system}, "
            f"Python {self.python}  \n{known}"
        )


def this_machine() -> Machine:
    """Look at the machine."""
    import psutil  # type: ignore[import-untyped]

    cpu, flags = _processor()
    return Machine(
        cpu=cpu,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gb=psutil.virtual_memory().total / 1e9,
        bf16=bool({"avx512_bf16", "amx_bf16", "bf16"} & flags),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions={name: found for name in LIBRARIES if (found := _version(name))},
    )


def load() -> tuple[float, float, float]:
    """Processes that ran or waited, on average over 1, 5 and 15 minutes."""
    return os.getloadavg()


def load_line() -> str:
    """The load averages, as ``uptime`` shows them."""
    return ", ".join(f"{value:.2f}" for value in load())


def _processor() -> tuple[str, set[str]]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or "unknown processor", set()
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    return fields.get("model name", platform.machine()), set(
        fields.get("flags", fields.get("features", "")).split()
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
