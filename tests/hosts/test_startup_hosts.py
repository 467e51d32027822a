"""The hook and register() with a host as it should be, and absent, broken, too old, changed.

The hosts are copies of the real ``rembg.sessions``, altered. They lie before the real one
on the path, and their ``rembg`` itself is empty, which saves most of its import time.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Launch = Callable[..., "subprocess.CompletedProcess[Any]"]
AlterRembg = Callable[..., dict[str, str]]

#: Prints how often our model is in the registries of rembg.sessions: one number, if in each
#: as often as in the others.
REGISTRIES = """
import rembg.sessions as host
registries = [getattr(host, name) for name in (
    "sessions", "sessions_class", "sessions_names", "sessions_names_no_credentials",
    "sessions_names_downloadable") if hasattr(host, name)]
OURS = ("u2net_human_ft", "u2net_human_plugin.hosts.rembg")
print(*{sum(getattr(entry, "__module__", entry) in OURS for entry in registry)
        for registry in [r.values() if isinstance(r, dict) else r for r in registries]})
"""
#: What is in the registries, as one value.
CONTENT = """
def content(names):
    return {name: [*value] for name, value in names.items()
            if name.startswith("sessions") and isinstance(value, (list, dict))}
"""
STATUS = "import u2net_human_plugin.hosts as h; print(h.status()['rembg'])\n"


@pytest.fixture(scope="module")
def real_sessions(installed_python: Path) -> Path:
    code = "from importlib.util import find_spec; print(find_spec('rembg').origin)"
    done = subprocess.run(
        [installed_python, "-I", "-c", code], check=True, capture_output=True, text=True
    )
    return Path(done.stdout.strip()).parent / "sessions"


@pytest.fixture
def alter_rembg(real_sessions: Path, tmp_path: Path) -> AlterRembg:
    """Makes an altered rembg; gives the environment variables with which Python finds it.

    ``first`` and ``last`` are code around that of ``rembg/sessions/__init__.py``.
    """

    def alter(first: str = "", last: str = "") -> dict[str, str]:
        package = tmp_path / "altered" / "rembg"
        shutil.copytree(real_sessions, package / "sessions")
        (package / "__init__.py").write_text("")
        file = package / "sessions" / "__init__.py"
        future = "from __future__ import annotations\n"  # has to stay in front
        code = file.read_text().replace(future, "")
        file.write_text(f"{future}{first}\n{code}\n{last}\n")
        return {"PYTHONPATH": str(package.parent)}

    return alter


@pytest.fixture
def packages(launch: Launch) -> str:
    """Statements that make the installed packages importable under ``python -S``."""
    path = launch("-I", "-c", "import sys; print(sys.path)").stdout.strip()
    return f"import sys; sys.path += [path for path in {path} if path not in sys.path]\n"


def one_line(stderr: str) -> str:
    assert stderr.count("\n") == 1, stderr
    assert stderr.startswith("u2net-human-plugin: rembg"), stderr
    return stderr


def test_the_hook_registers_once_in_every_registry(launch: Launch, alter_rembg: AlterRembg) -> None:
    """Also after reloads, register() before and after, and a second import from nothing."""
    code = f"""
import importlib, sys, u2net_human_plugin
assert u2net_human_plugin.register()["rembg"] == "waiting"
{REGISTRIES}
assert host.__loader__ is host.__spec__.loader, host.__spec__
assert type(host.__loader__).__name__ == "SourceFileLoader", host.__loader__
importlib.reload(host)
{REGISTRIES}
assert u2net_human_plugin.register()["rembg"] == "registered"
assert u2net_human_plugin.register()["rembg"] == "registered"
{REGISTRIES}
for name in [name for name in sys.modules if name.partition(".")[0] == "rembg"]:
    del sys.modules[name]
{REGISTRIES}
"""
    done = launch("-c", code, env=alter_rembg())
    assert (done.stdout, done.stderr) == ("1\n" * 4, "")


def test_register_after_the_host_was_imported(
    launch: Launch, alter_rembg: AlterRembg, packages: str
) -> None:
    """Without the hook, as under -S, one call registers with a host that is there already."""
    code = f"""{packages}
import rembg.sessions
{REGISTRIES}
import u2net_human_plugin
{STATUS}
print(u2net_human_plugin.register()["rembg"])
{REGISTRIES}
"""
    done = launch("-S", "-c", code, env=alter_rembg())
    assert done.stdout.splitlines() == ["0", "not watched", "registered", "1"]
    assert done.stderr == ""


def test_register_from_inside_the_hosts_own_import(
    launch: Launch, alter_rembg: AlterRembg, packages: str
) -> None:
    """A half imported host is left alone, and registered with once it is whole."""
    call = "import u2net_human_plugin; print(u2net_human_plugin.register()['rembg'])"
    code = f"{packages}\nimport rembg.sessions\nimport wave\n{STATUS}{REGISTRIES}"
    done = launch("-S", "-c", code, env=alter_rembg(first=call))
    assert done.stdout.splitlines() == ["waiting", "registered", "1"]
    assert done.stderr == ""


REGISTER_MEANWHILE = """
import threading, time, u2net_human_plugin.hosts
thread = threading.Thread(target=__import__, args=["rembg.sessions"])
thread.start()
while "rembg.sessions" not in sys.modules:
    time.sleep(0.001)
