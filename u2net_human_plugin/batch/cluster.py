"""A Ray cluster for the time of a block: joined, or started on this machine and ended."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from u2net_human_plugin.errors import PluginError, importing, install_command

#: Bytes of shared memory of a local cluster. Actors read and write the pictures themselves,
#: so only names travel; Ray's default would reserve a third of the machine.
OBJECT_STORE = 128 * 1024 * 1024
#: Ray gives its processes 30 seconds to start, which on a busy machine is not always enough.
STARTS = 3


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
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        local: dict[str, Any] = {"num_cpus": actors, "object_store_memory": OBJECT_STORE}
        _start(ray, include_dashboard=False, **local, **quiet)
    else:
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
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


def _start(ray: Any, attempts: int = STARTS, **settings: Any) -> None:
    try:
        # Without "local", the variable RAY_ADDRESS would be followed.
        ray.init(address="local", **settings)
    except Exception as error:  # noqa: BLE001 - Ray raises nothing more special
        ray.shutdown()
        if attempts == 1:
            raise PluginError(f"Ray does not start here: {_cause(error)}") from None
        _start(ray, attempts - 1, **settings)


def _cause(error: BaseException) -> str:
    """The last line of an error's text, which for one from another process is its cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:500]
