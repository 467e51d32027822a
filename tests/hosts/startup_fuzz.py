"""Fake hosts, made up from a seed, imported without our hook and with it: ``SEED COUNT``.

Runs in an interpreter of its own, in an empty folder, which has the hook. Every host is
imported twice; its exception, or else what is in it, has to be the same, but for our
model. Prints how often the model went in, was kept out, and the host itself failed.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import io
import random
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import u2net_human_plugin
from u2net_human_plugin import _startup

sys.dont_write_bytecode = True
OURS = ("u2net_human_ft", "u2net_human_plugin.hosts.rembg")
#: Code of values that a host's name may have instead of the one that is known.
STRANGE = (
    *("None", "5", "'text'", "()", "[]", "{}", "{1, 2}", "object()", "...", "int", "len", "print"),
    "property()",
    "lambda *given, **keywords: None",
    "type('Class', (), {'__slots__': ()})",
    "type('Closed', (list,), {'append': None})('abc')",
    "type('Exits', (dict,), {'__contains__': lambda *_: __import__('sys').exit(3)})()",
    "type('Meta', (type,), {'__setattr__': lambda *_: 1 / 0})('Fixed', (), {})",
    "type('Meta', (type,), {'__subclasscheck__': lambda *_: 1 / 0})('Odd', (), {})",
    "[type('Meta', (type,), {'__mro__': None})('Odd', (), {}), 5, None]",
    "['u2net_human_ft']",
    "{'u2net_human_ft': None}",
)
#: Code that goes wrong, or makes the module an odd one.
TROUBLE = (
    *("raise RuntimeError('two\\nlines')", "raise SystemExit(1)", "import no_such_module"),
    *("raise KeyboardInterrupt", "raise StopIteration", "raise type('Own', (BaseException,), {})"),
    "import sys; sys.modules[__name__] = None",
    "import sys; sys.modules[__name__] = object()",
    "import sys; sys.modules[__name__] = type(sys)('other')",
    "import sys; del sys.modules[__name__]",
    "import sys; sys.meta_path.insert(0, None); del sys.meta_path[0]",
    "def __getattr__(name): raise RuntimeError(name)",
    "def __getattr__(name): return 5",
    "__spec__ = None",
    "__loader__ = None",
    "__name__ = 'another'",
    "__name__ = None",
    "del __name__",
    "__path__ = None",
)
REMBG = {
    "BaseSession": "type('BaseSession', (), {})",
    "sessions_names": "['u2net', 'isnet']",
    "sessions_class": "[type('Other', (BaseSession,), {})] if 'BaseSession' in vars() else []",
    "sessions": "{'u2net': None}",
    "sessions_names_no_credentials": "['u2net']",
    "sessions_names_downloadable": "['u2net']",
}
TRANSPARENT_BACKGROUND = {
    "argparse": "__import__('argparse')",
    "Remover": "type('Remover', (), {'__init__': lambda self: None, 'process': lambda self: 1})",
    "load_config": "lambda: {}",
    "parse_args": "lambda: None",
    "console": "lambda: None",
}


def body(names: dict[str, str], rng: random.Random) -> str:
    """A module's code: each name as known, missing, renamed, or strange; perhaps trouble."""
    share = rng.choice((0.0, 0.1, 0.5))
    lines = []
    for name, value in names.items():
        kind = rng.choice(("missing", "renamed", "strange")) if rng.random() < share else "known"
        if kind != "missing":
            new = name + "_" if kind == "renamed" else name
            lines.append(f"{new} = {rng.choice(STRANGE) if kind == 'strange' else value}")
    if rng.random() < 0.4:
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(TROUBLE))
    return "\n".join(lines) + "\n"


def write_hosts(folder: Path, rng: random.Random) -> None:
    rembg, other = folder / "rembg", folder / "transparent_background"
    rembg.mkdir(parents=True)
    other.mkdir()
    starts = ("", "", "from . import sessions\n", "from .sessions import *\n")
    # A package that denies its name is said to have failed, though its sessions may not have.
    honest = [code for code in TROUBLE if "__name__" not in code or "sys" in code]
    (rembg / "__init__.py").write_text(rng.choice((*starts, rng.choice(honest))))
    if rng.random() < 0.5:
        (rembg / "sessions.py").write_text(body(REMBG, rng))
    elif rng.random() < 0.9:
        (rembg / "sessions").mkdir()
        (rembg / "sessions" / "__init__.py").write_text(body(REMBG, rng))
    (other / "__init__.py").write_text(rng.choice((*starts[:2], "from .Remover import *\n")))
    (other / "Remover.py").write_text(body(TRANSPARENT_BACKGROUND, rng))