print(u2net_human_plugin.register()["rembg"])
"""


@pytest.mark.parametrize(
    ("ends", "look", "expected"),
    [
        pytest.param("", REGISTRIES, ["registered", "1"], id="register() waits for that import"),
        # As rembg does without onnxruntime.
        pytest.param("; sys.exit(1)", "", ["waiting"], id="the host exits, register() does not"),
    ],
)
def test_register_while_another_thread_imports_the_host(
    launch: Launch,
    alter_rembg: AlterRembg,
    packages: str,
    *,
    ends: str,
    look: str,
    expected: list[str],
) -> None:
    """Without the hook: it registers once the import is over, if that leaves a host."""
    env = alter_rembg(first=f"import sys, time; time.sleep(0.3){ends}")
    done = launch("-S", "-c", packages + REGISTER_MEANWHILE + look, env=env)
    assert (done.stdout.split(), done.stderr) == (expected, "")


def test_many_threads_import_and_register_at_once(launch: Launch, alter_rembg: AlterRembg) -> None:
    """Every thread finds the model after its import, and it is there once."""
    code = f"""
import threading, u2net_human_plugin.hosts
barrier, seen = threading.Barrier(16), []
def work(number):
    barrier.wait()
    if number % 2:
        u2net_human_plugin.register()
    import rembg.sessions
    seen.append("u2net_human_ft" in rembg.sessions.sessions_names)
