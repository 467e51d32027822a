"""A real ``rembg s`` on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BOUNDARY = "u2net-human-boundary"

# Versions differ in whether the web page can be left out.
_SERVER = """
import sys
from rembg.commands.s_command import s_command
no_page = ["--no-ui"] if any(option.name == "no_ui" for option in s_command.params) else []
s_command([*sys.argv[1:], *no_page])
"""


@dataclass
class Server:
    """Where it listens, and what it has written to stdout and stderr."""

    address: str
    log: Path
    process: subprocess.Popen[bytes]

    def remove(
        self, picture: bytes, extras: object = None, *, filename: str = "in.png", **query: str
    ) -> tuple[int, bytes]:
        """POST a picture to /api/remove; gives the answer's status and body."""
        given = {"extras": json.dumps(extras)} if extras is not None else {}
        fields = urllib.parse.urlencode({"model": "u2net_human_ft", **given, **query})
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; '
        model = (
            f'\r\n--{_BOUNDARY}\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
            f"u2net_human_ft\r\n--{_BOUNDARY}--\r\n"
        )
        body = f'{head}filename="{filename}"\r\n\r\n'.encode() + picture + model.encode()
        request = urllib.request.Request(  # noqa: S310 - our own server's address
            f"{self.address}/api/remove?{fields}",
            body,
            {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - as above
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


@contextmanager
def running_server(python: Path, environment: Mapping[str, str], folder: Path) -> Iterator[Server]:
    """Start ``rembg s`` in ``folder``; it is over when the block is left."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "server.log"
    rembg_s = ("-c", _SERVER, "--host", "127.0.0.1", "--port", str(port))
    with log.open("wb") as stream:
        options: dict[str, Any] = {"cwd": folder, "env": dict(environment)}
        process = subprocess.Popen(
            [python, *rembg_s], stdout=stream, stderr=subprocess.STDOUT, **options
        )
    server = Server(f"http://127.0.0.1:{port}", log, process)
    try:
        _wait_for(server)
        yield server
    finally:
        process.terminate()
        process.wait(60)


def _wait_for(server: Server, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not _answers(server):
        if server.process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"rembg s did not start:\n{server.log.read_text()}")
        time.sleep(0.3)


def _answers(server: Server) -> bool:
    try:
        urllib.request.urlopen(f"{server.address}/openapi.json", timeout=5).close()  # noqa: S310 - our own server's address
    except OSError:
        return False
    return True
