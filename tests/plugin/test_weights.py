"""Which weights file is used, and that a damaged one is noticed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from u2net_human_plugin.errors import WeightsError
from u2net_human_plugin.weights import (
    ENVIRONMENT_VARIABLE,
    WeightsFile,
    bundled,
    find_weights,
    model_directory_files,
)

VARIABLES = (ENVIRONMENT_VARIABLE, "U2NET_HOME", "REMBG_HOME", "XDG_DATA_HOME")


@pytest.fixture(autouse=True)
def bare_home(monkeypatch, tmp_path):
    """A home of its own, and none of the variables that choose a file."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


def test_order(bare_home, monkeypatch):
    """In code beats the variable beats rembg's model directory beats the bundled file."""
    assert find_weights().origin == "bundled"

    old = bare_home / ".u2net" / "u2net_human_ft.onnx"
    old.parent.mkdir()
    old.touch()
    assert find_weights() == WeightsFile(old, "model directory")

    new = bare_home / ".rembg" / "models" / "u2net_human_ft" / "u2net_human_ft.onnx"
    new.parent.mkdir(parents=True)
    new.touch()
    assert find_weights() == WeightsFile(new, "model directory")

    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "~/mine.onnx")
    assert find_weights() == WeightsFile(bare_home / "mine.onnx", "environment")

    assert find_weights("~/given.onnx") == WeightsFile(bare_home / "given.onnx", "given")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"U2NET_HOME": "/weights/u2net"},
        {"REMBG_HOME": "/weights/rembg"},
        {"XDG_DATA_HOME": "/weights/xdg"},
        {"XDG_DATA_HOME": "/weights/xdg", "REMBG_HOME": "/weights/rembg"},
        {"U2NET_HOME": "~/u2net", "REMBG_HOME": "/weights/rembg"},
    ],
)
def test_model_directories_are_rembgs_own(environment, monkeypatch):
    """Where rembg would look for this model's file, we look too, and in no other place."""
    base = pytest.importorskip("rembg.sessions.base").BaseSession

    class Named(base):
        @classmethod
        def name(cls):
            return "u2net_human_ft"

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = [os.fspath(file.parent) for file in model_directory_files()]
    if hasattr(Named, "model_dir"):
        assert found == [Named.model_dir(), Named.legacy_home()]
    else:  # an older rembg has one directory for all models
        assert found[1] == Named.u2net_home()


def test_the_bundled_file_is_intact():
    """It matches the checksum that was recorded when it was made."""
    assert len(bundled().read()) > 1_000_000


def test_damage_is_noticed(tmp_path):
    """One changed byte in a bundled file is an error that says how to repair it."""
    copy = tmp_path / "u2net_human_ft.onnx"
    shutil.copy(bundled().path, copy)
    content = bytearray(copy.read_bytes())
    content[1000] ^= 1
    copy.write_bytes(content)
    damaged = WeightsFile(copy, "bundled", bundled().sha256)
    with pytest.raises(WeightsError, match=r"u2net_human_ft\.onnx: damaged.*force-reinstall"):
        damaged.read()


def test_a_named_file_that_does_not_exist(monkeypatch, tmp_path):
    """A wrong path in the variable is an error that names both; nothing else is tried."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "gone.onnx"))
    with pytest.raises(WeightsError, match=rf"gone\.onnx.*unset {ENVIRONMENT_VARIABLE}"):
        find_weights().read()


def test_own_files_have_no_checksum(tmp_path):
    """A user's own file is read as it is."""
    own = tmp_path / "own.onnx"
    own.write_bytes(b"anything")
    assert find_weights(own).read() == b"anything"


@pytest.mark.process
@pytest.mark.skipif(os.name == "nt", reason="homes are found by POSIX rules")
@pytest.mark.parametrize("home", ["unknown", "closed"])
def test_without_a_usable_home_the_bundled_file_is_taken(home, tmp_path):
    """As in a container with a random user id, or a service that gave up root's rights."""
    closed = tmp_path / "closed"
    code = f"""
import os
from u2net_human_plugin import weights, doctor
for name in ("HOME", "U2NET_HOME", "REMBG_HOME", "XDG_DATA_HOME"):
    os.environ.pop(name, None)
if {home!r} == "closed":
    os.environ["HOME"] = {str(closed)!r}
    stat = os.stat
    def closed_to_us(path, **options):
        if str(path).startswith({str(closed)!r}):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)
    os.stat = closed_to_us
else:
    import pwd
    def nobody(number):
        raise KeyError(number)
    pwd.getpwuid = nobody
print(weights.find_weights().origin, doctor._weights().state)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["bundled", "ok"], done.stderr
