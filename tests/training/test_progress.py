"""How a long task shows where it is."""

from __future__ import annotations

import pytest

from u2net_human_plugin.finetune.training import progress as module
from u2net_human_plugin.finetune.training.progress import progress


def test_a_log_gets_a_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the steps, what there is to say, and the time that is left."""
    clock = iter([0.0, *(40.0 * number for number in range(1, 7))])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress("step", 100, 40) as advance:
        for step in range(41, 47):
            advance(step, f"loss {step / 100:.4f}")
    assert capsys.readouterr().out.splitlines() == [
        "step 42/100  loss 0.4200  39 min left",
        "step 44/100  loss 0.4400  37 min left",
        "step 46/100  loss 0.4600  36 min left",
    ]


def test_other_processes_of_a_run_are_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for all of them is enough."""
    monkeypatch.setattr(module, "INTERVAL", 0.0)
    with progress("step", 2, shown=False) as advance:
        advance(1, "")
    with progress("step", 2) as advance:
        advance(1, "here")
    assert capsys.readouterr().out.splitlines() == ["step 1/2  here  0 min left"]
