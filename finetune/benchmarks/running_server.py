"""rembg's HTTP server as a process of its own, and requests whose answers are known."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from u2net_human_plugin.errors import MissingExtraError, install_command
from u2net_human_plugin.segmenter import HumanSegmenter
from u2net_human_plugin.weights import MODEL_NAME

if TYPE_CHECKING:
    import httpx

#: Width and height of the pictures in pixels, and the format in which they are sent.
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
#: How far a right answer may be from the mask of this process, in levels of 255: threads may
#: change the order in which an accelerator adds.
TOLERANCE = 2
#: Seconds in which the server must start.
_START_S = 240

# The command `rembg s`, without its web page if this version of rembg has one, and without opening
# a browser. register() is for a checkout that is not installed and has no start-up hook.
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
    """A picture as it is sent, and the right answer."""

    #: Size and format, for messages.
    name: str
    #: The picture's file.
    content: bytes
    #: (H,W), 0…255.
    mask: npt.NDArray[np.uint8]


@dataclass
class Server:
    """A running server."""

    client: httpx.Client
    #: A :class:`psutil.Process`.
    process: Any
    #: The value of :func:`time.monotonic` at which no more requests are sent.
    deadline: float

    def wrong(self, question: Question, extras: Mapping[str, Any] | None = None) -> str | None:
        """Send a request; return what is wrong with the answer, or None.

        Raises:
            TimeoutError: the time for the whole benchmark is over.
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
        """Resident memory of the server, in bytes.

        Raises:
            RuntimeError: the server has ended.
        """
        if not self.process.is_running():
            raise RuntimeError("rembg s has ended")
        return int(self.process.memory_info().rss)


def make_questions() -> list[Question]:
    """A portrait in every size of :data:`PICTURES`, with the mask that this process makes.

    Raises:
        MissingExtraError: scikit-image, which brings the portrait, is not installed.
    """
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
    """Start a server and yield it once it answers; end it with the block.

    Args:
        seconds: the time for the whole benchmark.

    Raises:
        RuntimeError: the server did not start; the message has what it wrote.
        MissingExtraError: rembg, httpx or psutil is not installed.
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
        # Proxies that the environment names are not for this machine's own address.
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
        except httpx.TransportError:  # noqa: PERF203 - the loop is there to wait
            time.sleep(0.2)
    return False


def _missing(name: str) -> MissingExtraError:
    return MissingExtraError(
        f"`benchmark server` needs {name}; install all that it needs with "
        f"`{install_command('rembg')} httpx psutil`."
    )
