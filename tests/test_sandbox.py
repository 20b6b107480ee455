"""A child that dies, hangs, swells or lies costs one request, and its caller hears which limit it ran into."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rag.documents.sandbox import Sandbox, SandboxError
from rag.errors import LoadError

TESTS = Path(__file__).resolve().parent
TARGET = "sandboxed:work"

PARENT = """
import sys, time
from rag.documents.sandbox import Sandbox
with Sandbox("sandboxed:work", memory_mb=256, timeout_s=60, longest_frame=1_000) as box:
    print(b"".join(box.run({"do": "pid"})).decode(), flush=True)
    list(box.run({"do": sys.argv[1]}))
"""


def opened(timeout_s: float = 20.0) -> Sandbox:
    return Sandbox(TARGET, memory_mb=256, timeout_s=timeout_s, longest_frame=10_000_000)


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with opened() as made:
        yield made


def pid(box: Sandbox) -> int:
    (frame,) = box.run({"do": "pid"})
    return int(frame)


def is_gone(number: int, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(number).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_frames_come_in_their_order_and_the_child_stays(box: Sandbox) -> None:
    first = pid(box)
    assert list(box.run({"do": "frames"})) == [b"one", b"", b"x" * 3_000_000]
    assert pid(box) == first != os.getpid()


def test_a_request_does_not_pay_for_what_earlier_ones_have_left(box: Sandbox) -> None:
    for _ in range(10):
        assert list(box.run({"do": "reserve"})) == [b"frame"]


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        ("allocate", "memory"),
        ("allocate, and call it something else", "memory"),
        ("abort", "memory"),
        ("segfault", "crash"),
        ("exit", "crash"),
        ("fail", "crash"),
        ("boast", "protocol"),
        ("babble", "protocol"),
    ],
)
def test_a_child_that_fails_is_replaced_and_its_caller_hears_why(box: Sandbox, do: str, reason: str) -> None:
    first = pid(box)
    with pytest.raises(SandboxError) as caught:
        list(box.run({"do": do}))
    assert caught.value.reason == reason
    assert is_gone(first)
    assert pid(box) != first


@pytest.mark.parametrize("do", ["spin", "sleep"])
def test_a_child_that_takes_too_long_is_replaced(do: str) -> None:
    with opened(timeout_s=1.0) as box:
        with pytest.raises(SandboxError) as caught:
            list(box.run({"do": do}))
        assert caught.value.reason == "time"


def test_a_refusal_has_its_message_and_the_child_stays(box: Sandbox) -> None:
    first = pid(box)
    frames = box.run({"do": "refuse"})
    assert next(frames) == b"before"
    with pytest.raises(LoadError, match="no file") as caught:
        next(frames)
    assert caught.value.fix == "Leave it out."
    caught.value.message.encode()  # What the child sends is text that can be stored.
    assert pid(box) == first


@pytest.mark.slow
def test_only_waiting_for_the_child_counts() -> None:
    with opened(timeout_s=2.0) as box:
        frames = box.run({"do": "frames"})
        next(frames)
        time.sleep(2.3)
        assert len(list(frames)) == 2


def test_a_child_has_no_secrets_no_terminal_and_an_end(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAGSMITH_ACCESS__PASSWORD", "OPENAI_API_KEY", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "secret")
    (frame,) = box.run({"do": "facts"})
    names, own_session, core, cpu = ast.literal_eval(frame.decode())
    assert not [name for name in names if name.startswith(("RAGSMITH_", "OPENAI_", "WANDB_", "AWS_"))]
    assert own_session
    assert core == 0
    assert 20 < cpu < 40


def test_what_a_parser_prints_reaches_nobody(box: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    assert list(box.run({"do": "print"})) == [b"frame"]
    assert capfd.readouterr() == ("", "")


def test_whoever_stops_early_ends_the_child(box: Sandbox) -> None:
    first = pid(box)
    frames = box.run({"do": "frames"})
    next(frames)
    frames.close()
    assert is_gone(first)
    assert pid(box) != first


def test_closing_does_not_wait_for_a_request_that_was_left(box: Sandbox) -> None:
    first = pid(box)
    frames = box.run({"do": "frames"})
    next(frames)
    box.close()
    assert is_gone(first)
    frames.close()


def test_a_target_that_is_not_there_is_named() -> None:
    with Sandbox("sandboxed:nothing", memory_mb=256, timeout_s=1, longest_frame=10) as box:
        box.start()
        with pytest.raises(SandboxError, match="start: AttributeError"):
            list(box.run({}))


def test_a_sandbox_that_is_forgotten_leaves_no_child() -> None:
    box = opened()
    number = pid(box)
    del box
    assert is_gone(number)


@pytest.mark.parametrize("busy", ["pid", "frames"])
def test_a_child_does_not_outlive_a_parent_that_is_killed(busy: str) -> None:
    code = PARENT.replace(
        'list(box.run({"do": sys.argv[1]}))', 'next(box.run({"do": sys.argv[1]})); time.sleep(60)'
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, busy],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"},
    ) as parent:
        assert parent.stdout is not None
        number = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert is_gone(number)
