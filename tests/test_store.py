"""What commands have finished outlives kills, full disks and other processes."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from u2net_human_plugin.finetune.data.parallel import in_threads
from u2net_human_plugin.finetune.store import Store, StoreError

#: Puts numbered values without end and tells of each one when it is kept.
WRITER = """
import sys
from pathlib import Path
from u2net_human_plugin.finetune.store import Store
store = Store(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    store.put("numbers", f"{sys.argv[2]}{number}", {"of": number, "long": "x" * 3000})
    print(number, flush=True)
"""


def writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a folder ü" / "progress.sqlite"


@pytest.fixture
def store(path: Path):
    path.parent.mkdir()
    with Store(path) as store:
        yield store


def test_what_was_put_is_there_the_next_time(store: Store, path: Path) -> None:
    """The last value of a key, of any kind that JSON has; dictionaries are apart."""
    values = {"text": "schön \udce9", "nothing": None, "list": [1, 2.5, {"a": True}], "": {}}
    for key, value in values.items():
        store.put("one", key, "before")
        store.put("one", key, value)
    store.put("other", "text", 1)
    with Store(path) as again:
        assert again.items("one") == values
        assert again.get("one", "list") == values["list"]
        assert again.get("other", "text") == 1
        assert again.get("other", "list") is None
        again.clear()
        assert again.items("one") == again.items("other") == {}


def test_threads_may_share_it(store: Store) -> None:
    """Nothing is lost."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.put("a", str(number), number), range(400)))
    assert store.items("a") == {str(number): number for number in range(400)}


@pytest.mark.process
def test_processes_may_share_it(store: Store, path: Path) -> None:
    """They wait for each other."""
    writers = [writer(path, name, 100) for name in "abc"]
    for process in writers:
        process.communicate()
        assert process.returncode == 0
    assert len(store.items("numbers")) == 300


@pytest.mark.process
def test_a_killed_process_has_lost_nothing(store: Store, path: Path) -> None:
    """All that :meth:`put` had kept is there, whole, and the file can be written to."""
    for round_ in range(3):
        process = writer(path, f"{round_}-", 10**6)
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(20 + 7 * round_)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().splitlines()
        process.wait()
        found = store.items("numbers")
        assert all(found[f"{round_}-{line.strip()}"]["of"] == int(line) for line in told)
        assert all(len(value["long"]) == 3000 for value in found.values())
    store.put("numbers", "x", 1)


def test_a_full_disk_is_a_sentence_and_loses_nothing(store: Store, path: Path) -> None:
    """It names the file; with more room the store goes on."""
    store.put("a", "kept", 1)
    store._connection.execute("PRAGMA max_page_count = 4")
    with pytest.raises(OSError, match="the disk is full; make room") as caught:
        store.put("a", "large", "x" * 100_000)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(path)
    assert store.items("a") == {"kept": 1}
    store._connection.execute("PRAGMA max_page_count = 1000")
    store.put("a", "large", "x" * 100_000)


@pytest.mark.parametrize("content", [b"no database, but long enough to be one" * 40, b"short"])
def test_a_strange_file_is_named_with_a_remedy(path: Path, content: bytes) -> None:
    """And stays as it is."""
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"progress\.sqlite: file is not a database; .* remove it"):
        Store(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("junk", [b"\xff", b"!"], ids=["no text", "no JSON"])
def test_a_damaged_file_is_named_with_a_remedy(path: Path, junk: bytes) -> None:
    """Whether SQLite notices or what it reads is no value."""
    path.parent.mkdir()
    with Store(path) as store:
        for number in range(200):
            store.put("a", str(number), "x" * 500)
    content = bytearray(path.read_bytes())
    content[4096:] = junk * (len(content) - 4096)
    path.write_bytes(content)
    with Store(path) as store, pytest.raises(StoreError, match=r"progress\.sqlite: .* remove it"):
        store.items("a")
    with Store(path.with_name("other.sqlite")) as store:
        store._connection.execute("INSERT INTO entries VALUES ('a', 'b', CAST(? AS TEXT))", (junk,))
        with pytest.raises(StoreError, match="it is damaged: remove it"):
            store.get("a", "b")


def test_a_folder_that_is_not_there_is_named(path: Path) -> None:
    """With what to look at."""
    with pytest.raises(StoreError, match=r"progress\.sqlite: unable to open .* permissions"):
        Store(path)


def test_work_ends_with_the_store() -> None:
    """The next picture would meet the same error."""
    failed: list[str] = []

    def work(number: int) -> None:
        if number == 2:
            raise ValueError("a bad picture")
        if number == 5:
            raise StoreError("gone")

    with pytest.raises(StoreError, match="gone"):
        in_threads("at work", work, range(10), lambda _, why: failed.append(why), 1, quiet=True)
    assert failed == ["ValueError: a bad picture"]
