"""docs/upstream.md: rembg's own registry with the proposed lines finds our entry point."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from places import CHECKOUT

Launch = Callable[..., "subprocess.CompletedProcess[Any]"]

#: The hook away, as in a release of ours that has none.
NO_HOOK = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if type(f).__module__ != "u2net_human_plugin._startup"]
"""
#: How often our model is in each of the registries, and a session made by rembg's own function.
LOOK = """
import rembg.sessions as host
lists = host.sessions_names, host.sessions_names_no_credentials, host.sessions_names_downloadable
print(*[names.count("u2net_human_ft") for names in lists], len(set(host.sessions_class)),
      len(host.sessions_class), [*host.sessions][-1])
"""


def blocks(language: str) -> list[str]:
    text = (CHECKOUT / "docs" / "upstream.md").read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def patched_rembg(launch: Launch, tmp_path: Path) -> dict[str, str]:
    """A whole rembg with the proposed lines; the variables with which Python finds it."""
    code = "import importlib.util as u; print(u.find_spec('rembg').submodule_search_locations[0])"
    real = Path(launch("-I", "-c", code).stdout.strip())
    found = "from importlib.metadata import entry_points as e; print(*e(group='rembg.sessions'))"
    if "U2netHumanFtSession" not in launch("-I", "-c", found).stdout:
        pytest.fail(
            "this environment's u2net-human-plugin is older than its entry point: reinstall"
        )
    shutil.copytree(real, tmp_path / "patched" / "rembg")
    registry = tmp_path / "patched" / "rembg" / "sessions" / "__init__.py"
    imports = "from __future__ import annotations\n"
    before, mark, after = registry.read_text().partition("sessions_names = ")
    if not mark or imports not in before or "sessions_names_downloadable" not in after:
        pytest.skip("this rembg's registry is another one than the proposal is for")
    proposal, _the_fault = blocks("python")
    needed = f"{imports}import warnings\nfrom importlib.metadata import entry_points\n"
    registry.write_text(before.replace(imports, needed) + proposal + mark + after)
    return {"PYTHONPATH": str(tmp_path / "patched")}


def test_the_entry_point_is_declared_as_the_text_says() -> None:
    """Word for word, in pyproject.toml."""
    (declaration,) = blocks("toml")
    assert declaration in (CHECKOUT / "pyproject.toml").read_text("utf-8")


@pytest.mark.parametrize("hook", ["with the hook", "without"])
def test_the_model_is_there_once(launch: Launch, patched_rembg: dict[str, str], hook: str) -> None:
    """In every registry, whether or not the start-up hook comes as well."""
    code = LOOK if hook == "with the hook" else NO_HOOK + LOOK
    done = launch("-c", code, env=patched_rembg)
    ones, (classes, entries, last) = done.stdout.split()[:3], done.stdout.split()[3:]
    assert ones == ["1"] * 3
    assert classes == entries
    assert last == "u2net_human_ft"
    assert done.stderr == ""
    if hook == "without":
        unpatched = launch("-c", NO_HOOK + LOOK)
        assert unpatched.stdout.split()[:3] == ["0"] * 3, "the hook is not away: a bad test"


def test_rembgs_command_works_by_it(
    launch: Launch, patched_rembg: dict[str, str], astronaut: Any, tmp_path: Path
) -> None:
    """`rembg i -m u2net_human_ft` without the hook; the session can be pickled."""
    astronaut.resize((64, 64)).save(tmp_path / "in.png")
    code = f"""{NO_HOOK}
import pickle, rembg
session = rembg.new_session("u2net_human_ft")
assert type(pickle.loads(pickle.dumps(session))) is type(session)
from rembg.cli import main
main(["i", "-m", "u2net_human_ft", "-om", "in.png", "out.png"])
"""
    launch("-c", code, env=patched_rembg)
    assert (tmp_path / "out.png").stat().st_size > 100


def test_switched_off_it_stays_out(launch: Launch, patched_rembg: dict[str, str]) -> None:
    """U2NET_HUMAN_PLUGIN=off holds for the entry point, too: one warning, and rembg goes on."""
    done = launch("-c", LOOK, env={**patched_rembg, "U2NET_HUMAN_PLUGIN": "off"})
    assert done.stdout.split()[:3] == ["0"] * 3
    assert done.stderr.count("rembg goes on without u2net_human_plugin.hosts.rembg") == 1
