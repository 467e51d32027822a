"""The way into the interpreter: what a start costs, and when the hook is there."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Launch = Callable[..., "subprocess.CompletedProcess[Any]"]

#: Prints how many of our finders watch for the hosts.
FINDERS = """
import sys
print([type(finder).__module__ for finder in sys.meta_path].count("u2net_human_plugin._startup"))
"""
#: Prints the names of all modules that are loaded.
MODULES = "import sys; print(*sys.modules)"

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], id="plain"),
        pytest.param(["-I"], id="isolated"),
        pytest.param(["-E", "-s"], id="without environment and user site"),
        pytest.param(["-O"], id="optimised"),
        pytest.param(["-X", "frozen_modules=off"], id="without frozen modules"),
        pytest.param(["-W", "error"], id="warnings are errors"),
    ],
)
def test_every_interpreter_of_the_environment_has_the_hook(
    launch: Launch, options: list[str]
) -> None:
    """Once, in front, and without a word on either stream."""
    done = launch(*options, "-c", FINDERS + "print(type(sys.meta_path[0]).__name__)")
    assert (done.stdout, done.stderr) == ("1\nHostFinder\n", "")


def test_a_start_loads_two_small_modules_and_nothing_else(launch: Launch) -> None:
    """Compared with the same interpreter without site-packages' start-up files."""
    with_plugin = set(launch("-I", "-c", MODULES).stdout.split())
    without = subprocess.run(
        [sys.executable, "-I", "-c", MODULES], check=True, capture_output=True, text=True
    )
    added = with_plugin - set(without.stdout.split())
    assert added <= {"u2net_human_plugin", "u2net_human_plugin._startup"}
    assert "u2net_human_plugin._startup" in with_plugin
    assert not with_plugin & {"numpy", "PIL", "onnxruntime", "torch", "rembg"}


def test_importing_the_package_is_free(launch: Launch) -> None:
    """The public names are there to be seen, and looked up only when they are used."""
    done = launch(
        "-I",
        "-c",
        """
import sys
before = set(sys.modules)
import u2net_human_plugin
assert set(dir(u2net_human_plugin)) >= {"HumanSegmenter", "Options", "register", "__version__"}
assert u2net_human_plugin.__version__.count(".") == 2
assert not set(sys.modules) - before, set(sys.modules) - before
u2net_human_plugin.Options(crop="off")
assert "onnxruntime" not in sys.modules
assert u2net_human_plugin.HumanSegmenter.__module__ == "u2net_human_plugin.segmenter"
try:
    u2net_human_plugin.nonsense
except AttributeError as error:
    print(error)
""",
    )
    assert "nonsense" in done.stdout


@pytest.mark.parametrize("value", ["off", "OFF", "0", "false", " no "])
def test_the_off_switch(launch: Launch, value: str) -> None:
    """U2NET_HUMAN_PLUGIN=off: no finder, and an explicit register() registers nothing."""
    code = """
import u2net_human_plugin
assert set(u2net_human_plugin.register().values()) == {"switched off"}
"""
    done = launch("-c", FINDERS + code + FINDERS, env={"U2NET_HUMAN_PLUGIN": value})
    assert (done.stdout, done.stderr) == ("0\n0\n", "")


@pytest.mark.parametrize("value", ["", "on", "1"])
def test_other_values_of_the_switch_leave_it_on(launch: Launch, value: str) -> None:
    """An empty or another value does not switch anything off."""
    assert launch("-c", FINDERS, env={"U2NET_HUMAN_PLUGIN": value}).stdout == "1\n"


