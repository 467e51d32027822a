"""Fixtures that several test modules share."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import u2net_human_plugin

CHECKOUT = Path(__file__).resolve().parent.parent


def pytest_report_header() -> str:
    """Say which copy is under test: the installed wheel or the checkout."""
    return f"package under test: {Path(u2net_human_plugin.__file__).parent}"


#: What the package's extras install, by the names under which it is imported.
EXTRAS = {
    re.split(r"[^\w.-]", requirement)[0].replace("-", "_").lower()
    for requirement in requires("u2net-human-plugin") or ()
    if "extra ==" in requirement
}


class Module(pytest.Module):
    """A module of tests; it is skipped if it imports what an extra installs and nobody did."""

    def collect(self) -> Any:
        try:
            return super().collect()
        except self.CollectError as error:
            missing = getattr(error.__cause__, "name", None) or ""
            if isinstance(error.__cause__, ModuleNotFoundError) and missing in EXTRAS:
                pytest.skip(f"needs {missing}, which the extra dev installs")
            raise


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> Module:
    """Contributors without PyTorch have the tests that do without."""
    return Module.from_parent(parent, path=module_path)


#: Fixtures that start interpreters, or that need what is not part of the repository.
PROCESS = {"launch", "installed_python", "new_environment", "pip", "wheel"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a test's fixtures say about it need not be said again in a mark."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if not PROCESS.isdisjoint(fixtures):
            item.add_marker(pytest.mark.process)
        if "shared" in fixtures:
            item.add_marker(pytest.mark.data)


_OPEN = Image.open


@pytest.fixture(autouse=True)
def _pillow_as_it_is() -> None:
    """Undo what ultralytics does to Pillow when an earlier test, or its fixture, imports it."""
    Image.open = _OPEN


@pytest.fixture(scope="session")
def shared() -> Path:
    """Test material that is not part of the repository: ``../shared`` beside the checkout."""
    folder = CHECKOUT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder `shared` beside the checkout")
    return folder


@pytest.fixture(scope="session")
def official_onnx(shared: Path) -> Path:
    """The official U²-Netp as rembg downloads it."""
    return shared / "weights" / "u2netp.onnx"


@pytest.fixture(scope="session")
def astronaut() -> Image.Image:
    """A portrait, 512 x 512 RGB, public domain; brought by scikit-image."""
    from skimage import data

    return Image.fromarray(data.astronaut())


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    quietly = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    build = [sys.executable, "-m", "pip", "wheel", *quietly, "--wheel-dir", folder, CHECKOUT]
    subprocess.run(build, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def new_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes virtual environments that see the test interpreter's packages; gives their Python."""

    def make() -> Path:
        folder = tmp_path_factory.mktemp("environment")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        packages = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
        # A plain path line: the .pth files in the folder it names are not run.
        borrowed = Path(packages.stdout.strip(), "borrowed_packages.pth")
        borrowed.write_text(sysconfig.get_path("purelib") + "\n")
        return python

    return make


@pytest.fixture(scope="session")
def pip() -> Callable[..., None]:
    """Runs pip for another interpreter: ``pip(python, "install", ...)``, without an index."""

    def run(python: Path, command: str, *arguments: str | Path) -> None:
        pip = [sys.executable, "-m", "pip", "--quiet", "--python", python, command]
        if command == "install":  # even if the borrowed packages hold a copy already
            pip.append("--ignore-installed")
        subprocess.run([*pip, *arguments], check=True)

    return run


@pytest.fixture(scope="session")
def installed_python(
    request: pytest.FixtureRequest, new_environment: Callable[[], Path], pip: Callable[..., None]
) -> Path:
    """An interpreter that can import the installed wheel and the hosts.

    ``U2NET_TEST_PYTHON`` names one, such as one with the oldest supported hosts. Without
    it, the wheel is built and installed into a throw-away virtual environment.
    """
    if ready := os.environ.get("U2NET_TEST_PYTHON"):
        return Path(ready)
    python = new_environment()
    pip(python, "install", "--no-deps", "--no-index", request.getfixturevalue("wheel"))
    return python


@pytest.fixture(scope="session")
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables as of a new user: an empty home, no settings of ours or Python's."""
    settings = ("PYTHON", "U2NET", "REMBG", "XDG_", "TRANSPARENT_BACKGROUND")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
    home = str(tmp_path_factory.mktemp("home"))
    return {**kept, "HOME": home, "USERPROFILE": home, "BROWSER": "none"}


@pytest.fixture
def launch(
    installed_python: Path, clean_environment: dict[str, str], tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[Any]]:
    """Runs ``installed_python`` as a new user would, in an empty folder: ``launch("-c", "…")``.

    ``env`` holds additions, ``check=False`` allows a non-zero exit status, ``text=False``
    is for binary output; other keywords are those of :func:`subprocess.run`.
    """

    def run(
        *arguments: str | Path,
        env: dict[str, str] | None = None,
        check: bool = True,
        text: bool = True,
        **keywords: Any,
    ) -> subprocess.CompletedProcess[Any]:
        done = subprocess.run(
            [installed_python, *arguments],
            env={**clean_environment, **(env or {})},
            check=False,
            capture_output=True,
            text=text,
            **{"cwd": tmp_path, "timeout": 300, **keywords},
        )
        if check and done.returncode != 0:
            pytest.fail(f"exit status {done.returncode}\n{done.stdout!s}\n{done.stderr!s}")
        return done

    return run
