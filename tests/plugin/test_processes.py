"""Sessions made in one process and used in others: forked, spawned, and sent by pickle."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Launch = Callable[..., "subprocess.CompletedProcess[Any]"]

#: A worker ends with an alarm, hence an error, if it hangs.
WORK = """
import gc, multiprocessing, os, pickle, signal, sys, threading
import numpy as np
from PIL import Image
from u2net_human_plugin import HumanSegmenter, network
from u2net_human_plugin.weights import bundled

picture = Image.linear_gradient("L").resize((120, 90)).convert("RGB")

def work(session):
    if hasattr(signal, "alarm"):
        signal.alarm(120)
    if hasattr(session, "predict"):
        return session.predict(picture)[0].tobytes()
    return session.mask(picture).tobytes()

def in_child(call):
    number = os.fork()
    if number == 0:
        signal.alarm(120)
        os._exit(0 if call() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
"""


def run(launch: Launch, folder: Path, code: str) -> list[str]:
    """``code`` as a script, as spawned workers need it; what it printed, word by word."""
    script = folder / "script.py"
    script.write_text(WORK + "\nif __name__ == '__main__':\n    " + code.replace("\n", "\n    "))
    output: str = launch(script).stdout
    return output.split()


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")


@needs_fork
def test_a_session_in_forked_children(launch: Launch, tmp_path: Path) -> None:
    """As of a server that loads before it forks: inherited, or sent to a pool.

    Right answers, also when another thread held our lock at the fork, and when the child
    lets go of the session.
    """
    code = """
from rembg import new_session
session = new_session("u2net_human_ft")
expected = work(session)

def inherited():
    return work(session) == expected and session.inner_session is not None

def dropped():
    network._networks.clear()
    del globals()["session"]
    gc.collect()
    return work(HumanSegmenter()) == expected

print(in_child(inherited))
with network._lock:
    print(in_child(inherited))
print(in_child(dropped))
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(*{answer == expected for answer in pool.map(work, [session] * 3)})
"""
    assert run(launch, tmp_path, code) == ["0", "0", "0", "True"]


def test_sessions_in_spawned_children(launch: Launch, tmp_path: Path) -> None:
    """A rembg session, with its options, and a segmenter, arrive there and answer the same."""
    code = """
from rembg import new_session
from u2net_human_plugin import Options
session = new_session("u2net_human_ft", persons="largest")
segmenter = HumanSegmenter(options=Options(persons="largest"))
copy = pickle.loads(pickle.dumps(session))
print(copy._segmenter.options == segmenter.options, copy.inner_session is session.inner_session)
with multiprocessing.get_context("spawn").Pool(1) as pool:
    answers = pool.map(work, [session, segmenter])
print(answers == [work(session), work(segmenter)])
"""
    assert run(launch, tmp_path, code) == ["True", "True", "True"]


@needs_fork
def test_torch_in_forked_children(launch: Launch, tmp_path: Path) -> None:
    """Torch's threads stayed in the parent; in the child it has one and does not wait."""
    code = """
from u2net_human_plugin.network import load_torch
segmenter = HumanSegmenter(network=load_torch(bundled()))
expected = work(segmenter)
print(in_child(lambda: work(segmenter) == expected))
print(pickle.loads(pickle.dumps(segmenter)).network is segmenter.network)
"""
    assert run(launch, tmp_path, code) == ["0", "True"]
