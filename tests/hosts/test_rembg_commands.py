"""rembg's own, unmodified commands with our model: i, p, p -w, b, d and --help.

Each command costs a second or more of rembg's imports, so a test asks several questions.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from places import CHECKOUT

Launch = Callable[..., "subprocess.CompletedProcess[Any]"]

#: What the installed script `rembg` does. The audit hook forbids all use of the network.
REMBG = """
import sys
def forbid(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise OSError("the network is not to be used: %s %r" % (event, args))
sys.addaudithook(forbid)
sys.argv[0] = "rembg"
from rembg.cli import main
sys.exit(main())
"""


@pytest.fixture
def rembg(launch: Launch) -> Launch:
    """``rembg("i", "-m", …)``: the command, isolated (``python -I``) and without a network."""
    return lambda *arguments, **keywords: launch("-I", "-c", REMBG, *arguments, **keywords)


@pytest.fixture(scope="module")
def picture(astronaut: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo as a user has it: a JPEG of 300 x 400 pixels."""
    path = tmp_path_factory.mktemp("picture") / "in.jpg"
    astronaut.resize((300, 400)).save(path, quality=95)
    return path


@pytest.fixture(scope="module")
def mask(picture: Path, installed_python: Path, clean_environment: dict[str, str]) -> Image.Image:
    """The mask that the pipeline gives for :func:`picture`, without a host."""
    target = picture.with_name("mask.png")
    code = (
        "import sys; from PIL import Image; from u2net_human_plugin import HumanSegmenter\n"
        "HumanSegmenter().mask(Image.open(sys.argv[1])).save(sys.argv[2])"
    )
    command = [installed_python, "-I", "-c", code, picture, target]
    subprocess.run(command, check=True, env=clean_environment)
    return Image.open(target).convert("L")


def alpha_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGBA"
        return np.asarray(image)[..., 3]


def assert_cut_out(path: Path, mask: Image.Image) -> None:
    """The alpha channel is the mask; in old rembgs, whose commands paste it twice, its square."""
    alpha, wanted = alpha_of(path).astype(float), np.asarray(mask, float)
    assert alpha.shape == wanted.shape
    errors = [np.abs(alpha - each).max() for each in (wanted, wanted * wanted / 255)]
    assert errors[0] == 0 or errors[1] <= 2, errors


@pytest.mark.process
def test_rembg_i(rembg: Launch, picture: Path, mask: Image.Image, tmp_path: Path) -> None:
    """The first command of README: a cut-out whose alpha is the pipeline's mask."""
    done = rembg("i", "-m", "u2net_human_ft", picture, "out.png")
    assert_cut_out(tmp_path / "out.png", mask)
    assert done.stdout == ""
    assert "u2net" not in done.stderr


@pytest.mark.process
def test_rembg_i_from_stdin_to_stdout(rembg: Launch, picture: Path, mask: Image.Image) -> None:
    """A pipe, only the mask, and our options in -x; nothing but the picture on stdout."""
    extras = ["-x", '{"crop": "off", "persons": null}']
    arguments = ["i", "-m", "u2net_human_ft", "-om", *extras, "-", "-"]
    done = rembg(*arguments, input=picture.read_bytes(), text=False)
    Path(picture.parent, "piped.png").write_bytes(done.stdout)
    with Image.open(picture.parent / "piped.png") as piped:
        assert piped.mode == "L"
        assert np.array_equal(piped, mask)


def test_a_wrong_option_ends_the_command(rembg: Launch, picture: Path, tmp_path: Path) -> None:
    """One line says what is valid. rembg has opened the output by then; it stays empty."""
    extras = ["-x", '{"crop": "yolov8n.pt"}']
    done = rembg("i", "-m", "u2net_human_ft", *extras, picture, "out.png", check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith('Error: crop=\'yolov8n.pt\': expected "off", "self" or "yolo"')
    out = tmp_path / "out.png"
    assert not out.exists() or out.stat().st_size == 0


def test_a_wrong_variable_ends_the_command(rembg: Launch, picture: Path) -> None:
    """In one line, as a wrong -x does."""
    wrong = {"U2NET_HUMAN_PERSONS": "largst"}
    done = rembg("i", "-m", "u2net_human_ft", picture, "out.png", check=False, env=wrong)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("Error: U2NET_HUMAN_PERSONS='largst'")


#: As in an environment without the extra `yolo`.
WITHOUT_YOLO = "import sys; sys.modules['ultralytics'] = None\n" + REMBG
YOLO_OPTION = ["-x", '{"crop": "yolo"}']
YOLO_VARIABLE = {"U2NET_HUMAN_CROP": "yolo"}


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        pytest.param(["i", *YOLO_OPTION, "in.jpg", "out.png"], {}, id="i, option"),
        pytest.param(["i", "in.jpg", "out.png"], YOLO_VARIABLE, id="i, variable"),
        pytest.param(["p", *YOLO_OPTION, "photos", "cut"], {}, id="p, option"),
        pytest.param(["p", "photos", "cut"], YOLO_VARIABLE, id="p, variable"),
        pytest.param(["b", *YOLO_OPTION, "3", "4"], {}, id="b, option"),
    ],
)
def test_yolo_that_is_not_installed_ends_the_command(
    launch: Launch,
    picture: Path,
    tmp_path: Path,
    arguments: list[str],
    variables: dict[str, str],
) -> None:
    """In one line, before the first picture: rembg's `p` would end with 0 past every one."""
    (tmp_path / "photos").mkdir()
    for name in ("in.jpg", "photos/a.jpg", "photos/b.jpg"):
        shutil.copy(picture, tmp_path / name)
    command, *rest = arguments
    model = [command, "-m", "u2net_human_ft"]
    done = launch("-I", "-c", WITHOUT_YOLO, *model, *rest, check=False, env=variables)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "ultralytics" in line]
    assert line.startswith(
        'Error: ultralytics is not installed; crop="yolo" needs it: `pip install'
    )
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "cut").exists()


