"""What goes wrong around a running program: weights that are cut, swapped or replaced, no home."""

from __future__ import annotations

import gc
import random
import shutil
import subprocess
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import LITE, bundled_size

from u2net_human_plugin.errors import WeightsError
from u2net_human_plugin.finetune.files import written_atomically
from u2net_human_plugin.network import load_onnx
from u2net_human_plugin.weights import WeightsFile, bundled

Launch = Callable[..., "subprocess.CompletedProcess[Any]"]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's own weights file, whose checksum nobody knows."""
    return Path(shutil.copy(bundled().path, tmp_path / "own.onnx"))


def test_truncated_weights(own: Path) -> None:
    """Cut anywhere, the file is refused with its name; nothing of it is ever used."""
    content = own.read_bytes()
    rng = random.Random(6)
    for length in [0, 1, len(content) - 1, *(rng.randrange(len(content)) for _ in range(12))]:
        own.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"own\.onnx"):
            load_onnx(WeightsFile(own, "given"))


def test_weights_that_are_something_else(own: Path) -> None:
    """A checkpoint, or a folder, under the name of an ONNX file."""
    shutil.copy(LITE, own)
    with pytest.raises(WeightsError, match=r"own\.onnx: onnxruntime cannot load it"):
        load_onnx(WeightsFile(own, "given"))
    own.unlink()
    own.mkdir()
    with pytest.raises(WeightsError, match=r"own\.onnx: cannot be read"):
        load_onnx(WeightsFile(own, "given"))


def test_weights_replaced_while_running(own: Path) -> None:
    """Who has the old network keeps it; who asks anew gets the new one; then the old is freed."""
    weights = WeightsFile(own, "given")
    batch = np.zeros((1, 3, bundled_size(), bundled_size()), np.float32)
    old = load_onnx(weights)
    before = old(batch)
    content = own.read_bytes()
    own.write_bytes(content[:1000])  # somebody copies a new file over it, slowly
    with pytest.raises(WeightsError):
        load_onnx(weights)
    np.testing.assert_array_equal(old(batch), before)
    own.write_bytes(content)
    new = load_onnx(weights)
    assert new is not old
    assert load_onnx(weights) is new
    gone = weakref.ref(old)
    del old
    gc.collect()
    assert gone() is None


def test_a_home_that_cannot_be_written(launch: Launch) -> None:
    """The model runs with a home in which nothing can be made, and tries to make nothing."""
    code = """
from PIL import Image
from u2net_human_plugin import HumanSegmenter
print(HumanSegmenter().mask(Image.new("RGB", (20, 30))).size)
"""
    nowhere = {"HOME": "/dev/null/home", "USERPROFILE": "/dev/null/home"}
    done = launch("-c", code, env=nowhere)
    assert (done.stdout, done.stderr) == ("(20, 30)\n", "")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """A write that the system refuses leaves what was there, and no temporary file."""
    resource = pytest.importorskip("resource")
    target = tmp_path / "weights.bin"
    target.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(OSError), written_atomically(target) as temporary:  # noqa: PT011 - EFBIG
            temporary.write_bytes(bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