def forget() -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in ("rembg", "transparent_background"):
            del sys.modules[name]
    importlib.invalidate_caches()
    _startup.outcomes.clear()
    _startup.unfinished.clear()


def attempt(name: str, again: str) -> tuple[str, ModuleType | None]:
    """Import, and perhaps import again or reload; what was raised, and the module."""
    try:
        importlib.import_module(name)
        if again == "reload":
            importlib.reload(sys.modules[name])
        elif again == "import":
            importlib.import_module(name)
    except BaseException as error:  # noqa: BLE001 - whatever a host raises
        return f"{type(error).__name__}: {error}", None
    return "", sys.modules.get(name)


def is_ours(entry: Any) -> bool:
    try:
        return entry in OURS or getattr(entry, "__module__", None) in OURS
    except BaseException:  # noqa: BLE001 - entries that raise when compared
        return False


def shown(value: Any) -> Any:
    """What can be compared between two runs of the same code, without what is ours."""
    if isinstance(value, dict):
        return [type(value).__name__, *(shown(key) for key in value if not is_ours(key))]
    if isinstance(value, list | tuple | set):
        return [type(value).__name__, *(shown(entry) for entry in value if not is_ours(entry))]
    if isinstance(value, int | str | None):
        return value
    # What is called may have been wrapped in a function.
    kind = "callable" if callable(value) else type(value).__name__
    return [kind, str(getattr(value, "__qualname__", ""))]


def content(module: Any) -> dict[str, Any]:
    names = getattr(module, "__dict__", {})
    own = {name: value for name, value in names.items() if not str(name).startswith("__")}
    return {name: shown(value) for name, value in own.items() if type(value) is not ModuleType}


def check_whole(module: ModuleType) -> bool:
    """Whether we are in the module; asserts that it is in all of its places or in none."""
    names = vars(module)
    if "sessions_class" in names or "sessions_names" in names:
        kinds = {"sessions": dict}
        places = [n for n in REMBG if isinstance(names.get(n), kinds.get(n, list))]
        counts = {n: sum(is_ours(entry) for entry in names[n]) for n in places}
        inside = [n for n in places if any(getattr(e, "__module__", None) in OURS
                                           for e in names[n])]  # fmt: skip
        if inside:
            assert 0 not in counts.values(), counts
        return bool(inside)
    functions = [names.get(name) for name in ("load_config", "parse_args", "console")]
    remover = names.get("Remover")
    functions += [vars(remover).get("__init__")] if isinstance(remover, type) else []
    wrapped = {hasattr(function, "__wrapped__") for function in functions}
    assert len(wrapped) <= 1 or remover is None, wrapped
    return True in wrapped


def one_case(seed: int) -> str:
    rng = random.Random(seed)
    folder = Path.cwd() / str(seed)
    write_hosts(folder, rng)
    sys.path.insert(0, str(folder))
    name = rng.choice(("rembg", "rembg.sessions", "rembg.sessions",
                       "transparent_background.Remover", "transparent_background"))  # fmt: skip
    again = rng.choice(("", "", "reload", "import", "register"))
    others = [finder for finder in sys.meta_path if type(finder) is not _startup.HostFinder]
    said = {}
    found = {}
    for hook in (False, True):
        forget()
        sys.meta_path[:] = others
        said[hook] = io.StringIO()
        with contextlib.redirect_stderr(said[hook]):
            if hook:
                assert _startup.install()
            found[hook] = attempt(name, again)
            if hook and again == "register":
                assert set(u2net_human_plugin.register()) == {"rembg", "transparent_background"}
        assert [type(finder) for finder in sys.meta_path].count(_startup.HostFinder) <= 1
    assert found[True][0] == found[False][0], (found, said)
    without, module = found[False][1], found[True][1]
    assert content(module) == content(without), (content(module), content(without))
    lines = said[True].getvalue().splitlines()
    assert len(lines) <= 1, lines
    assert all(line.startswith("u2net-human-plugin: ") for line in lines), lines
    assert not said[False].getvalue()
    inside = isinstance(module, ModuleType) and check_whole(module)
    assert not (inside and lines), lines
    sys.path.remove(str(folder))
    shutil.rmtree(folder)
    return "host failed" if found[False][0] else "in" if inside else "out"


def main(first: int, count: int) -> None:
    kinds = collections.Counter()
    for seed in range(first, first + count):
        try:
            kinds[one_case(seed)] += 1
        except BaseException as error:  # noqa: PERF203 - to name the case
            raise SystemExit(f"case {seed}: {type(error).__name__}: {error}") from error
    print(*(kinds[kind] for kind in ("in", "out", "host failed")))  # noqa: T201 - read by the test


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
