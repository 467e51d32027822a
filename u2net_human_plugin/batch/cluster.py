"""A Ray cluster for the time of a block: joined, or started on this machine and ended."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from u2net_human_plugin.errors import PluginError, importing, install_command

#: Bytes of shared memory of a local cluster. Actors read and write the pictures themselves,
#: so only names travel; Ray's default would reserve a third of the machine.
OBJECT_STORE = 128 * 1024 * 1024
#: So often Ray is started. It ends itself if one of its processes needs more than 15 seconds to
#: start, which on a busy machine or a cold disk one does, and which nothing sets
#: (github.com/ray-project/ray/issues/65983); what was read from the disk makes the next faster.
STARTS = 4
#: What a worker gets instead of its 60 seconds, on this machine's cluster.
WORKER_STARTS = "300"

log = logging.getLogger(__name__)


def import_ray() -> Any:
    """The module ``ray`` with ``ray.data``.

    Raises:
        MissingExtraError: it is not installed.
    """
    # Nobody who asked for cut-outs asked for reports to Ray's makers. A user's own value stands.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    remedy = f"install it with `{install_command('ray')}`."
    with importing("ray", remedy):
        import ray
    with importing("pyarrow", remedy):
        import ray.data
    return ray


@contextmanager
def cluster(address: str | None = None, actors: int | None = None) -> Iterator[Any]:
    """Yield ``ray``, connected; a cluster that was started here ends with the block.

    Args:
        address: of a running cluster, or "auto"; None starts one on this machine.
        actors: for a cluster started here, its number of CPUs; None takes those there are.

    Raises:
        PluginError: there is no cluster at ``address``, none could be started, or the block's
            work failed in it.
    """
    ray = import_ray()
    # Ray Data's own actors make Ray print a line that reads like an error.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        local: dict[str, Any] = {"num_cpus": actors, "object_store_memory": OBJECT_STORE}
        # Without "local", the variable RAY_ADDRESS would be followed.
        start(ray, address="local", include_dashboard=False, **local, **quiet)
    else:
        try:
            _knock(address)
            ray.init(address=address, **quiet)
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise PluginError(f"--ray-address {address}: no Ray cluster there ({reason})") from None
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray
    except ray.exceptions.RayError as error:
        raise PluginError(f"Ray: {_cause(error)}") from error
    finally:
        ray.shutdown()


def places(resources: dict[str, float], gpus_per_actor: float) -> int:
    """How many actors a cluster with these resources has room for, at least one."""
    if gpus_per_actor:
        return max(1, int(resources.get("GPU", 0) / gpus_per_actor))
    return max(1, int(resources.get("CPU", 1)))


def start(ray: Any, **settings: Any) -> None:
    """``ray.init(**settings)``, and again if its processes were too slow to start.

    Raises:
        PluginError: they were, :data:`STARTS` times, or something else is wrong.
    """
    os.environ.setdefault("RAY_worker_register_timeout_seconds", WORKER_STARTS)
    for attempt in range(1, STARTS + 1):
        before = _children()
        try:
            ray.init(**settings)
        except Exception as error:  # noqa: BLE001 - Ray raises nothing more special
            ray.shutdown()
            _end(_children() - before)  # they would go on, and slow the next attempt down
            if attempt == STARTS or isinstance(error, (ConnectionError, TypeError, ValueError)):
                logs = Path(tempfile.gettempdir(), "ray", "session_latest", "logs")
                raise PluginError(
                    f"Ray does not start here: {_cause(error)} Its logs are in {logs}. "
                    "If this machine is busy, try again when it is less so."
                ) from None
            log.warning("Ray did not start, attempt %d of %d: %s", attempt, STARTS, _cause(error))
        else:
            return


def _knock(address: str) -> None:
    """Raise an OSError at once where nobody listens; Ray would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=30).close()


def _children() -> set[Any]:
    import psutil  # Ray brings one

    return set(psutil.Process().children(recursive=True))


def _end(processes: set[Any]) -> None:
    import psutil

    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def _cause(error: BaseException) -> str:
    """The last line of an error's text, which for one from another process is its cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:500]
