"""What a command has finished, kept in one SQLite file, so that it can go on after a kill.

SQLite (https://www.sqlite.org) does what is hard about it: :meth:`Store.put` is one transaction,
which a killed process leaves whole or not at all, and processes wait for each other.
"""

from __future__ import annotations

import errno
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from u2net_human_plugin.errors import DataError

from .files import NO_ROOM

#: Seconds to wait for another process that is writing.
_PATIENCE = 60.0


class StoreError(DataError):
    """The file is damaged, or can be neither read nor written: nothing more can be kept in it."""


class Store:
    """Dictionaries on disk, each with a name, from text to JSON values; used as a context manager.

    Threads and processes may use one file at the same time. It uses a write-ahead log, so that a
    value costs no wait for the disk: after a power cut the newest ones may be missing.

    Args:
        path: the file, in a folder that exists; made if missing.

    Raises:
        StoreError: the file is damaged or cannot be opened; names it and the remedy.
        OSError: the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with self._explained():
            self._connection = sqlite3.connect(
                path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._connection.text_factory = bytes.decode  # of bytes that are no text, a ValueError
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = NORMAL")
                self._connection.execute(
                    "CREATE TABLE IF NOT EXISTS entries (dictionary TEXT, key TEXT, value TEXT, "
                    "PRIMARY KEY (dictionary, key)) WITHOUT ROWID"
                )
            except sqlite3.Error:
                self._connection.close()
                raise

    def get(self, dictionary: str, key: str) -> Any:
        """The value last put under ``key``, or None."""
        found = self._run(
            "SELECT value FROM entries WHERE dictionary = ? AND key = ?", dictionary, key
        )
        return found[0][0] if found else None

    def put(self, dictionary: str, key: str, value: Any) -> None:
        """Keep ``value`` under ``key``; it outlives this process when this returns."""
        self._run(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", dictionary, key, json.dumps(value)
        )

    def items(self, dictionary: str) -> dict[str, Any]:
        """All of a dictionary."""
        found = self._run("SELECT value, key FROM entries WHERE dictionary = ?", dictionary)
        return {key: value for value, key in found}

    def clear(self) -> None:
        """Empty all dictionaries."""
        self._run("DELETE FROM entries")

    def _run(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        """The rows of a statement, of each the first column read as JSON."""
        with self._lock, self._explained(), closing(self._connection.cursor()) as cursor:
            rows = cursor.execute(statement, values).fetchall()
            return [(json.loads(value), *rest) for value, *rest in rows]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError) as error:  # ValueError: a value that is no JSON
            if "disk is full" in str(error):
                raise OSError(
                    errno.ENOSPC,
                    f"{NO_ROOM} and give the command again, it goes on",
                    str(self.path),
                ) from None
            remedy = "see to the folder's permissions and room"
            if not isinstance(error, sqlite3.OperationalError):
                remedy = "it is damaged: remove it, and what it held is worked out again"
            raise StoreError(f"{self.path}: {error}; {remedy}.") from None

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
