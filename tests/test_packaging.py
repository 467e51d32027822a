"""What is shipped: the wheel's content, the promises of README and pyproject.toml."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import u2net_human_plugin
from u2net_human_plugin.errors import install_command
from u2net_human_plugin.finetune.benchmarks.interpreter_start import (
    imported_modules,
    make_environment,
)

CHECKOUT = Path(__file__).resolve().parent.parent
#: Where the wheel has the folder ``finetune``.
TRAINER = "u2net_human_plugin/finetune"


@pytest.fixture(scope="module")
def contents(wheel):
    """The names of the files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_size(wheel):
    """The wheel, weights included, is at most 25 MB."""
    assert wheel.stat().st_size <= 25_000_000


def test_contents(contents):
    """The package with the trainer in it, weights, start-up files, licences; no tests."""
    tops = {name.partition("/")[0] for name in contents}
    version = next(top for top in tops if top.endswith(".dist-info"))
    start_up = {"u2net_human_plugin.pth", "u2net_human_plugin.start"}
    assert tops == {"u2net_human_plugin", version, *start_up}
    for suffix in ("json", "onnx"):
        assert f"u2net_human_plugin/weights/u2net_human_ft.{suffix}" in contents
    assert {
        f"{TRAINER}/training/loop.py",
        f"{TRAINER}/__main__.py",
        "u2net_human_plugin/py.typed",
    } <= contents
    assert {f"{version}/licenses/LICENSE", f"{version}/licenses/NOTICE"} <= contents


def test_nothing_unwanted(contents):
    """No YOLO weights, no pictures, no caches."""
    allowed = (".py", ".json", ".onnx", ".pth", ".start", ".typed", ".jinja")
    strange = {n for n in contents if not n.endswith(allowed) and ".dist-info/" not in n}
    assert strange == {f"{TRAINER}/README.md"}


def test_start_up_names_agree(wheel):
    """Both start-up files call the same function."""
    with zipfile.ZipFile(wheel) as archive:
        pth = archive.read("u2net_human_plugin.pth").decode()
        start = archive.read("u2net_human_plugin.start").decode()
    module, _, function = start.strip().partition(":")
    assert pth.strip() == f"import {module}; {module}.{function}()"