def test_without_site_there_is_register(launch: Launch) -> None:
    """`python -S` runs no start-up files; the package folder on the path and a call will do."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = launch("-c", code).stdout.strip()
    done = launch(
        "-S",
        "-c",
        FINDERS + f"sys.path.append({packages!r})\nimport u2net_human_plugin\n"
        "u2net_human_plugin.register()\nu2net_human_plugin.register()" + FINDERS,
    )
    assert (done.stdout, done.stderr) == ("0\n1\n", "")


def test_a_second_copy_of_the_plugin_changes_nothing(launch: Launch, tmp_path: Path) -> None:
    """A copy earlier on the path takes the installed one's place; there is one hook."""
    packages = launch("-c", "import u2net_human_plugin as p; print(p.__path__[0])").stdout.strip()
    copy = tmp_path / "copy" / "u2net_human_plugin"
    copy.mkdir(parents=True)
    for name in ("__init__.py", "_startup.py"):
        copy.joinpath(name).write_bytes(Path(packages, name).read_bytes())
    (copy.parent / "u2net_human_plugin.pth").write_bytes(
        Path(packages).with_name("u2net_human_plugin.pth").read_bytes()
    )
    code = f"import site; site.addsitedir({str(copy.parent)!r})" + FINDERS
    for path in ("", str(copy.parent)):
        done = launch("-c", code, env={"PYTHONPATH": path})
        assert (done.stdout, done.stderr) == ("1\n", "")


def test_reloading_the_hook_leaves_one_finder(launch: Launch) -> None:
    """importlib.reload makes a new class of the same name; it is recognised."""
    code = """
import importlib, u2net_human_plugin._startup as startup
importlib.reload(startup).install()
importlib.reload(importlib.import_module("u2net_human_plugin"))
"""
    done = launch("-c", code + FINDERS)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_sub_interpreter_has_its_own_hook(launch: Launch) -> None:
    """Sub-interpreters run site as well and end without a complaint."""
    code = f"""
try:
    import _interpreters as interpreters  # 3.13 and later
except ImportError:
    import _xxsubinterpreters as interpreters
number = interpreters.create()
failure = interpreters.run_string(number, {FINDERS!r} + "sys.stdout.flush()")
assert failure is None, failure
interpreters.destroy(number)
"""
    done = launch("-c", code + FINDERS)
    assert (done.stdout, done.stderr) == ("1\n1\n", "")


def test_uninstalling_leaves_nothing(
    wheel: Path, new_environment: Callable[[], Path], pip: Callable[..., None]
) -> None:
    """Every file that was installed is gone, the start-up files and the bytecode included."""
    python = new_environment()
    root = python.parent.parent
    before = {path.relative_to(root) for path in root.rglob("*")}
    pip(python, "install", "--no-deps", "--no-index", wheel)
    # Wherever a distribution may put them, the start-up files are at the packages' root.
    startup = [path for path in root.rglob("u2net_human_plugin.*") if path.is_file()]
    assert sorted(path.suffix for path in startup) == [".pth", ".start"]
    subprocess.run([python, "-c", "import u2net_human_plugin.hosts"], check=True, cwd=root)
    pip(python, "uninstall", "--yes", "u2net-human-plugin")
    assert {path.relative_to(root) for path in root.rglob("*")} == before


def test_an_editable_install_has_the_hook(
    new_environment: Callable[[], Path], pip: Callable[..., None], tmp_path: Path
) -> None:
    """`pip install -e .` installs the start-up files, too; the package stays where it is."""
    python = new_environment()
    quietly = ["--no-deps", "--no-index", "--no-build-isolation"]
    pip(python, "install", *quietly, "--editable", CHECKOUT)
    code = (
        FINDERS + "import u2net_human_plugin; print(u2net_human_plugin.__path__[0])\n"
        "import u2net_human_plugin.finetune.files as files; print(files.__file__)"
    )
    done = subprocess.run(
        [python, "-I", "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    trainer = CHECKOUT / "finetune" / "files.py"
    assert done.stdout.split() == ["1", str(CHECKOUT / "u2net_human_plugin"), str(trainer)]
    assert done.stderr == ""


def test_the_names_of_the_startup_files_sort_last(wheel: Path) -> None:
    """An editable install's own .pth, which makes the package importable, comes before."""
    roots = [name for name in zipfile.ZipFile(wheel).namelist() if "/" not in name]
    assert sorted(roots) == ["u2net_human_plugin.pth", "u2net_human_plugin.start"]
    assert min(roots) > "_u2net_human_plugin.pth"
