"""Ending a run early and in order: by Ctrl-C, SIGTERM or a deadline."""

from __future__ import annotations

import math
import signal
import time

import torch
from accelerate import Accelerator


class Stop(Exception):  # noqa: N818 - not an error: the run ends early but in order
    """Raised in the loop when the run has to end early; ``last.pt`` is then written."""


class StopRequest:
    """Within it, Ctrl-C, SIGTERM and a deadline end the run between two steps.

    An exception from a signal handler could interrupt an optimizer step, and the state that is
    saved then would be one that the run never had.
    """

    def __init__(self, minutes: float | None) -> None:
        self.deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self.reason = ""

    def __enter__(self) -> StopRequest:
        self.before = {
            number: signal.signal(number, self._request)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def check(self, accelerator: Accelerator) -> None:
        """Raise :class:`Stop` if any process of the run has been asked to end.

        All processes have to call it after the same steps: one that went on alone would wait for
        the others' gradients for ever.
        """
        if time.monotonic() > self.deadline:
            self.reason = "time is up"
        asked = bool(self.reason)
        if accelerator.num_processes > 1:
            answer = torch.tensor(float(asked), device=accelerator.device)
            asked = bool(accelerator.reduce(answer, "sum"))
        if asked:
            raise Stop(self.reason or "another process was asked to stop")

    def _request(self, number: int, _frame: object) -> None:
        if self.reason:  # asked twice: end at once, without saving
            raise KeyboardInterrupt
        self.reason = signal.Signals(number).name
