"""Files: written whole or not at all, known by their SHA-256, locked."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from u2net_human_plugin.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

#: Temporary files end so; `python -m finetune prepare` clears away those of a killed run.
TEMPORARY = ".tmp"


#: Error numbers of a disk, or of what a user may have on it, that is full.
FULL = (errno.ENOSPC, errno.EDQUOT)
#: What their message says in place of the system's.
NO_ROOM = "the disk is full; make room"


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; rename it to ``path`` when the block succeeds.

    The temporary file is on the same file system and flushed to disk before the rename, so
    that a reader, also after a power cut, sees the old file or the whole new one. If the
    block raises, the temporary file is removed and ``path`` is left as it was; the error of a full
    disk then names ``path``.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        # What fails while writing, unlike while opening, does not name its file.
        if error.errno in FULL:
            raise OSError(error.errno, NO_ROOM, str(path)) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, that appears whole or not at all.

    What is no UTF-8, in another file's name, becomes an escape, which JSON reads back as it was.
    """
    with written_atomically(path) as temporary:
        temporary.write_text(text, "utf-8", errors="backslashreplace")


def write_png(path: Path, image: Image.Image) -> None:
    """Write a picture that appears whole or not at all."""
    with written_atomically(path) as temporary:
        image.save(temporary, "PNG")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def only_run(out: Path, command: str) -> Iterator[None]:
    """Keep other processes out of a folder for as long as the block runs, by a lock file in it.

    Raises:
        DataError: another process is at work there.
    """
    import filelock

    # The operating system releases the lock of a process that was killed.
    lock = filelock.FileLock(out / "lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise DataError(
            f"{out}: another `{command}` is at work there; wait for it or choose another --out."
        ) from None
    try:
        yield
    finally:
        lock.release()
