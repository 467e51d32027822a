"""Files are written in one step."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from u2net_human_plugin.finetune.files import written_atomically


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """An interrupted write is not seen by anyone."""
    file = tmp_path / "file"
    file.write_text("old")

    def fail() -> None:
        with written_atomically(file) as temporary:
            temporary.write_text("half of the new")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_is_said_of_the_file(tmp_path: Path) -> None:
    """The system's error of a write has no name."""

    def fail() -> None:
        with written_atomically(tmp_path / "file"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="the disk is full; make room") as caught:
        fail()
    assert caught.value.filename == str(tmp_path / "file")
