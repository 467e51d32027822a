"""The doctor, run on real installations, sound and broken ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy
import PIL
import pytest
from places import bundled_size

import u2net_human_plugin
from u2net_human_plugin import doctor, speed, weights


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
    assert f"size {bundled_size()}, haze" in lines["settings"]
    assert "in use: " in lines["onnxruntime"]
    assert " s for 1 megapixel in one look, " in lines["speed"]


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
        "U2NET_HUMAN_PERSON": "largest",
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
    report = json.loads(done.stdout)["findings"]
    options = [f["text"] for f in report if (f["name"], f["state"]) == ("options", "wrong")]
    assert options[1] == "U2NET_HUMAN_PERSON is no setting; did you mean U2NET_HUMAN_PERSONS?"
    del expected["options"]
    assert "U2NET_HUMAN_CROP='yollo'" in options[0]
    for name, text in expected.items():
        assert found[name][0] == "wrong", name
        assert text in found[name][1]


def test_a_wrong_option_alone(launch):
    """It is the one thing that is wrong; whatever else there is to say is said."""
    environment = {"U2NET_HUMAN_PERSONS": "largst"}
    done = launch("-m", "u2net_human_plugin", "doctor", "--json", env=environment, check=False)
    found, _ = findings(done)
    assert done.returncode == 1
    assert found["options"][0] == "wrong"
    assert found["speed"][0] != "wrong"


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


def test_a_file_that_is_no_network_is_wrong_in_the_line_on_weights(launch, tmp_path):
    """A photo by mistake: the line on weights says so, and the one on onnxruntime is no error."""
    photo = tmp_path / "photo.jpg"
    PIL.Image.new("RGB", (8, 8)).save(photo)
    env = {"U2NET_HUMAN_WEIGHTS": str(photo)}
    done = launch("-m", "u2net_human_plugin", "doctor", "--json", env=env, check=False)
    found, well = findings(done)
    assert (done.returncode, well) == (1, False)
    assert found["weights"][0] == "wrong"
    assert f"{photo}: onnxruntime cannot load it" in found["weights"][1]
    assert found["onnxruntime"][0] == "note"
    assert "speed" not in found


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX pipe")
def test_a_reader_that_has_read_enough(installed_python, clean_environment, tmp_path):
    """`doctor | head -1` ends without a traceback, and with the doctor's own verdict."""
    child = subprocess.Popen(
        [installed_python, "-m", "u2net_human_plugin", "doctor"],
        env=clean_environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    child.stdout.close()
    assert child.stderr.read() == b""
    assert child.wait(300) == 0


def test_without_a_command_and_the_version(launch):
    """Help and exit status 0; the version by the package's name."""
    assert launch("-m", "u2net_human_plugin").stdout.startswith(
        "usage: python -m u2net_human_plugin"
    )
    said = launch("-m", "u2net_human_plugin", "--version").stdout
    assert said == f"u2net-human-plugin {u2net_human_plugin.__version__}\n"


class TestSpeed:
    """The line on speed; what is idle is said with its remedy."""

    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch):
        """Eight cores on which eight threads work, no GPU."""
        self.threads, self.load = 8.0, 0.0
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr(speed, "measured", lambda _: (0.25, self.threads))
        monkeypatch.setattr(speed, "usable_cores", lambda: 8)
        monkeypatch.setattr(speed, "idle_gpu", lambda: None)
        monkeypatch.setattr(speed, "_load", lambda: self.load)

    def test_nothing_idle(self):
        text = "0.25 s for 1 megapixel in one look, 8.0 threads at work on 8 cores"
        assert speed.finding(speed.CPU, speed.CPU) == ("ok", text)

    @pytest.mark.parametrize(
        ("named", "load", "reason"),
        [
            ("1", 0.0, "OMP_NUM_THREADS=1 allows rembg no more"),
            ("", 0.0, "withheld"),
            ("", 20.0, "other programs"),
            ("many", 0.0, "withheld"),
        ],
    )
    def test_idle_cores(self, monkeypatch, named, load, reason):
        monkeypatch.setenv("OMP_NUM_THREADS", named)
        self.threads, self.load = 1.0, load
        state, text = speed.finding(speed.CPU, speed.CPU)
        assert state == "note"
        assert reason in text

    def test_idle_gpu(self, monkeypatch):
        """Only if this onnxruntime is not made for one; a failing one has its own line."""
        monkeypatch.setattr(speed, "idle_gpu", lambda: "NVIDIA T4")
        state, text = speed.finding(speed.CPU, speed.CPU)
        assert state == "note"
        assert (
            "NVIDIA T4 lies idle: uninstall onnxruntime, then pip install onnxruntime-gpu" in text
        )
        assert speed.finding(speed.CPU, "CUDAExecutionProvider")[0] == "ok"

    def test_on_a_gpu_cores_are_not_counted(self):
        self.threads = 0.5
        name = "CUDAExecutionProvider"
        assert speed.finding(name, name) == ("ok", "0.25 s for 1 megapixel in one look")


def test_threads_that_are_busy():
    """Sleep is no work, and one busy thread is at most one."""
    seconds, threads = speed.measured(lambda: time.sleep(0.05))
    assert seconds >= 0.05
    assert threads < 0.5
    assert 0 < speed.measured(lambda: sum(range(10**6)))[1] < 1.2


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
@pytest.mark.parametrize(
    ("script", "name"),
    [("echo NVIDIA T4; echo NVIDIA T4", "NVIDIA T4"), ("echo no driver; exit 9", None), ("", None)],
)
def test_the_driver_is_asked_for_a_gpu(script, name, tmp_path, monkeypatch):
    """By nvidia-smi: the first one's name, and none where it fails or finds none."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert speed.idle_gpu() == name
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert speed.idle_gpu() is None


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