def test_missing_weights_end_the_command(rembg: Launch, picture: Path) -> None:
    """In one line that names the file and the variable, and once."""
    wrong = {"U2NET_HUMAN_WEIGHTS": "/nowhere/mine.onnx"}
    done = rembg("p", "-m", "u2net_human_ft", picture.parent, "cut", check=False, env=wrong)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.count("/nowhere/mine.onnx") == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: /nowhere/mine.onnx: cannot be read")
    assert last.endswith("unset U2NET_HUMAN_WEIGHTS.")


def test_switched_off(rembg: Launch, picture: Path) -> None:
    """With U2NET_HUMAN_PLUGIN=off rembg says what it says of any model it does not know."""
    arguments = ["i", "-m", "u2net_human_ft", picture, "out.png"]
    done = rembg(*arguments, check=False, env={"U2NET_HUMAN_PLUGIN": "off"})
    assert done.returncode == 2
    assert "'u2net_human_ft' is not one of" in done.stderr


def test_every_help_lists_the_model(launch: Launch) -> None:
    """Of every command that takes a model."""
    code = """
from rembg.commands import command_functions
for command in command_functions:
    if command.name in ("i", "p", "b"):
        command.main(["--help"], prog_name=f"rembg {command.name}", standalone_mode=False)
"""
    helps = launch("-c", code).stdout.split("Usage: ")[1:]
    assert len(helps) == 3
    assert all("u2net_human_ft" in "".join(text.split()) for text in helps)


@pytest.mark.process
def test_rembg_p(rembg: Launch, picture: Path, mask: Image.Image, tmp_path: Path) -> None:
    """A folder: every picture is cut out, a broken one does not stop the others.

    As docs/pages/rembg.md warns: into one flat folder, one of a.jpg and a.png, with exit status 0.
    """
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "deeper/c.jpg"):
        shutil.copy(picture, folder / name)
    (folder / "aa.jpg").write_bytes(picture.read_bytes()[:1000])
    shutil.copy(picture, folder / "a.png")
    (folder / "notes.txt").write_text("no picture")
    rembg("p", "-m", "u2net_human_ft", folder, "cut")
    assert {path.name for path in tmp_path.joinpath("cut").glob("*.png")} == {
        "a.png",
        "b.png",
        "c.png",
    }
    for name in ("a", "b", "c"):
        assert_cut_out(tmp_path / "cut" / f"{name}.png", mask)


