"""The command transparent-background, unmodified, with u2net_human_ft."""

from __future__ import annotations

import re
import shutil
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from u2net_human_plugin import HumanSegmenter
from u2net_human_plugin.hosts import transparent_background as adapter
from u2net_human_plugin.weights import MODEL_NAME

cv2 = pytest.importorskip("cv2", reason="needs the extra transparent-background")
pytestmark = pytest.mark.skipif(
    find_spec("transparent_background") is None, reason="needs the extra transparent-background"
)


@pytest.fixture(scope="module")
def script(installed_python: Path) -> Path:
    """The command's own file, as pip made it for the host."""
    beside = [Path(installed_python).parent, Path(sys.executable).parent]
    found = [shutil.which("transparent-background", path=folder) for folder in beside]
    return Path(next(path for path in found if path))


@pytest.fixture(scope="module")
def picture(astronaut) -> Image.Image:
    return astronaut.resize((301, 227)).crop((0, 0, 301, 203))


@pytest.fixture
def folder(tmp_path, picture) -> Path:
    """Pictures as folders hold them: several formats and modes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    picture.save(folder / "photo.jpg", quality=95)
    picture.convert("RGBA").save(folder / "layered.png")
    picture.convert("L").save(folder / "grey.png")
    return folder


@pytest.fixture(scope="module")
def host():
    """The host's module ``transparent_background.Remover``, with our adapter in it."""
    import_module("transparent_background")
    module = sys.modules["transparent_background.Remover"]
    adapter.patch(module)
    return module


@pytest.fixture
def command(host, tmp_path, monkeypatch, capsys):
    """Runs the command in this process, where its libraries are loaded: (status, out, err)."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int | str, str, str]:
        monkeypatch.setattr(sys, "argv", ["transparent-background", *map(str, arguments)])
        status: int | str = 0
        try:
            host.console()
        except SystemExit as exit_:
            status = exit_.code or 0
        return status, *capsys.readouterr()

    return run


def test_the_real_command(script, launch, folder):
    """One pip install later: a folder is cut out; no configuration, no download, cheap start."""
    package = Path(find_spec("transparent_background").origin).parent
    before = _files(package)
    # A home of its own: what rembg's commands leave in the common one is not ours.
    home = folder.parent / "home"
    home.mkdir()
    done = launch(
        *("-X", "importtime", script, "--source", folder, "--model", MODEL_NAME),
        *("--dest", folder.parent / "out"),
        env={"CUDA_VISIBLE_DEVICES": "", "HOME": str(home), "USERPROFILE": str(home)},
    )
    assert f"Mode={MODEL_NAME}, Device=cpu" in done.stdout
    cutouts = {path.name: Image.open(path) for path in (folder.parent / "out").iterdir()}
    assert sorted(cutouts) == ["grey_rgba.png", "layered_rgba.png", "photo_rgba.png"]
    for path in folder.iterdir():
        cutout = cutouts[f"{path.stem}_rgba.png"]
        expected = HumanSegmenter().mask(Image.open(path))
        np.testing.assert_array_equal(cutout.getchannel("A"), expected)
    written = {path.name for path in home.rglob("*")}
    assert not written & {".transparent-background", "config.yaml", ".onnxruntime"}
    assert _files(package) == before

    # "import time: self | cumulative | name", in microseconds, the name indented by depth.
    times = {
        name: int(cumulative)
        for cumulative, name in re.findall(r"\| +(\d+) \| +([\w.]+)$", done.stderr, re.MULTILINE)
    }
    ours = times["u2net_human_plugin.hosts.transparent_background"]
    assert ours < 0.05 * times["transparent_background"]


def test_real_command_with_a_wrong_checkpoint(script, launch, folder):
    """A wrong --ckpt ends the command with one line, status 1 and no output."""
    (folder / "wrong.pth").write_text("not a network")
    done = launch(
        *(script, "-s", folder, "-m", MODEL_NAME, "-c", folder / "wrong.pth", "-d", "out"),
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert re.match(r"transparent-background: error: .*wrong\.pth: cannot be read", last)
    assert not (folder.parent / "out").exists()


def test_yolo_that_is_not_installed_ends_the_command(launch, folder):
    """In one line, before the first picture; in code, the constructor says the same."""
    code = "import sys; sys.modules['ultralytics'] = None\n"
    console = "from transparent_background import console; console()"
    wanted = ("-s", folder, "-m", MODEL_NAME, "-d", "out")
    done = launch("-c", code + console, *wanted, check=False, env={"U2NET_HUMAN_CROP": "yolo"})
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    said = 'ultralytics is not installed; crop="yolo" needs it: `pip install'
    assert done.stderr.strip().splitlines()[-1].startswith(f"transparent-background: error: {said}")
    assert not (folder.parent / "out").exists()


def _files(package: Path) -> list[tuple[Path, float]]:
    """What is in the host's package, compiled files aside."""
    paths = sorted(package.rglob("*"))
    return [(path, path.stat().st_mtime) for path in paths if "__pycache__" not in path.parts]


