"""Results kept between runs, in JSON-lines files that are only ever appended to."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from u2net_human_plugin.errors import DataError


class Cache:
    """A dictionary on disk, from text to JSON values; safe to use from several threads.

    Each :meth:`put` appends one line in one write. A process killed in between leaves at
    most one torn last line, which the next run cuts off; the last of several lines with
    one key counts. Two processes must not write to one cache at once.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, Any] = {}
        # Append mode: the file is never rewritten, so there is nothing to lose.
        self._file = path.open("a+b", buffering=0)
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        self._file.truncate(whole)
        for line in content[:whole].splitlines():
            try:
                key, value = json.loads(line)
            except ValueError:  # a damaged disk; what the line held is worked out again
                continue
            self._values[key] = value

    def get(self, key: str) -> Any:
        """The value last put under ``key``, or None."""
        return self._values.get(key)

    def put(self, key: str, value: Any) -> None:
        """Keep ``value`` under ``key``, in memory and on disk."""
        line = json.dumps([key, value]).encode() + b"\n"
        with self._lock:
            # A short write (disk full) must not leave half a line before the next one.
            end = self._file.seek(0, os.SEEK_END)
            if self._file.write(line) != len(line):
                self._file.truncate(end)
                raise OSError(f"{self._file.name}: could not be written; is the disk full?")
            self._values[key] = value

    def close(self) -> None:
        """Close the file; what was put stays."""
        self._file.close()


@contextmanager
def open_caches(folder: Path, *names: str) -> Iterator[list[Cache]]:
    """The caches ``<name>.jsonl`` of an existing folder; closed at the end."""
    caches = [Cache(folder / f"{name}.jsonl") for name in names]
    try:
        yield caches
    finally:
        for cache in caches:
            cache.close()


@contextmanager
def only_run(out: Path) -> Iterator[None]:
    """Keep other processes out of ``out`` meanwhile.

    Raises:
        DataError: another one is at work there.
    """
    # The operating system releases the lock of a process that was killed.
    lock = filelock.FileLock(out / ".prepare" / "lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise DataError(
            f"{out}: another `prepare` is at work there; wait for it or choose another --out."
        ) from None
    try:
        yield
    finally:
        lock.release()
