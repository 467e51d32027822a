"""What strangers send chooses nothing: no file, no module, no address; and no code runs.

``test_rembg_server.py`` asks a running server the same; here the process itself keeps the
record, so that everything it does counts, and not what a test thought of.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bad_input import picture

AUDIT = Path(__file__).parent / "audit"
Launch = Callable[..., "subprocess.CompletedProcess[Any]"]

NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.send")
CHILDREN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork")


def events(log: Path) -> list[str]:
    return log.read_text().splitlines()


HOSTILE = """
import json, sys
import rembg
from rembg.sessions import sessions_names
from PIL import Image

trap, log = sys.argv[1:]
picture = Image.open("in.png").convert("RGB")

def cut_out(extras, look=True):
    try:
        session = rembg.new_session("u2net_human_ft", **extras)
        if look:
            session.predict(picture, **extras)
    except (TypeError, ValueError):  # rembg's own for a name given twice, and ours
        return False
    return True

benign = [{}, {"crop": "self"}, {"crop": "self", "persons": "largest", "refine": "on"}, {"a": 1}]
benign += [{"crop": "no"}, {"crops": 1}, {"weights": 1}, {"sess_opts": 1}, {"providers": 1}]
for extras in benign * 2:
    cut_out(extras)
print("MARK", file=open(log, "a"))

ours = '''weights model_path checkpoint ckpt detector network crop persons max_persons min_person
    refine providers sess_opts'''.split()
others = '''path file url model onnx yolo yolo_weights provider_options session image data home
    u2net_home model_dir fname output out log profile_file_prefix import module plugin __class__
    __init__ args kwargs options environment U2NET_HUMAN_WEIGHTS U2NET_HUMAN_YOLO_WEIGHTS'''.split()
values = [trap, "file://" + trap, "http://127.0.0.1:9/trap.pt", "os:system", "__import__('os')",
          [trap], {"path": trap}, ["CPUExecutionProvider", {"path": trap}],
          [["CUDAExecutionProvider", {"path": trap}]], 10**400, float("nan"), {"": [[[[]]]]}]
ended = [cut_out({name: value}) for name in ours for value in values]
ended += [cut_out({name: value}, look=False) for name in others for value in values]
ended += [cut_out(dict.fromkeys(others, value)) for value in values]
ended += [cut_out({"k" * 10**6: 1, "crop" * 10**5: 1})]
ended += [cut_out({f"crop{n}": n for n in range(100, 1000)})]
print(len(ended), sum(ended))
"""


def test_extras_do_nothing_that_other_extras_do_not(launch: Launch, tmp_path: Path) -> None:
    """Hundreds of hostile extras in rembg: no event that harmless ones did not cause, too.

    Opened files, imports, sockets, child processes, compiled code, loaded libraries.
    """
    pytest.importorskip("rembg")
    picture().save(tmp_path / "in.png")
    trap, log = tmp_path / "trap.pt", tmp_path / "audit"
    trap.write_bytes(pickle.dumps(_CreatesFile(tmp_path / "created")))
    env = {"PYTHONPATH": str(AUDIT), "AUDIT_LOG": str(log)}
    done = launch("-c", HOSTILE, trap, log, env=env)
    tried, obeyed = map(int, done.stdout.split())
    assert tried > 400
    assert 100 < obeyed < tried - 100  # most are names that rembg may have for itself
    before, after = log.read_text().split("MARK\n")
    assert "u2net_human_ft" in before
    assert set(after.splitlines()) <= set(before.splitlines())
    assert not (tmp_path / "created").exists()


class _CreatesFile:
    """Pickled, a call of ``Path.touch`` at load time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.process
