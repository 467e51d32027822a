"""python -m finetune benchmark server: rembg's HTTP server with our model, under load.

What somebody wants to know who runs ``rembg s`` for weeks: are the answers right while many
are asked for at once, does memory level off, does every session that the server keeps for a
new ``extras`` string cost anything, and do threads end? All of it on 127.0.0.1.
"""

from __future__ import annotations

import io
import itertools
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from PIL import Image

from u2net_human_plugin.errors import MissingExtraError
from u2net_human_plugin.segmenter import HumanSegmenter
from u2net_human_plugin.weights import MODEL_NAME

from ..files import write_text

if TYPE_CHECKING:
    import httpx

#: Width and height of the pictures, and the format they are sent in.
PICTURES = (
    (96, 96, "PNG"),
    (1280, 720, "JPEG"),
    (320, 240, "PNG"),
    (640, 960, "WEBP"),
    (512, 512, "PNG"),
    (1000, 1500, "JPEG"),
    (1920, 1080, "JPEG"),
    (3000, 2000, "JPEG"),
)
#: A right answer's largest difference from the sequential mask, in levels of 255: threads
#: may change the order in which an accelerator adds.
TOLERANCE = 2
#: Growth of resident memory between a fifth of the load and its end, as a share.
GROWTH = 0.05
#: Growth of resident memory by all sessions for different extras together, in bytes.
EXTRAS_GROWTH = 5_000_000
#: The server's idle worker threads end after ten seconds, when the next request comes.
_IDLE_S = 12
_START_S = 240
_MB = 1e6

# The command itself. register() is for a checkout, where nothing has installed the hook;
# versions differ in whether there is a web page to leave out; no browser is opened.
_SERVER = """
import sys, webbrowser
import u2net_human_plugin
u2net_human_plugin.register()
from rembg.commands.s_command import s_command
webbrowser.open = lambda *_: False
no_page = ["--no-ui"] if any(option.name == "no_ui" for option in s_command.params) else []
s_command(["--host", "127.0.0.1", "--port", sys.argv[1], "--log_level", "warning", *no_page])
"""


@dataclass(frozen=True)
class Question:
    """A picture as it is sent, and the mask that comes back when nothing else is going on."""

    name: str
    content: bytes
    mask: npt.NDArray[np.uint8]


@dataclass
class Server:
    """A running server, how to ask it, and when to stop asking."""

    client: httpx.Client
    process: Any
    """A :class:`psutil.Process`."""
    deadline: float

    def wrong(self, question: Question, extras: Mapping[str, Any] | None = None) -> str | None:
        """Ask; None for the right mask, else what was wrong with the answer.

        Raises:
            TimeoutError: the time for the whole test is over.
        """
        import httpx

        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        try:
            answer = self.client.post(
                "/api/remove",
                data={"model": MODEL_NAME, "om": "true"},
                params={"extras": json.dumps(extras)} if extras else {},
                files={"file": question.content},
                timeout=left,
            )
        except httpx.TimeoutException:
            raise TimeoutError from None
        except httpx.TransportError as error:
            return f"{question.name}: {type(error).__name__}: {error}"
        if answer.status_code != 200:
            return f"{question.name}: status {answer.status_code}: {answer.text[:200]}"
        with Image.open(io.BytesIO(answer.content)) as picture:
            mask = np.asarray(picture.convert("L"), np.int16)
        if mask.shape != question.mask.shape:
            return f"{question.name}: a mask of {mask.shape[1]} x {mask.shape[0]}"
        difference = int(np.abs(mask - question.mask).max())
        return f"{question.name}: differs by {difference}" if difference > TOLERANCE else None

    @property
    def memory(self) -> int:
        """Resident memory in bytes."""
        if not self.process.is_running():
            raise RuntimeError("rembg s has ended")
        return int(self.process.memory_info().rss)


def server(
    clients: Annotated[int, typer.Option(help="requests at a time")] = 16,
    requests: Annotated[int, typer.Option(help="of mixed sizes")] = 500,
    extras: Annotated[int, typer.Option(help="different ones")] = 1000,
    minutes: Annotated[float, typer.Option(help="at most")] = 60,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write the figures to this file as well")
    ] = None,
) -> None:
    """Put rembg's HTTP server under load, on 127.0.0.1; exit with 0 if all is within its limits."""
    try:
        questions = make_questions()
        with running_server(minutes * 60) as running:
            figures = measure(running, questions, clients, requests, extras)
    except TimeoutError:
        sys.exit(f"not finished after {minutes} minutes (--minutes)")
    except RuntimeError as error:
        sys.exit(str(error))
    for line in figures["wrong"][:10]:
        print(f"wrong answer: {line}")
    print(describe(figures))
    if json_file:
        write_text(json_file, json.dumps(figures, indent=1) + "\n")
    missed = objections(figures)
    print("\n".join(f"FAILED: {line}" for line in missed) or "all within the limits")
    if missed:
        raise typer.Exit(1)