threads = [threading.Thread(target=work, args=[number]) for number in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(seen.count(True))
{REGISTRIES}
"""
    done = launch("-c", code, env=alter_rembg())
    assert (done.stdout.split(), done.stderr) == (["16", "1"], "")


@pytest.mark.parametrize(
    ("last", "said"),
    [
        pytest.param("del sessions_names", "sessions_names is missing", id="a name gone"),
        pytest.param(
            "models = sessions_class; del sessions_class",
            "sessions_class is missing",
            id="a name changed",
        ),
        pytest.param(
            "sessions_names = tuple(sessions_names)", "is a tuple", id="a list became a tuple"
        ),
        pytest.param("sessions = {*sessions_names}", "is a set", id="a dictionary became a set"),
        pytest.param("sessions_names_downloadable = 5", "is a int", id="a list became a number"),
        pytest.param("BaseSession = 'base'", "BaseSession is a str", id="no base class"),
        pytest.param(
            "sessions_names.append('u2net_human_ft')",
            "already has a model named u2net_human_ft",
            id="name clash",
        ),
        pytest.param(
            """
class Closed(list):
    def append(self, item): raise RuntimeError("closed\\nfor good")
sessions_names_no_credentials = Closed()""",
            "RuntimeError: closed for good",
            id="one registry refuses after others took it",
        ),
        pytest.param(
            """
class Exits(dict):
    def __contains__(self, item): raise SystemExit(3)
sessions = Exits()""",
            "SystemExit: 3",
            id="a registry that ends the program",
        ),
        pytest.param(
            """
class Final(type):
    def __new__(cls, name, *rest):
        if name == "BaseSession": return type.__new__(cls, name, *rest)
        raise TypeError("no further sessions")
class BaseSession(metaclass=Final): pass""",
            "TypeError",
            id="a base class that allows no others",
        ),
    ],
)
def test_a_host_that_is_not_as_expected_goes_on_without_us(
    launch: Launch, alter_rembg: AlterRembg, last: str, said: str
) -> None:
    """Its registries stay as they were, all of them, and one line says why."""
    last += f"\n{CONTENT}\nBEFORE = content(globals())"
    code = f"{CONTENT}\nimport rembg.sessions as host\n"
    code += "assert content(vars(host)) == host.BEFORE != {}\n" + STATUS
    done = launch("-c", code, env=alter_rembg(last=last))
    assert said in one_line(done.stderr)
    assert done.stdout.startswith("failed: ")
    assert said in done.stdout


def test_a_rembg_without_sessions_is_too_old(
    launch: Launch, alter_rembg: AlterRembg, tmp_path: Path
) -> None:
    """One line, when rembg is imported, because no module of ours will ever be asked for."""
    environment = alter_rembg()
    shutil.rmtree(tmp_path / "altered" / "rembg" / "sessions")
    done = launch("-c", "import rembg\n" + STATUS, env=environment)
    assert "too old: it has no module rembg.sessions" in one_line(done.stderr)
    assert done.stdout.startswith("failed: ")


def test_a_host_that_imports_its_sessions_later(launch: Launch, alter_rembg: AlterRembg) -> None:
    """Importing rembg alone says nothing, as long as there is something to wait for."""
    done = launch("-c", "import rembg\n" + STATUS + REGISTRIES + STATUS, env=alter_rembg())
    assert (done.stdout.split(), done.stderr) == (["waiting", "1", "registered"], "")


@pytest.mark.parametrize(
    ("failure", "caught"),
    [
        ("raise RuntimeError('broken host')", "RuntimeError('broken host')"),
        ("import sys; sys.exit(1)", "SystemExit(1)"),
        ("import no_such_module", "No module named"),
    ],
)
def test_a_host_that_fails_while_it_is_imported(
    launch: Launch, alter_rembg: AlterRembg, failure: str, caught: str
) -> None:
    """The host's own exception arrives, again and again, and we have nothing to say."""
    code = """
import sys, u2net_human_plugin
for attempt in range(2):
    try:
        import rembg.sessions
    except BaseException as error:
        print(repr(error), "rembg.sessions" in sys.modules)
print(u2net_human_plugin.register()["rembg"])
"""
    done = launch("-c", code, env=alter_rembg(last=failure))
    lines = done.stdout.splitlines()
    assert lines[0] == lines[1]
    assert caught in lines[0]
    assert lines[0].endswith("False")
    assert lines[2] == "waiting"
    assert done.stderr == ""


def test_an_absent_host(launch: Launch) -> None:
    """register() says so; an import fails as it does without us."""
    code = """
import sys
sys.modules["rembg"] = None  # what makes an import fail as if there were no such module
import u2net_human_plugin
print(u2net_human_plugin.register()["rembg"])
del sys.modules["rembg"]
sys.path[:] = [path for path in sys.path if not path.endswith("-packages")]
print(u2net_human_plugin.hosts.status()["rembg"])
try:
    import rembg.sessions
except ModuleNotFoundError as error:
    print(error.name)
"""
    done = launch("-c", code)
    assert done.stdout.splitlines() == ["not installed", "not installed", "rembg"]
    assert done.stderr == ""


def test_an_error_of_our_own_stays_ours(
    launch: Launch, alter_rembg: AlterRembg, tmp_path: Path
) -> None:
    """An adapter that cannot even be imported costs the host nothing but the model."""
    package = launch("-c", "import u2net_human_plugin as p; print(p.__path__[0])").stdout.strip()
    environment = alter_rembg()
    copy = tmp_path / "altered" / "u2net_human_plugin"
    shutil.copytree(package, copy)
    (copy / "weights.py").write_text("raise RuntimeError('two\\nlines')")
    done = launch("-c", REGISTRIES + "print(len(host.sessions_names) > 10)", env=environment)
    assert done.stdout.split() == ["0", "True"]
    assert "(RuntimeError: two lines)" in one_line(done.stderr)


@pytest.mark.parametrize("stderr", ["None", "open('closed', 'w')"])
def test_nowhere_to_complain(launch: Launch, alter_rembg: AlterRembg, stderr: str) -> None:
    """Windowed programs have no stderr, daemons a closed one; the host is imported all the same."""
    code = f"""
import sys
original, sys.stderr = sys.stderr, {stderr}
if sys.stderr: sys.stderr.close()
import rembg.sessions
sys.stderr = original
{STATUS}
"""
    done = launch("-c", code, env=alter_rembg(last="del sessions_names"))
    assert done.stdout.startswith("failed: ")
    assert done.stderr == ""


def test_a_host_in_a_sub_interpreter(launch: Launch, tmp_path: Path) -> None:
    """Registering needs no extension module, many of which do not work there.

    So it is with a host that needs none either. The real one brings numpy and onnxruntime.
    """
    sessions = tmp_path / "rembg" / "sessions"
    sessions.mkdir(parents=True)
    (tmp_path / "rembg" / "__init__.py").write_text("")
    (sessions / "__init__.py").write_text(
        "class BaseSession: pass\nsessions_names, sessions_class, sessions = [], [], {}\n"
    )
    code = f"""
try:
    import _interpreters as interpreters  # 3.13 and later
except ImportError:
    import _xxsubinterpreters as interpreters
number = interpreters.create()
failure = interpreters.run_string(number, {REGISTRIES!r} + "import sys; sys.stdout.flush()")
assert failure is None, failure
interpreters.destroy(number)
"""
    done = launch("-c", code + REGISTRIES, env={"PYTHONPATH": str(tmp_path)}, timeout=100)
    assert (done.stdout, done.stderr) == ("1\n1\n", "")


def test_other_import_hooks_before_and_behind_ours(launch: Launch, alter_rembg: AlterRembg) -> None:
    """A finder that asks all finders, as wrapt's does, and finders of old and odd kinds."""
    code = f"""
import importlib.util, sys
class AsksAll:
    busy = False
    def find_spec(self, name, path=None, target=None):
        if self.busy or name != "rembg.sessions":
            return None
        AsksAll.busy = True
        try:
            return importlib.util.find_spec(name)
        finally:
            AsksAll.busy = False
class Old: pass
sys.meta_path.insert(0, AsksAll())
sys.meta_path.append(AsksAll())
sys.meta_path.insert(2, Old()) if sys.version_info >= (3, 12) else None
{REGISTRIES}
"""
    done = launch("-c", code, env=alter_rembg())
    assert (done.stdout, done.stderr) == ("1\n", "")
