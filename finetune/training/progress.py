"""Progress of a long task: a bar on a terminal, a line a minute in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

#: Seconds between two lines of a log.
INTERVAL = 60.0

#: Called with the number of steps that are done, and a note.
Advance = Callable[[int, str], None]


@contextmanager
def progress(title: str, total: int, done: int = 0, *, shown: bool = True) -> Iterator[Advance]:
    """Show a task of ``total`` steps, of which ``done`` were made before.

    Yields a function that is to be called after each step. If ``shown`` is false, as on all
    processes of a run but one, it does nothing.
    """
    if not shown:
        yield lambda _done, _note: None
    elif Console().is_terminal:
        columns = (
            *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
            *(TextColumn("{task.fields[note]}"), TimeElapsedColumn(), TimeRemainingColumn()),
        )
        with Progress(*columns) as bar:
            task = bar.add_task(title, total=total, completed=done, note="")
            yield lambda now, note: bar.update(task, completed=now, note=note)
    else:
        yield _line_a_minute(title, total, done)


def _line_a_minute(title: str, total: int, done: int) -> Advance:
    began = last = time.monotonic()

    def advance(now: int, note: str) -> None:
        nonlocal last
        moment = time.monotonic()
        if moment - last < INTERVAL:
            return
        last = moment
        left = (moment - began) * (total - now) / max(now - done, 1)
        print(f"{title} {now}/{total}  {note}  {_duration(left)} left", flush=True)

    return advance


def _duration(seconds: float) -> str:
    """A rough "2 h 05 min"."""
    hours, minutes = divmod(max(round(seconds / 60), 0), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"
