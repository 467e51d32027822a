"""The doctor, run on real installations, sound and broken ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import PIL
import pytest

import u2net_human_plugin
from u2net_human_plugin import doctor, weights


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
    """Switched off, onnxruntime broken, weights gone, a wrong option: all named, and exit 1."""
    gone = tmp_path / "gone.onnx"
    environment = {
        "PYTHONPATH": str(broken_onnxruntime),
        "U2NET_HUMAN_PLUGIN": "off",
        "U2NET_HUMAN_WEIGHTS": str(gone),
        "U2NET_HUMAN_CROP": "yollo",
    }
    done = launch("-m", "u2net_human_plugin", "doctor", "--json", env=environment, check=False)
    found, well = findings(done)
    assert done.returncode == 1
    assert not well
    expected = {
        "start-up hook": "U2NET_HUMAN_PLUGIN",
        "rembg": "cannot be imported",
        "options": "U2NET_HUMAN_CROP='yollo'",
        "weights": str(gone),
        "onnxruntime": "cannot be imported: no libcudart",
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


def options_of(launch, code="", **variables):
    """The findings about options in an environment that has these variables."""
    code += """
from u2net_human_plugin import doctor
for finding in (doctor._options(), *doctor._yolo()):
    print(finding.state, finding.text)
"""
    env = {f"U2NET_HUMAN_{name}": value for name, value in variables.items()}
    return launch("-c", code, env=env).stdout


def test_options_in_the_environment(launch):
    """Those in force are shown; a value with which every session fails is wrong."""
    assert options_of(launch) == "ok the defaults\n"
    chosen = options_of(launch, PERSONS="largest", MAX_PERSONS="2")
    assert chosen == "ok from the environment: persons=largest, max_persons=2\n"
    assert options_of(launch, MIN_PERSON="5").startswith("wrong U2NET_HUMAN_MIN_PERSON='5'")


def test_yolo_asked_for_by_the_environment(launch):
    """Wrong without ultralytics, and with a file that is not there; else it says which file."""
    absent = options_of(launch, "import sys; sys.modules['ultralytics'] = None", CROP="yolo")
    assert "\nwrong ultralytics is not installed" in absent
    pytest.importorskip("ultralytics")
    gone = options_of(launch, CROP="yolo", YOLO_WEIGHTS="gone.pt")
    assert "\nwrong gone.pt: no such file" in gone
    assert "yolov8n.pt is downloaded when" in options_of(launch, CROP="yolo")


def test_damaged_weights(tmp_path, monkeypatch):
    """A bundled file that is not what was shipped is wrong, and named."""
    folder = shutil.copytree(weights._BUNDLED, tmp_path / "weights")
    monkeypatch.setattr(weights, "_BUNDLED", folder)
    assert doctor._weights().state == "ok"
    weights.bundled().path.write_bytes(b"damaged")
    finding = doctor._weights()
    assert finding.state == "wrong"
    assert ".onnx: damaged" in finding.text


def test_a_broken_onnxruntime_is_wrong_without_rembg_too(broken_onnxruntime, monkeypatch):
    """Where nothing needs it a missing one is a note, but nobody installs a broken one."""
    monkeypatch.setattr(doctor, "_version", {}.get)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(broken_onnxruntime)
    (finding,) = doctor._onnxruntime()
    assert (finding.name, finding.state) == ("onnxruntime", "wrong")
    assert "cannot be imported: no libcudart" in finding.text
