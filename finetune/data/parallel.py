"""Work on many pictures at once."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from u2net_human_plugin.errors import PluginError

from ..store import StoreError

E = TypeVar("E")
T = TypeVar("T")

#: Errors that the next picture would meet as well.
_HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def in_threads(
    doing: str,
    work: Callable[[E], T],
    entries: Sequence[E],
    failed: Callable[[E, str], None],
    workers: int,
    quiet: bool = False,
) -> list[T]:
    """Call ``work`` on all entries, with a progress bar; return the results in order.

    An entry on which something goes wrong has no result; ``failed`` gets it and the reason.

    Raises:
        OSError, StoreError: nothing can be written.
    """

    def guarded(entry: E) -> T | None:
        try:
            return work(entry)
        except Exception as error:
            no_room = isinstance(error, OSError) and error.errno in _HOPELESS
            if no_room or isinstance(error, StoreError):
                raise
            reason = " ".join(str(error).split())[:300]
            prefix = "" if isinstance(error, PluginError) else f"{type(error).__name__}: "
            failed(entry, prefix + reason)
            return None

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    pool = ThreadPoolExecutor(workers)
    try:
        with Progress(*columns, disable=quiet) as progress:
            tracked = progress.track(
                pool.map(guarded, entries), total=len(entries), description=doing
            )
            return [result for result in tracked if result is not None]
    finally:
        pool.shutdown(cancel_futures=True)
