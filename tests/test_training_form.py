"""What the parts that start trainings have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.work_folder import WorkFolder
from ui.pages.tune.training_form import stop_button


@pytest.mark.parametrize(
    ("active", "asked", "expected"),
    [
        (True, False, ("Stop", True, True)),
        (True, True, ("Stopping …", True, False)),
        # A request that a process has left when it was killed is not under way.
        (False, True, ("Stop", False, True)),
        (False, False, ("Stop", False, True)),
    ],
)
def test_a_stop_that_was_asked_for_shows_until_the_process_ends(
    tmp_path: Path, active: bool, asked: bool, expected: tuple[str, bool, bool]
) -> None:
    folder = WorkFolder(tmp_path)
    if asked:
        folder.request_stop()
    button = stop_button(folder, active)
    assert (button.value, button.visible, button.interactive) == expected


def test_without_a_run_nothing_can_be_stopped() -> None:
    assert not stop_button(None, False).visible
