"""Folders of pictures: local ones, and those that fsspec or pyarrow open (s3://, gs://, hf://).

Paths inside a :class:`Folder` are relative to it, with "/" on every system.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from u2net_human_plugin.errors import (
    DataError,
    MissingExtraError,
    OptionError,
    importing,
    install_command,
)

#: What a picture's name ends with, in small letters. Of a folder's other files it is said
#: how many there are; a glob takes what it matches, whatever the name.
PICTURES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

#: File systems on which an object appears whole or not at all, by fsspec's and pyarrow's names.
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "memory"}

#: Folder, in the destination, of what is not finished. Hidden, so it is never a picture's.
UNFINISHED = ".unfinished"

_MAGIC = "*?["


@dataclass(frozen=True)
class Folder:
    """A folder of a file system. It can be sent to other processes and machines."""

    #: An ``fsspec.AbstractFileSystem``.
    files: Any
    #: Its path there, without protocol and without a "/" at the end.
    path: str

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            OSError: it cannot be read.
        """
        content: bytes = self.files.cat_file(f"{self.path}/{name}")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file that appears whole or not at all, whenever this process dies.

        Raises:
            OSError: it cannot be written; a file of that name is as it was.
        """
        path = f"{self.path}/{name}"
        if self._is(OBJECT_STORES):
            self.files.pipe_file(path, content)
            return
        temporary = f"{self.path}/{UNFINISHED}/{uuid.uuid4().hex}"
        for file in (temporary, path):
            self.files.makedirs(file.rpartition("/")[0], exist_ok=True)
        if not self._is({"file", "local"}):
            self.files.pipe_file(temporary, content)
            self.files.mv(temporary, path)
            return
        try:
            with Path(temporary).open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise

    def names(self, below: str = "") -> list[str]:
        """All files, sorted; ``below``: only those in this folder. None if there is none."""
        top = f"{self.path}/{below}" if below else self.path
        if not self.files.exists(top):
            return []
        return sorted(path[len(self.path) + 1 :] for path in self.files.find(top))

    def remove(self, below: str) -> None:
        """Remove a folder in it, if it is there."""
        if self.files.exists(f"{self.path}/{below}"):
            self.files.rm(f"{self.path}/{below}", recursive=True)

    def holds(self, other: Folder) -> bool:
        """Whether ``other`` is this folder or in it."""
        same = bool(_protocols(self.files) & _protocols(other.files))
        return same and f"{other.path}/".startswith(f"{self.path}/")

    def _is(self, kinds: set[str]) -> bool:
        return bool(kinds & _protocols(self.files))


def destination(place: str) -> Folder:
    """The folder to write to; it need not exist.

    Raises:
        DataError: it is a file, or of an unknown kind.
        MissingExtraError: its file system needs a package that is not installed.
    """
    folder = _opened(place)
    if _kind(folder) == "file":
        raise DataError(f"{place}: is a file; expected a folder to write to.")
    return folder


def find_pictures(place: str, besides: Folder) -> tuple[Folder, list[str], list[str]]:
    """What a folder, a glob or a file's name means: the folder, its pictures, its other files.

    Both lists are sorted names. Hidden files are in neither, nor is what lies in ``besides``.

    Raises:
        DataError: there is nothing.
        OptionError: the pictures lie in ``besides`` themselves.
        MissingExtraError: its file system needs a package that is not installed.
    """
    start, pattern = _split(place)
    folder, name = _opened(start), ""
    kind = _kind(folder)
    if not pattern and kind == "file":
        parent, _, name = folder.path.rpartition("/")
        folder = Folder(folder.files, parent)
    if besides.holds(folder):
        raise OptionError(
            f"{besides.path}: holds the pictures themselves, which cut-outs could overwrite. "
            "Choose a folder beside or inside theirs."
        )
    if name:
        return folder, [name], []
    if pattern:
        found = folder.files.glob(f"{folder.path}/{pattern}", detail=True)
        paths = [path for path, entry in found.items() if entry["type"] == "file"]
    elif kind == "directory":
        paths = folder.files.find(folder.path)
    else:
        raise DataError(f"{place}: there is no such folder or file.")
    names = sorted(
        name
        for name in (path[len(folder.path) + 1 :] for path in paths)
        if not any(part.startswith(".") for part in name.split("/"))
        and not besides.holds(Folder(folder.files, f"{folder.path}/{name}"))
    )
    pictures = names if pattern else [n for n in names if n.lower().endswith(PICTURES)]
    if not pictures:
        raise DataError(f"{place}: no pictures there (of other files: {len(names)}).")
    return folder, pictures, sorted(set(names) - set(pictures))


def _split(place: str) -> tuple[str, str]:
    """``photos/2024/*/a.jpg`` → ``photos/2024`` and ``*/a.jpg``; a name that exists is no glob."""
    if not set(place) & set(_MAGIC) or Path(place).exists():
        return place, ""
    parts = place.replace(os.sep, "/").split("/")
    first = next(index for index, part in enumerate(parts) if set(part) & set(_MAGIC))
    start = "/".join(parts[:first])
    return start or ("/" if place.startswith("/") else "."), "/".join(parts[first:])


def _kind(folder: Folder) -> str | None:
    """Whether it is a "file" or a "directory"; ``isfile`` says no where the network fails, too."""
    try:
        kind: str = folder.files.info(folder.path)["type"]
    except FileNotFoundError:
        return None
    return kind


def _opened(place: str) -> Folder:
    with importing("fsspec", f"install it with `{install_command('ray')}`."):
        from fsspec.core import url_to_fs
    try:
        files, path = url_to_fs(place)
    except ImportError as missing:  # fsspec's driver; pyarrow has some of its own
        files, path = _opened_by_pyarrow(place, str(missing))
    except ValueError as error:
        raise DataError(f"{place}: {error}") from None
    return Folder(files, path.rstrip("/"))


def _opened_by_pyarrow(place: str, missing: str) -> tuple[Any, str]:
    import pyarrow
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import FileSystem, S3FileSystem

    scheme, _, path = place.partition("://")
    if scheme in ("s3", "s3a"):
        # Not from_uri, which asks Amazon for the bucket's region whatever the endpoint is.
        named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        endpoint = urlsplit(named or "https://")
        files = S3FileSystem(endpoint_override=endpoint.netloc or None, scheme=endpoint.scheme)
        return ArrowFSWrapper(files), path
    try:
        files, path = FileSystem.from_uri(place)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError):
        raise MissingExtraError(f"{place}: {missing}") from None
    return ArrowFSWrapper(files), path


def _protocols(files: Any) -> set[str]:
    protocol = files.protocol
    return {protocol} if isinstance(protocol, str) else set(protocol)
