"""The doctor, run on real installations, sound and broken ones."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy
import PIL
import pytest

import u2net_human_plugin


def findings(done):
    """The report of ``doctor --json`` as {name: (state, text)}, and whether all is well."""
    report = json.loads(done.stdout)
    return {f["name"]: (f["state"], f["text"]) for f in report["findings"]}, report["ok"]


def test_nothing_wrong(launch):
    """After installation the doctor finds hook, hosts, weights and provider in order: exit 0."""
    done = launch("-m", "u2net_human_plugin", "doctor")
    assert "Nothing wrong." in done.stdout
    assert len(done.stdout.splitlines()) <= 24
    lines = {line.split()[1]: line for line in done.stdout.splitlines() if line.strip()}
    assert "registered" in lines["rembg"]
    assert "active" in lines["start-up"]
    assert "bundled" in lines["weights"]
    assert "matches" in lines["weights"]
    assert "in use: " in lines["onnxruntime"]


@pytest.fixture
def broken_onnxruntime(tmp_path):
    """An onnxruntime that cannot be imported; rembg ends the interpreter then."""
    folder = tmp_path / "broken"
    folder.joinpath("onnxruntime").mkdir(parents=True)
    folder.joinpath("onnxruntime", "__init__.py").write_text("raise ImportError('no libcudart')")
    return folder


def test_everything_wrong(launch, broken_onnxruntime, tmp_path):
    """Switched off, without onnxruntime, with damaged weights: each is named, and exit 1."""
    weights = tmp_path / "gone.onnx"
    environment = {
        "PYTHONPATH": str(broken_onnxruntime),
        "U2NET_HUMAN_PLUGIN": "off",
        "U2NET_HUMAN_WEIGHTS": str(weights),
    }
    done = launch("-m", "u2net_human_plugin", "doctor", "--json", env=environment, check=False)
    found, well = findings(done)
    assert done.returncode == 1
    assert not well
    expected = {
        "start-up hook": "U2NET_HUMAN_PLUGIN",
        "rembg": "cannot be imported",
        "weights": str(weights),
        "onnxruntime": "not installed",
    }
    for name, text in expected.items():
        assert found[name][0] == "wrong", name
        assert text in found[name][1]


def test_without_hosts_and_hook(new_environment, clean_environment, tmp_path):
    """Unpacked into a folder, without a .pth and without hosts: it says both, and exits 1."""
    for package in (numpy, PIL, u2net_human_plugin):
        source = Path(package.__file__).parent
        tmp_path.joinpath(source.name).symlink_to(source)
    libraries = Path(numpy.__file__).parent.with_name("numpy.libs")
    if libraries.exists():
        tmp_path.joinpath("numpy.libs").symlink_to(libraries)
    python = new_environment()
    for borrowed in python.parent.parent.rglob("borrowed_packages.pth"):
        borrowed.unlink()
    done = subprocess.run(
        [python, "-m", "u2net_human_plugin", "doctor", "--json"],
        env=clean_environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found, well = findings(done)
    assert (done.returncode, well) == (1, False)
    assert "no u2net_human_plugin." in found["start-up hook"][1]
    assert found["rembg"] == ("note", "not installed")
    assert found["hosts"][0] == "note"
    assert found["onnxruntime"][0] == "note"