def test_model_is_in_the_help(command):
    """--help shows --model and names the model."""
    status, out, _ = command("--help")
    assert status == 0
    assert re.search(r"--model MODE +Same as --mode\.\s+u2net_human_ft", out)
    assert "--mod " not in out


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [
        ([], "base"),
        (["--model", "fast"], "fast"),
        (["--model=fast"], "fast"),
        (["--mode", "fast", "--model", "fast"], "fast"),
        (["-m", "fast"], "fast"),
        (["--mod", "fast"], "fast"),
        (["--m", "fast"], "fast"),
        (["--mode", MODEL_NAME], MODEL_NAME),
    ],
)
def test_model_means_mode(host, arguments, mode, monkeypatch):
    """--model and --mode are one option; the default and abbreviations stay as they were."""
    monkeypatch.setattr(sys, "argv", ["transparent-background", "-s", "x", *arguments])
    parsed = host.parse_args()
    assert parsed.mode == mode
    assert not hasattr(parsed, "model")
    if "model" not in " ".join(arguments):
        assert parsed == host.parse_args.__wrapped__()


def test_contradiction_is_an_error(command):
    """--mode and --model with different names end with the usage and status 2."""
    status, _, err = command("--mode", "base", "--model", MODEL_NAME, "-s", "x")
    assert status == 2
    assert f"--mode base and --model {MODEL_NAME} differ" in err


def test_unknown_model_lists_the_known_ones(command):
    """The command ends with one line that names the modes there are."""
    status, _, _ = command("--model", "u2net", "-s", "x")
    assert status == (
        "transparent-background: error: mode='u2net': expected one of base, fast, "
        f"base-nightly, {MODEL_NAME}."
    )


def test_every_output_type(command, folder, picture, tmp_path):
    """Each --type is what the host makes of our mask: picture inside, its own outside."""
    backdrop = np.full((64, 64, 3), (9, 99, 199), np.uint8)
    Image.fromarray(backdrop).save(tmp_path / "backdrop.png")
    source = folder / "layered.png"  # lossless
    mask = np.asarray(HumanSegmenter().mask(picture))
    inside, outside = mask == 255, mask == 0
    assert inside.any()
    assert outside.any()
    photo = np.asarray(picture)
    grounds = {
        "green": (120, 255, 155),
        "white": (255, 255, 255),
        "[10, 20, 30]": (10, 20, 30),
        str(tmp_path / "backdrop.png"): (9, 99, 199),
        "overlay": None,
        "blur": None,
    }
    for kind, ground in grounds.items():
        status, _, err = command("-s", source, "--model", MODEL_NAME, "-t", kind, "-d", "out")
        assert status == 0, err
        name = "backdrop" if kind.endswith(".png") else kind
        found = np.asarray(Image.open(tmp_path / "out" / f"layered_{name}.png"))
        assert found.shape == photo.shape
        if ground is not None:
            np.testing.assert_array_equal(found[inside], photo[inside])
            np.testing.assert_array_equal(
                found[outside], np.broadcast_to(ground, photo.shape)[outside]
            )
        elif kind == "overlay":
            # The host draws the mask's edge over both.
            drawn = (found == (120, 255, 155)).all(-1)
            np.testing.assert_array_equal(found[outside & ~drawn], photo[outside & ~drawn])
            assert not np.array_equal(found[inside], photo[inside])
        else:
            np.testing.assert_array_equal(found[inside], photo[inside])
            assert found[outside].std() < photo[outside].std()


def test_threshold_reverse_format_resize_jit_device(command, folder, picture, tmp_path):
    """The host's other switches, all at once, act on our mask."""
    mask = np.asarray(HumanSegmenter().mask(picture))
    status, _, err = command(
        *("-s", folder / "layered.png", "--mode", MODEL_NAME, "--type", "map", "--dest", "out"),
        *("--threshold", "0.5", "--reverse", "--format", "bmp", "--resize", "dynamic"),
        *("--jit", "--device", "cpu"),
    )
    assert status == 0, err
    found = np.asarray(Image.open(tmp_path / "out" / "layered_map_reverse.bmp"))[..., 0]
    assert set(np.unique(found)) == {0, 255}
    certain = np.abs(mask.astype(int) - 127.5) > 3  # torch and onnxruntime differ in the last bits
    np.testing.assert_array_equal(found[certain], np.where(mask > 127, 0, 255)[certain])


def test_video(command, picture, tmp_path):
    """Every frame of a video gets its own mask."""
    frames = [
        picture.resize((96, 64)),
        picture.resize((96, 64)).rotate(180),
        picture.resize((96, 64)),
    ]
    writer = cv2.VideoWriter(
        str(tmp_path / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (96, 64)
    )
    for frame in frames:
        writer.write(cv2.cvtColor(np.asarray(frame), cv2.COLOR_RGB2BGR))
    writer.release()

    status, _, err = command("-s", "clip.mp4", "--model", MODEL_NAME, "-t", "map", "-d", "out")
    assert status == 0, err
    made, original = (
        cv2.VideoCapture(str(tmp_path / name)) for name in ("out/clip_map.mp4", "clip.mp4")
    )
    for _ in frames:
        (_, found), (_, frame) = made.read(), original.read()
        expected = np.asarray(HumanSegmenter().mask(frame[..., ::-1]))
        assert np.abs(found.mean(-1) - expected).mean() < 12  # mp4 is lossy
    assert not made.read()[0]