def measure(
    server: Server, questions: list[Question], clients: int, requests: int, extras: int
) -> dict[str, Any]:
    """All figures: the extras first, as memory that a load has left free would hide theirs."""
    small = questions[0]
    wrong = [server.wrong(small)]
    threads = server.process.num_threads()
    with ThreadPoolExecutor(clients) as pool:

        def ask(given: Iterable[tuple[Question, dict[str, int] | None]]) -> None:
            wrong.extend(pool.map(lambda one: server.wrong(*one), given))

        ask((small, {"warming up": number}) for number in range(4 * clients))
        # One at a time from here to the figure: how many threads happen to be at work at once
        # decides how much memory the allocator keeps, and that is no cost of a session.
        wrong.extend(server.wrong(small, {"alone": number}) for number in range(clients))
        before = server.memory
        wrong.extend(server.wrong(small, {"number": number}) for number in range(extras))
        extras_growth = server.memory - before

        memory, start = [], time.monotonic()
        in_turn = itertools.cycle(questions)
        for fifth in range(5):
            count = requests * (fifth + 1) // 5 - requests * fifth // 5
            ask((question, None) for question in itertools.islice(in_turn, count))
            memory.append(server.memory)
        seconds = time.monotonic() - start

    time.sleep(_IDLE_S)
    wrong.append(server.wrong(small))
    return {
        "clients": clients,
        "requests": requests,
        "requests_per_second": requests / seconds,
        "wrong": [reason for reason in wrong if reason],
        "memory_after_each_fifth": memory,
        "extras": extras,
        "extras_growth": extras_growth,
        "threads_before": threads,
        "threads_after": server.process.num_threads(),
    }


def describe(figures: Mapping[str, Any]) -> str:
    """The figures in words."""
    memory = figures["memory_after_each_fifth"]
    return "\n".join(
        [
            f"{figures['requests']} requests of mixed sizes from {figures['clients']} clients: "
            f"{figures['requests_per_second']:.1f} a second, {len(figures['wrong'])} wrong answers",
            "memory after each fifth of them: "
            + ", ".join(f"{value / _MB:.0f}" for value in memory)
            + f" MB ({memory[-1] / memory[0] - 1:+.1%} since the first; limit {GROWTH:.0%})",
            f"{figures['extras']} different extras: {figures['extras_growth'] / _MB:+.1f} MB "
            f"(limit {EXTRAS_GROWTH / _MB:.0f} MB)",
            f"threads: {figures['threads_before']} before, {figures['threads_after']} after",
        ]
    )


def objections(figures: Mapping[str, Any]) -> list[str]:
    """What is not as it should be."""
    memory = figures["memory_after_each_fifth"]
    checks = {
        "wrong answers": bool(figures["wrong"]),
        "memory does not level off": memory[-1] > memory[0] * (1 + GROWTH),
        "sessions for different extras cost memory": figures["extras_growth"] > EXTRAS_GROWTH,
        "threads are left behind": figures["threads_after"] > figures["threads_before"],
    }
    return [name for name, failed in checks.items() if failed]


def make_questions() -> list[Question]:
    """A portrait in every size of :data:`PICTURES`, with its mask from this process."""
    try:
        from skimage import data
    except ImportError:
        raise _missing("scikit-image") from None
    astronaut: Any = data.astronaut
    portrait = Image.fromarray(astronaut())
    segmenter = HumanSegmenter()
    questions = []
    for width, height, kind in PICTURES:
        file = io.BytesIO()
        portrait.resize((width, height)).save(file, kind)
        with Image.open(file) as picture:
            mask = np.asarray(segmenter.mask(picture))
        questions.append(Question(f"{width} x {height} {kind}", file.getvalue(), mask))
    return questions


@contextmanager
def running_server(seconds: float) -> Iterator[Server]:
    """A server that answers; it is over when the block is left.

    Raises:
        RuntimeError: it did not start; the message is what it has written.
        MissingExtraError: rembg, or a library to ask or watch it with, is missing.
    """
    try:
        import httpx
        import psutil
    except ImportError as error:
        raise _missing(str(error.name)) from None
    if find_spec("rembg") is None:
        raise _missing("rembg")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w+b") as log:
        command = [sys.executable, "-c", _SERVER, str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - our own code
        # The environment's proxies are for other addresses than this machine's own.
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False)
        try:
            with client:
                deadline = time.monotonic() + seconds
                server = Server(client, psutil.Process(process.pid), deadline)
                if not _comes_up(process, server):
                    log.seek(0)
                    text = log.read().decode(errors="replace")
                    raise RuntimeError(f"rembg s does not answer:\n{text}")
                yield server
        finally:
            process.kill()
            process.wait()


def _comes_up(process: subprocess.Popen[bytes], server: Server) -> bool:
    import httpx

    end = min(time.monotonic() + _START_S, server.deadline)
    while process.poll() is None and time.monotonic() < end:
        try:
            return server.client.get("/openapi.json").status_code == 200
        except httpx.TransportError:  # noqa: PERF203 - a pause is what it is for
            time.sleep(0.2)
    return False


def _missing(name: str) -> MissingExtraError:
    return MissingExtraError(
        f"the stress test needs {name}; install what it takes with "
        '`pip install "u2net-human-plugin[rembg]" httpx psutil`.'
    )