def requirements():
    """The requirements of the base install and of the extra rembg: {name: lowest version}."""
    text = CHECKOUT.joinpath("pyproject.toml").read_text("utf-8")
    base = re.search(r"^dependencies = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    extra = re.search(r'^rembg = \["(.*)"\]', text, re.MULTILINE)
    found = [*re.findall(r'"([^"]+)"', base[1]), extra[1]]
    return dict(re.split(r"(?:\[.*\])?>=", item) for item in found)


def test_lowest_versions_are_the_stated_ones():
    """.ci/lowest.txt tests exactly the lower bounds that pyproject.toml states."""
    lines = CHECKOUT.joinpath(".ci", "lowest.txt").read_text("utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line)
    for name, version in requirements().items():
        tested_version = tested[name].split(".")
        assert tested_version[: version.count(".") + 1] == version.split("."), name
        assert not any(map(int, tested_version[version.count(".") + 1 :])), name


def test_no_compromised_ultralytics():
    """The requirement admits none of the releases that carried malware."""
    packaging = pytest.importorskip("packaging.requirements")
    text = CHECKOUT.joinpath("pyproject.toml").read_text("utf-8")
    requirement = packaging.Requirement(re.search(r'^yolo = \["(.*)"\]', text, re.MULTILINE)[1])
    for version in ("8.3.41", "8.3.42", "8.3.45", "8.3.46"):
        assert version not in requirement.specifier
    assert "8.4.0" in requirement.specifier


def first_commands():
    blocks = re.findall(r"```bash\n(.*?)```", CHECKOUT.joinpath("README.md").read_text("utf-8"),
                        re.DOTALL)  # fmt: skip
    return [block.strip() for block in blocks[:2]]


def test_readme_is_short():
    """What is longer belongs into docs/pages; tables that reports fill do not count."""
    text = CHECKOUT.joinpath("README.md").read_text("utf-8")
    written = re.sub(r"<!-- (\w+):start -->.*?<!-- \1:end -->", "", text, flags=re.DOTALL)
    assert len(written.splitlines()) <= 250


def test_readme_second_command_is_ours():
    """README's second command installs everything and runs the tests as CI does."""
    tests = "python -m pytest -n 2 --dist loadfile"
    assert first_commands()[1] == f'pip install ".[dev]" && {tests}'


@pytest.mark.skipif(os.name == "nt", reason="README's command is for a POSIX shell")
def test_readme_first_command(installed_python, clean_environment, tmp_path):
    """README's first command, after its `pip install`, cuts the person out of the photo."""
    install, _, command = first_commands()[0].partition(" && ")
    assert install == 'pip install ".[rembg]"'
    # rembg's own entry point, in a throw-away environment that has no script for it.
    scripts = tmp_path / "bin"
    scripts.mkdir()
    python = shlex.quote(str(installed_python))
    for name, arguments in {
        "python": "",
        "rembg": '-c "import rembg.cli; rembg.cli.main()"',
    }.items():
        scripts.joinpath(name).write_text(f'#!/bin/sh\nexec {python} {arguments} "$@"\n')
        scripts.joinpath(name).chmod(0o755)
    environment = {**clean_environment, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["/bin/bash", "-c", command], env=environment, cwd=tmp_path, check=True)
    with Image.open(tmp_path / "cutout.png") as cutout:
        alpha = cutout.getchannel("A")
    assert alpha.size == (512, 512)
    assert alpha.getpixel((225, 120)) > 200, "the astronaut's face"
    assert alpha.getpixel((400, 100)) < 50, "the space shuttle behind her"


def test_the_release_workflow_does_what_the_checklist_says():
    """Valid YAML, on tags alone, without a token; the checklist's build commands are its own."""
    yaml = pytest.importorskip("yaml")
    text = CHECKOUT.joinpath(".github", "workflows", "release.yml").read_text("utf-8")
    workflow = yaml.safe_load(text)
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads the key `on` as true
    assert workflow["permissions"] == {}
    jobs = workflow["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["environment"] == "release"
    assert "secrets." not in text
    steps = {step.get("name"): step.get("run") for step in jobs["build"]["steps"]}
    checklist = CHECKOUT.joinpath("docs", "release.md").read_text("utf-8")
    for line in steps["Build and check"].splitlines():
        assert f"   {line}\n" in checklist
    if os.name != "nt":
        for tag, status in ((f"v{u2net_human_plugin.__version__}", 0), ("v9.9", 1)):
            command = ["/bin/sh", "-c", steps["The tag names the version"]]
            env = {**os.environ, "GITHUB_REF_NAME": tag}
            assert subprocess.run(command, cwd=CHECKOUT, env=env, check=False).returncode == status


@pytest.mark.parametrize(
    "readme", ["README.md", "finetune/README.md", "docs/release.md", "docs/upstream.md"]
)
def test_links_in_readme(readme):
    """Every file that README links to or shows is there, and has the heading that is meant."""
    file = CHECKOUT / readme
    text = file.read_text("utf-8")
    for target, heading in re.findall(r"(?:\]\(|src=\")([^)#:\"]*)(?:#([^)\"]*))?[)\"]", text):
        meant = file.parent.joinpath(target) if target else file
        assert meant.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", meant.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in slugs, f"{target}#{heading}"


def test_start_up_loads_nothing_heavy(tmp_path):
    """With the plugin installed, a bare start loads two small modules more and nothing else."""
    without = imported_modules(make_environment(tmp_path / "without", False))
    with_plugin = imported_modules(make_environment(tmp_path / "with", True))
    assert with_plugin - without == {"u2net_human_plugin", "u2net_human_plugin._startup"}


@pytest.mark.process
def test_help():
    """The command explains itself."""
    command = [sys.executable, "-m", "u2net_human_plugin", "doctor", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "usage: python -m u2net_human_plugin" in done.stdout


def test_no_message_recommends_a_name_that_is_on_no_index():
    """A stranger could take it; errors name the packages of an extra, or a path of the user's."""
    for file in Path(u2net_human_plugin.__file__).parent.rglob("*.py"):
        assert "pip install u2net-human-plugin" not in file.read_text("utf-8"), file


def test_what_installs_an_extra():
    """The very requirements that pyproject.toml states."""
    packaging = pytest.importorskip("packaging.requirements")
    text = CHECKOUT.joinpath("pyproject.toml").read_text("utf-8")
    (said,) = shlex.split(install_command("yolo"))[2:]
    stated = packaging.Requirement(re.search(r'^yolo = \["(.*)"\]', text, re.MULTILINE)[1])
    assert packaging.Requirement(said) == stated
    assert len(shlex.split(install_command("train"))) > 10
    assert install_command("nothing") == 'pip install ".[nothing]"'