def test_rembg_p_watches(
    installed_python: Path,
    clean_environment: dict[str, str],
    picture: Path,
    mask: Image.Image,
    tmp_path: Path,
) -> None:
    """With -w a picture that arrives later is cut out; stop.txt ends the watch."""
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(picture, folder / "first.jpg")
    log = tmp_path / "log"
    command = [
        installed_python,
        "-u",
        "-c",
        REMBG,
        "p",
        "-w",
        "-m",
        "u2net_human_ft",
        folder,
        "cut",
    ]
    with log.open("w") as output:
        child = subprocess.Popen(
            command, env=clean_environment, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        for name in ("first", "second"):
            target = tmp_path / "cut" / f"{name}.png"
            # rembg announces a picture once it is written.
            deadline = time.monotonic() + 200
            while f"{target.name}" not in log.read_text() and time.monotonic() < deadline:
                if child.poll() is not None and "inputs_tqdm" in log.read_text():
                    pytest.skip("this rembg's own -w has an error of its own")
                assert child.poll() is None, log.read_text()
                time.sleep(0.1)
                if name == "second" and not (folder / "second.jpg").exists():
                    time.sleep(1)  # for rembg to begin to watch after the first picture
                    shutil.copy(picture, folder / "second.jpg")
            assert_cut_out(target, mask)
        (folder / "stop.txt").touch()
        assert child.wait(timeout=60) == 0
    finally:
        child.kill()
        child.wait()


def test_rembg_b(rembg: Launch, picture: Path, tmp_path: Path) -> None:
    """Raw frames on stdin: one PNG each, equal frames equal results, none left out."""
    with Image.open(picture) as image:
        frame = image.convert("RGB").resize((120, 160))
    frames = [frame, frame.transpose(Image.Transpose.FLIP_LEFT_RIGHT), frame]
    arguments = ["b", "-m", "u2net_human_ft", "-o", "cut/%d.png", "120", "160"]
    stdin = b"".join(item.tobytes() for item in frames)
    done = rembg(*arguments, input=stdin, text=False, check=False)
    if b"PILImage.frombytes" in done.stderr:
        pytest.skip("this rembg's own `b` fails on every frame, with any model")
    assert done.returncode == 0, done.stderr
    alphas = [alpha_of(tmp_path / "cut" / f"{number}.png") for number in range(3)]
    assert not (tmp_path / "cut" / "3.png").exists()
    assert np.array_equal(alphas[0], alphas[2])
    assert not np.array_equal(alphas[0], alphas[1])
    assert all(0.3 < alpha.mean() / 255 < 0.8 for alpha in alphas)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_the_ffmpeg_lines_of_the_docs(
    installed_python: Path, clean_environment: dict[str, str], picture: Path, tmp_path: Path
) -> None:
    """A film in, its cut-out frames and a film with transparency out."""
    page = (CHECKOUT / "docs" / "pages" / "rembg.md").read_text("utf-8")
    lines = re.findall(r"^ *(ffmpeg .*)$", page, re.MULTILINE)
    assert len(lines) == 2
    rembg = tmp_path / "rembg"
    rembg.write_text(f"#!/bin/sh\nexec '{installed_python}' -c '{REMBG}' \"$@\"\n")
    rembg.chmod(0o755)
    film = ["ffmpeg", "-loglevel", "error", "-loop", "1", "-i", picture, "-t", "0.4", "-r", "10"]
    film += ["-vf", "scale=120:160", "-pix_fmt", "yuv420p", "in.mp4"]
    subprocess.run(film, cwd=tmp_path, check=True, stdin=subprocess.DEVNULL)
    env = {**clean_environment, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    for line in lines:
        command = ["/bin/sh", "-c", line.replace("1280 720", "120 160")]
        subprocess.run(command, cwd=tmp_path, env=env, check=True, stdin=subprocess.DEVNULL)
    frames = sorted(tmp_path.joinpath("frames").iterdir())
    assert [frame.name for frame in frames] == [f"{number:05}.png" for number in range(4)]
    assert 0.3 < alpha_of(frames[-1]).mean() / 255 < 0.8
    assert (tmp_path / "out.mov").stat().st_size > 1000


def test_rembg_d(rembg: Launch, tmp_path: Path) -> None:
    """Downloading is checking the file: no network, and a damaged file is named.

    Its exit status is rembg's own: 0 also then.
    """
    done = rembg("d", "u2net_human_ft", check=False)
    if "unexpected extra argument" in done.stderr:
        pytest.skip("this rembg's `d` takes no model name")
    assert done.returncode == 0
    assert "Error" not in done.stdout + done.stderr
    missing = str(tmp_path / "missing.onnx")
    done = rembg("d", "u2net_human_ft", env={"U2NET_HUMAN_WEIGHTS": missing})
    assert f"Error downloading model: {missing}: cannot be read" in done.stdout