@pytest.mark.parametrize("way", ["init", "resume", "export", "evaluate"])
def test_the_trainer_runs_no_code_from_a_checkpoint(way: str, tmp_path: Path) -> None:
    """A pickle that would create a file, wherever the trainer takes weights: refused, named."""
    pytest.importorskip("torch")
    pytest.importorskip("typer")

    created, out = tmp_path / "created", tmp_path / "out"
    for name in ("one", "two"):
        picture().save(tmp_path / f"{name}.png")
        picture("L").save(tmp_path / f"{name}-mask.png")
    rows = [
        {"image": f"{name}.png", "mask": f"{name}-mask.png", "source": "s", "split": split,
         "licence": "CC0-1.0"}
        for name, split in (("one", "train"), ("two", "test"))
    ]  # fmt: skip
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out.mkdir()
    evil = out / "last.pt" if way == "resume" else tmp_path / "evil.pth"
    trap = {"model": _CreatesFile(created), "ema": 1, "optimizer": 1, "step": 1}
    evil.write_bytes(pickle.dumps(trap))

    train = ["train", "--manifest", manifest, "--out", out, "--epochs", "1", "--size", "64"]
    arguments = {
        "init": [*train, "--init", evil],
        "resume": [*train, "--resume"],
        "export": ["export", evil, "--out", out, "--force"],
        "evaluate": ["evaluate", "--manifest", manifest, "--after", evil, "--out", out],
    }[way]
    command = [sys.executable, "-m", "u2net_human_plugin.finetune", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert evil.name in "".join(said.split()), said
    assert not created.exists()
    pickle.loads(evil.read_bytes())  # noqa: S301 - the trap does work
    assert created.exists()


def test_no_weights_of_the_environment_run_code(launch: Launch, tmp_path: Path) -> None:
    """U2NET_HUMAN_WEIGHTS naming such a pickle: both runtimes refuse it."""
    pytest.importorskip("torch")
    created, evil = tmp_path / "created", tmp_path / "evil.pth"
    evil.write_bytes(pickle.dumps({"model": _CreatesFile(created)}))
    code = """
from u2net_human_plugin import HumanSegmenter
from u2net_human_plugin.device import network_for
from u2net_human_plugin.errors import WeightsError
for load in (HumanSegmenter, lambda: network_for(None, "cpu", True)):
    try:
        load()
    except WeightsError as error:
        print("evil.pth" in str(error))
"""
    done = launch("-c", code, env={"U2NET_HUMAN_WEIGHTS": str(evil)})
    assert done.stdout.split() == ["True", "True"]
    assert not created.exists()


DEFAULT_PATH = """
import importlib.util, sys
from PIL import Image
from u2net_human_plugin import HumanSegmenter, Options
picture = Image.open("in.png").convert("RGB")
HumanSegmenter().mask(picture)
HumanSegmenter(options=Options(crop="self", persons="largest", refine="on")).mask(picture)
for host in sys.argv[1:]:
    if host == "rembg":
        import rembg
        rembg.remove(picture, session=rembg.new_session("u2net_human_ft"))
    if host == "transparent_background":
        import transparent_background
        transparent_background.Remover("u2net_human_ft").process(picture)
    if host == "ultralytics":
        HumanSegmenter(options=Options(crop="yolo")).mask(picture)
print("done")
"""


@pytest.mark.parametrize("host", ["rembg", "transparent_background", "ultralytics"])
def test_nothing_is_sent_or_fetched(
    host: str, request: pytest.FixtureRequest, launch: Launch, tmp_path: Path
) -> None:
    """From import to cut-out: no name looked up, no connection, no child process.

    With the network forbidden, everything works. For ultralytics, which has statistics and
    a check for new versions of its own, with weights that lie on the disk.
    """
    pytest.importorskip(host)
    picture().save(tmp_path / "in.png")
    log = tmp_path / "audit"
    env = {"PYTHONPATH": str(AUDIT), "AUDIT_LOG": str(log), "AUDIT_OFFLINE": "1"}
    if host == "ultralytics":
        weights = request.getfixturevalue("shared") / "weights" / "yolov8n.pt"
        env["U2NET_HUMAN_YOLO_WEIGHTS"] = str(weights)
    done = launch("-c", DEFAULT_PATH, host, env=env)
    assert done.stdout.endswith("done\n")
    happened = events(log)
    assert any(line.startswith("open\t") and ".onnx" in line for line in happened)
    assert [line for line in happened if line.startswith(NETWORK)] == []
    children = [line for line in happened if line.startswith(CHILDREN)]
    # How Python's ctypes finds a library.
    assert [line for line in children if "/sbin/ldconfig" not in line] == []


def test_the_record_shows_what_it_should(launch: Launch, tmp_path: Path) -> None:
    """The audit of this module sees connections, look-ups and child processes, and forbids."""
    log = tmp_path / "audit"
    code = """
import os, socket, subprocess, sys
for attempt in (lambda: socket.create_connection(("127.0.0.1", 9)),
                lambda: socket.socket().connect(("127.0.0.1", 9))):
    try:
        attempt()
    except OSError as error:
        print(str(error).startswith("offline"))
subprocess.run([sys.executable, "-S", "-c", ""])
"""
    env = {"PYTHONPATH": str(AUDIT), "AUDIT_LOG": str(log), "AUDIT_OFFLINE": "1"}
    assert launch("-c", code, env=env).stdout.split() == ["True", "True"]
    happened = events(log)
    for kind in ("socket.getaddrinfo", "socket.connect", "subprocess.Popen"):
        assert any(line.startswith(kind) for line in happened), kind
