"""With this folder on PYTHONPATH, a process writes what it does to the file AUDIT_LOG.

One line for each opened file, import, socket, child process …: the audit event's name, a
tab, its arguments. With AUDIT_OFFLINE set, looking up a name or connecting is an error.
"""

import os
import sys

_LOG = os.environ.get("AUDIT_LOG")
_OFFLINE = "AUDIT_OFFLINE" in os.environ
_NETWORK = (
    "socket.connect",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.sendto",
    "socket.sendmsg",
    "urllib.Request",
)
_FAMILIES = (
    "open",
    "import",
    "compile",
    "os.",
    "shutil.",
    "subprocess.",
    "socket.",
    "ctypes.dlopen",
    "pickle.find_class",
    "webbrowser.",
    "urllib.",
    "http.",
    "sqlite3.",
    "tempfile.",
)
_QUIET = ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.putenv", "os.unsetenv")


def _watch(log: int) -> None:
    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event.startswith(_FAMILIES) and event not in _QUIET:
            shown = ascii(arguments[:1] if event == "import" else arguments)
            os.write(log, f"{event}\t{shown[:2000]}\n".encode())
        if _OFFLINE and event in _NETWORK:
            raise OSError(f"offline: {event} {arguments!r}")

    sys.addaudithook(hook)


if _LOG:
    _watch(os.open(_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
