"""Forked processes: a child has its parent's memory, but none of its threads.

So what waits for a thread of the parent waits for ever: a lock that one of them held, and
torch's OpenMP pool. How onnxruntime's sessions are kept from it is seen in :mod:`.network`.

A child that was forked after ``import onnxruntime`` hangs when it ends by ``sys.exit``;
that is onnxruntime's own, and happens without this package, too. multiprocessing's children
end otherwise. Servers that fork, such as gunicorn: without ``--preload``.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType


def in_children(call: Callable[[], object]) -> None:
    """Have ``call`` called at the start of every process that is forked from now on."""
    if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
        os.register_at_fork(after_in_child=call)


class Lock:
    """A lock that a forked child finds open, whichever thread of the parent held it."""

    def __init__(self) -> None:
        self._renew()
        in_children(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()


_torch_is_the_parents = False


def _remember_torch() -> None:
    global _torch_is_the_parents  # noqa: PLW0603 - one fact about this process
    _torch_is_the_parents = "torch" in sys.modules


in_children(_remember_torch)


def keep_torch_running() -> None:
    """To be called before torch computes: in a forked child it gets one thread, not none."""
    if _torch_is_the_parents:
        import torch

        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)
