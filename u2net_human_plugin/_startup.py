"""The way into the hosts: runs at the start of every interpreter of the environment.

``install`` is called from a line in ``u2net_human_plugin.pth`` (Python 3.15 and later:
``u2net_human_plugin.start``). It only adds a finder to ``sys.meta_path``. When a host's
module is imported, by whoever wants it, the finder lets the import take its normal course
and hands the finished module to our adapter for it. No host is ever imported from here.

Every Python program of the user pays for this file and could be broken by it. Hence:

- Nothing is imported but ``os`` and ``sys``, which ``site`` has loaded already. Not
  ``__future__`` and ``typing`` (so annotations of other modules' types are strings), not
  ``importlib.abc`` and ``importlib.util`` (a finder and a loader need no base class, and
  asking ``sys.meta_path`` takes a loop), not ``threading`` (the import system holds a lock
  for each module), not ``logging`` or ``warnings`` (one line on stderr is all we say).
- The adapters, and with them Pillow and numpy, are imported after a host was.
- An error of ours ends here: the host goes on without us.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

#: A host's module → our adapter for it. Once the module has been executed, the adapter's
#: ``patch(module)`` is called. It changes all it has to change or nothing, may raise, and
#: may be called again for the same module.
ADAPTERS = {
    "rembg": "u2net_human_plugin.hosts.rembg",
    "rembg.sessions": "u2net_human_plugin.hosts.rembg",
    "rembg.commands.s_command": "u2net_human_plugin.hosts.rembg_server",
    "transparent_background.Remover": "u2net_human_plugin.hosts.transparent_background",
}

#: What became of the host modules imported so far: None, patched; else why it was not.
outcomes: dict[str, "str | None"] = {}

#: Host modules that ``register()`` met in the middle of their own execution.
unfinished: dict[str, "ModuleType"] = {}


def install() -> bool:
    """Watch for the hosts from now on. Harmless to repeat; never raises.

    Returns:
        Whether the finder is in place; False after ``U2NET_HUMAN_PLUGIN=off``.
    """
    if switched_off():
        return False
    if not installed():
        # At the front, since the path finder would answer for every module.
        sys.meta_path.insert(0, HostFinder())
    return True


def installed() -> bool:
    """Whether the finder is in place."""
    # By name: after a reload of this module, the class is another one.
    return any(type(finder).__module__ == __name__ for finder in sys.meta_path)


def switched_off() -> bool:
    """Whether the user does not want us: ``U2NET_HUMAN_PLUGIN=off``."""
    return os.environ.get("U2NET_HUMAN_PLUGIN", "").strip().lower() in ("off", "0", "false", "no")


def patch(name: str, module: "ModuleType") -> None:
    """Hand an executed host module to its adapter; never raises, says what went wrong."""
    try:
        # With a fromlist, __import__ returns the innermost module.
        adapter = __import__(ADAPTERS[name], fromlist=["patch"])
        adapter.patch(module)
        outcomes[name] = None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - none may reach the host
        _report(name, error)


def is_executing(module: object) -> bool:
    """Whether ``module`` is still being imported."""
    return getattr(getattr(module, "__spec__", None), "_initializing", False) is True


class HostFinder:
    """Finds a host's modules with the other finders, and has them patched when executed."""

    def find_spec(
        self,
        fullname: str,
        path: "Sequence[str] | None" = None,
        target: "ModuleType | None" = None,
    ) -> "ModuleSpec | None":
        """The other finders' spec, with our loader around theirs, for a host's module."""
        if unfinished:
            _patch_finished()
        if fullname not in ADAPTERS:
            return None
        spec = None
        # Only those after this one: two finders that each asked all others would never end.
        behind = False
        for finder in list(sys.meta_path):
            if behind and spec is None and hasattr(finder, "find_spec"):
                spec = finder.find_spec(fullname, path, target)
            behind = behind or finder is self
        loader = spec and spec.loader
        if spec and loader and hasattr(loader, "exec_module"):
            spec.loader = PatchingLoader(fullname, loader)  # type: ignore[assignment]
        return spec


class PatchingLoader:
    """Loads a module with its own loader, then has it patched; the module keeps no trace."""

    def __init__(self, name: str, loader: "Loader") -> None:
        self._name = name
        self._loader = loader

    def __getattr__(self, name: str) -> object:
        if name == "_loader":  # not set yet, in a copy of this object
            raise AttributeError(name)
        return getattr(self._loader, name)

    def create_module(self, spec: "ModuleSpec") -> "ModuleType | None":
        return self._loader.create_module(spec)

    def exec_module(self, module: "ModuleType") -> None:
        # inspect, pkgutil and importlib.resources want a module's own loader.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        # A module may have put another object in its own place.
        patch(self._name, sys.modules.get(self._name, module))


def _patch_finished() -> None:
    for name, module in list(unfinished.items()):
        if not is_executing(module):
            del unfinished[name]
            if sys.modules.get(name) is module:  # else its import has failed
                patch(name, module)


def _report(name: str, error: BaseException) -> None:
    """Keep the reason and say it in one line, as far as there is a stderr to say it on."""
    host = name.partition(".")[0]
    said = [reason for other, reason in outcomes.items() if other.partition(".")[0] == host]
    outcomes[name] = "unknown"
    try:
        outcomes[name] = reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        # One line for a host, not one for each of its modules.
        if not any(said) and sys.stderr is not None:
            line = f"u2net-human-plugin: {name} goes on without u2net_human_ft ({reason})"
            print(line, file=sys.stderr)  # noqa: T201 - there is no logging here
    except Exception:  # noqa: BLE001, S110 - a closed stderr, an error that cannot be shown
        pass
