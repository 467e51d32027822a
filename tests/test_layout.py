"""The architecture: which part of the repository imports which."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PLUGIN, TRAINER = CHECKOUT / "u2net_human_plugin", CHECKOUT / "finetune"
#: The trainer's folders, each of which imports those before it alone. "" is what all may use.
FOLDERS = ("", "data", "evaluation", "training", "publishing", "benchmarks")


def modules(package: Path) -> list[Path]:
    return sorted(package.rglob("*.py"))


def name_of(file: Path) -> str:
    parts = file.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(file: Path) -> Iterator[str]:
    """Absolute names of all that ``file`` imports, at its top or in a function."""
    package = list(file.relative_to(CHECKOUT).parent.parts)
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *(node.module or "").split(".")]).rstrip(".")
            for alias in node.names:
                inside = CHECKOUT.joinpath(*base.split("."), alias.name)
                is_module = inside.is_dir() or inside.with_suffix(".py").is_file()
                yield f"{base}.{alias.name}" if is_module else base


def folder_of(name: str) -> str:
    second = [*name.split("."), ""][1]
    return second if second in FOLDERS else ""


def test_every_folder_of_the_trainer_is_known():
    """A new folder has its place in the order."""
    folders = {file.parent.name for file in modules(TRAINER)} - {TRAINER.name}
    assert folders == set(FOLDERS) - {""}


@pytest.mark.parametrize("file", modules(TRAINER), ids=name_of)
def test_folders_import_one_way(file):
    """A module of the trainer imports its own folder and those before it; the commands, all."""
    if file == TRAINER / "__main__.py":
        return
    allowed = FOLDERS[: FOLDERS.index(folder_of(name_of(file))) + 1]
    ours = {name for name in imported(file) if name.split(".")[0] == TRAINER.name}
    assert {name for name in ours if folder_of(name) not in allowed} == set()


@pytest.mark.parametrize("package", [PLUGIN, TRAINER], ids=lambda package: package.name)
def test_no_circle(package):
    """No module imports itself by way of others, not even inside a function."""
    graph = {name_of(file): set(imported(file)) - {name_of(file)} for file in modules(package)}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("file", modules(PLUGIN), ids=name_of)
def test_the_plugin_never_imports_the_trainer(file):
    """Not from a string handed to another interpreter, either."""
    if file.parent.name == "finetune":  # which says where the trainer is
        return
    assert not [name for name in imported(file) if TRAINER.name in name.split(".")]
    text = file.read_text("utf-8")
    for word in ("from finetune", "import finetune", "u2net_human_plugin.finetune."):
        assert word not in text


@pytest.mark.parametrize("file", modules(TRAINER), ids=name_of)
def test_the_trainer_does_not_know_its_own_name(file):
    """Its imports of itself are relative: under one of its two names, no module is loaded twice."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            assert not f"{name}.".startswith(("finetune.", "u2net_human_plugin.finetune."))


@pytest.mark.process
@pytest.mark.parametrize("name", ["finetune", "u2net_human_plugin.finetune"])
def test_the_trainer_runs_in_a_checkout_under_both_names(name):
    """`python -m` with either, in the checkout's folder; the other's modules are not loaded."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    code = (
        "import sys, runpy; sys.path.insert(0, ''); sys.argv[1:] = ['train', '--help']\n"
        "try: runpy.run_module(sys.argv.pop(0) and sys.orig_argv[-1], run_name='__main__')\n"
        "except SystemExit as end: code = end.code\n"
        "print(code, sorted({m.partition('.training')[0] for m in sys.modules if '.training.' in m "
        "and 'finetune' in m}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name],
        cwd=CHECKOUT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == f"0 {[name]}"


def test_the_trainer_runs_from_an_installed_wheel(launch):
    """`python -m u2net_human_plugin.finetune`; nothing in site-packages is called `finetune`."""
    done = launch("-m", "u2net_human_plugin.finetune", "export", "--help")
    assert "python -m u2net_human_plugin.finetune export" in done.stdout
    assert launch("-c", "import finetune", check=False).returncode == 1
