"""The hosts, programs that the model appears in, and the explicit way to get it there.

Usually there is nothing to call: :mod:`u2net_human_plugin._startup` runs by itself.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

from u2net_human_plugin import _startup


def register() -> dict[str, str]:
    """Put ``u2net_human_ft`` into every host: at once if it is imported, else once it is.

    For the places where installing the package is not enough: ``python -S``, ``pip install
    --target``, frozen programs, a host imported before the plugin was on the path. Harmless
    to repeat. Prints one line on stderr for a host that could not take the model.

    Returns:
        What was registered: :func:`status`, as it is afterwards.
    """
    if _startup.install():
        for name in _startup.ADAPTERS:
            _patch_imported(name)
    return status()


def status() -> dict[str, str]:
    """Whether each host, by the name it is imported under, has the model.

    The values:

    - ``"registered"``: the host has the model;
    - ``"waiting"``: the host will have it as soon as it is imported;
    - ``"not installed"``: there is no such host, or only a part of it;
    - ``"failed: …"``: the host works without the model, for this reason;
    - ``"not watched"``: neither the start-up hook nor :func:`register` has run;
    - ``"switched off"``: by the environment variable ``U2NET_HUMAN_PLUGIN``.
    """
    hosts: dict[str, list[str]] = {}
    for name in _startup.ADAPTERS:
        hosts.setdefault(name.partition(".")[0], []).append(name)
    return {host: _status(host, modules) for host, modules in hosts.items()}


def _status(host: str, modules: list[str]) -> str:
    reasons = [reason for name in modules if (reason := _startup.outcomes.get(name))]
    if _startup.switched_off():
        return "switched off"
    if reasons:
        return f"failed: {reasons[0]}"
    if any(name in _startup.outcomes for name in modules if name != host):
        return "registered"
    try:
        if find_spec(host) is None:
            return "not installed"
    except (ImportError, ValueError):  # sys.modules holds None or something without a spec
        return "not installed"
    return "waiting" if _startup.installed() else "not watched"


def _patch_imported(name: str) -> None:
    if _startup.is_executing(sys.modules.get(name)):
        try:
            import_module(name)  # waits for the thread that is importing it
        # That thread gets it, too, and answers for it. rembg exits without onnxruntime.
        except (Exception, SystemExit):  # noqa: BLE001
            return
    module = sys.modules.get(name)
    if module is None:
        return
    if _startup.is_executing(module):  # by this very thread: we are called from inside it
        _startup.unfinished[name] = module
    else:
        _startup.patch(name, module)
