"""Over 600 odd and damaged files through every way into the model: a cut-out, or an error.

The files are those of ``bad_input.py``. The hosts are the real ones, each in one process
(``bad_input_ways.py``), because starting one takes seconds; a sample goes through the real
command lines. Where a file fails, it has to fail in the host without us, too.

The network is a tiny one, a user's own weights file, that takes light for people: what a
file can break lies before and behind the network, whose input always has the same size
and range.
"""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_input import cases, encoded, picture, write
from bad_input_ways import Outcome, read_report
from light import Light
from PIL import Image, ImageOps
from rembg_server import Server, running_server

from u2net_human_plugin import HumanSegmenter, Options
from u2net_human_plugin.errors import DataError, WeightsError
from u2net_human_plugin.settings import Settings

TESTS = Path(__file__).parent
Launch = Callable[..., "subprocess.CompletedProcess[Any]"]
Report = dict[str, Outcome]

#: What the installed script ``rembg`` does.
REMBG = "from rembg.cli import main; main()"

#: Pillow's, about the very damage that is meant.
pytestmark = [pytest.mark.process, pytest.mark.filterwarnings("ignore::UserWarning:PIL")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases, as files."""
    path = tmp_path_factory.mktemp("bad") / "input"
    write(path)
    return path


@pytest.fixture(scope="module")
def environment(
    clean_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Of a user with the tiny network; the official U²-Netp lies where rembg looks for it."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    home = tmp_path_factory.mktemp("models")
    light = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "weight"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], ["alpha"]),
        ],
        "light",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 64, 64])],
        [helper.make_tensor_value_info("alpha", TensorProto.FLOAT, ["n", 1, 64, 64])],
        [numpy_helper.from_array(np.full((1, 3, 1, 1), 4, np.float32), "weight")],
    )
    model = helper.make_model(light, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, home / "light.onnx")
    environment = {
        **clean_environment,
        "U2NET_HUMAN_WEIGHTS": str(home / "light.onnx"),
        "OMP_NUM_THREADS": "1",
    }
    official = TESTS.parents[2] / "shared" / "weights" / "u2netp.onnx"
    if official.is_file():
        (home / "u2netp.onnx").symlink_to(official)
        environment["U2NET_HOME"] = str(home)
    return environment


@pytest.fixture(scope="module")
def send(
    installed_python: Path,
    environment: dict[str, str],
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[Report, Path]]:
    """Sends all files one way, ``send("rembg-i")``: what became of them, and the outputs."""

    def run(way: str) -> tuple[Report, Path]:
        workplace = tmp_path_factory.mktemp(way)
        outputs, report = workplace / "outputs", workplace / "report"
        command = [installed_python, TESTS / "bad_input_ways.py", way, folder, outputs, report]
        done = subprocess.run(
            command, env=environment, cwd=workplace, capture_output=True, timeout=1200, check=False
        )
        outcomes = read_report(report) if report.exists() else {}
        missing = sorted({file.name for file in folder.iterdir()} - set(outcomes))
        # An exit status below zero is a crash; the first missing file is what it died of.
        assert (done.returncode, missing[:1]) == (0, []), done.stderr.decode()[-2000:]
        assert sorted(file.name for file in workplace.iterdir()) == ["outputs", "report"]
        return outcomes, outputs

    return run


@pytest.fixture(scope="module")
def by_segmenter(send: Any) -> tuple[Report, Path]:
    return send("segmenter")


@pytest.fixture(scope="module")
def by_rembg(send: Any) -> tuple[Report, Path]:
    pytest.importorskip("rembg")
    return send("rembg-i")


def succeeded(report: Report) -> set[str]:
    return {file for file, outcome in report.items() if outcome.error is None}


def kind(error: str | None) -> str:
    return (error or "").partition(":")[0]


def open_whole(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def upright_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).size


def test_the_cases_are_many_and_always_the_same() -> None:
    """At least 500, under different names, the same in every run."""
    first, second = cases(), cases.__wrapped__()
    assert len({case.file for case in first}) >= 500
    # Two encodings hold the time at which they were made or come from a random id.
    assert [case.file for case in first] == [case.file for case in second]
    same = sum(a.content == b.content for a, b in zip(first, second, strict=True))
    assert same >= 0.95 * len(first)


@pytest.mark.process
def test_segmenter_gives_a_mask_or_the_decoders_error(
    by_segmenter: tuple[Report, Path], folder: Path
) -> None:
    """Whatever Pillow can decode has a mask of its size, under every option; no warnings.

    What Pillow cannot decode raises Pillow's own error.
    """
    report, outputs = by_segmenter
    for file, outcome in report.items():
        if outcome.error is None:
            mask = open_whole(outputs / f"{file}.png")
            assert (mask.mode, mask.size) == ("L", open_whole(folder / file).size), file
        else:
            assert kind(outcome.host_error) == kind(outcome.error), outcome
        assert "u2net_human_plugin" not in outcome.said, outcome
    assert 250 < len(succeeded(report)) < len(report) - 250


@pytest.mark.process
def test_rembg_i_fails_only_where_rembg_does(by_rembg: tuple[Report, Path], folder: Path) -> None:
    """A cut-out of the upright size, or the error that rembg has with its own model.

    rembg opens the output before it cuts out: after an error, an empty file remains, never
    a part of one.
    """
    report, outputs = by_rembg
    compared = 0
    for file, outcome in report.items():
        output = outputs / f"{file}.png"
        assert "u2net_human_plugin" not in outcome.said, outcome
        if outcome.error is None:
            cutout = open_whole(output)
            assert (cutout.mode, cutout.size) == ("RGBA", upright_size(folder / file)), file
        else:
            assert output.stat().st_size == 0, file
            compared += outcome.host_error is not None
            assert kind(outcome.host_error) in (kind(outcome.error), ""), outcome
    failed = set(report) - succeeded(report)
    # Without rembg's own weights there is nothing to compare with.
    assert compared in (0, len(failed))
    assert 250 < len(failed) < len(report) - 250


@pytest.mark.process
def test_rembg_compares_with_its_own_model(
    by_rembg: tuple[Report, Path], official_onnx: Path
) -> None:
    """Beside the shared folder, the comparison above takes place: every failure is rembg's."""
    assert official_onnx.is_file()
    report, _ = by_rembg
    assert all(o.host_error for o in report.values() if o.error)


def test_rembg_p_goes_on_and_agrees_with_rembg_i(
    by_rembg: tuple[Report, Path],
    folder: Path,
    launch: Launch,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    """A folder with all cases: exit status 0 and the same cut-outs, bit for bit.

    rembg skips what does not look like a picture in its first bytes, and says nothing.
    """
    filetype = pytest.importorskip("filetype")
    report, of_i = by_rembg
    single = {}  # rembg p names outputs without the input's extension
    for case in cases():
        single.setdefault(Path(case.file).stem, case.file)
    several = tmp_path / "in"
    several.mkdir()
    for file in single.values():
        (several / file).hardlink_to(folder / file)
    outputs = tmp_path / "out"
    command = ("-c", REMBG, "p", "-m", "u2net_human_ft", several, outputs)
    done = launch(*command, env=environment, timeout=600)
    assert "Traceback" not in done.stdout + done.stderr

    def is_picture(file: str) -> bool:
        found = filetype.guess(folder / file)
        return found is not None and "image" in found.mime

    expected = {file for file in single.values() if file in succeeded(report) and is_picture(file)}
    found = {single[path.stem] for path in outputs.iterdir()}
    assert found == expected
    for file in expected:
        cutout = (outputs / file).with_suffix(".png").read_bytes()
        assert cutout == (of_i / f"{file}.png").read_bytes(), file


@pytest.fixture(scope="module")
def server(
    installed_python: Path,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    pytest.importorskip("fastapi")
    with running_server(installed_python, environment, tmp_path_factory.mktemp("server")) as it:
        yield it


@pytest.mark.process
def test_server_answers_every_file_and_lives(server: Server, by_rembg: tuple[Report, Path]) -> None:
    """200 with the cut-out of `rembg i`, or the host's 500; the next request is served."""
    report, of_i = by_rembg
    good = encoded(picture(), "PNG")
    for case in cases():
        status, body = server.remove(case.content)
        if not case.content:  # FastAPI takes an empty upload for a missing one
            assert status in (422, 500), case.name
        elif report[case.file].error is None:
            assert status == 200, (case.name, body[:200])
            answer = Image.open(io.BytesIO(body))
            expected = open_whole(of_i / f"{case.file}.png")
            assert answer.size == expected.size, case.name
            assert answer.getchannel("A").tobytes() == expected.getchannel("A").tobytes()
        else:
            assert (status, body) == (500, b"Internal Server Error"), case.name
    status, body = server.remove(good)
    assert status == 200
    assert Image.open(io.BytesIO(body)).size == picture().size


@pytest.mark.process
def test_transparent_background_fails_only_where_its_own_loader_does(
    send: Any, folder: Path
) -> None:
    """A cut-out of the stored size, or an error: the host's own, or ours in one line."""
    pytest.importorskip("transparent_background")
    report, outputs = send("transparent-background")
    for file, outcome in report.items():
        results = [*(outputs / file).iterdir()] if (outputs / file).is_dir() else []
        if outcome.error is None:
            (result,) = results
            with Image.open(folder / file) as given:
                cutout = open_whole(result)
                assert (cutout.mode, cutout.size) == ("RGBA", given.size), file
            continue
        assert results == [], file
        assert outcome.host_error is not None, outcome
        if kind(outcome.error) == "SystemExit":
            assert "transparent-background needs two pixels" in outcome.error, outcome
        else:
            # AssertionError: what the host refuses before it opens a file.
            assert kind(outcome.host_error) in (kind(outcome.error), "AssertionError"), outcome
    assert 200 < len(succeeded(report)) < len(report) - 250


SAMPLE = (
    "intact-jpeg-cmyk.jpg",
    "intact-png-palette-alpha.png",
    "float-broken.tif",
    "text-jpg.jpg",
    "bomb-png-real.png",
    "truncated-png-2.png",
)


@pytest.mark.parametrize("file", SAMPLE)
def test_command_line_of_rembg(
    file: str, folder: Path, launch: Launch, clean_environment: dict[str, str], tmp_path: Path
) -> None:
    """The real command with the bundled model: exit status 0 and a cut-out, or 1 and an error.

    An error is a traceback of rembg's; its last line says what is wrong with the picture.
    """
    pytest.importorskip("rembg")
    target = tmp_path / "out.png"
    command = ("-c", REMBG, "i", "-m", "u2net_human_ft", folder / file, target)
    done = launch(*command, check=False, env=clean_environment)
    if file in SAMPLE[:3]:
        assert done.returncode == 0, done.stderr
        assert open_whole(target).size == picture().size
    else:
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith(("PIL.", "OSError: ")), last
        assert target.stat().st_size == 0


def test_command_line_of_transparent_background(
    folder: Path, launch: Launch, tmp_path: Path
) -> None:
    """The real command stops at a bad file in a folder, with the host's error and no crash."""
    pytest.importorskip("transparent_background")
    source = tmp_path / "in"
    source.mkdir()
    for number, file in enumerate((*SAMPLE[:2], "text-jpg.jpg")):
        (source / f"{number}-{file}").hardlink_to(folder / file)
    code = "import transparent_background as t, sys; sys.exit(t.console())"
    arguments = ("-m", "u2net_human_ft", "--source", source, "--dest", tmp_path / "out")
    done = launch("-c", code, *arguments, check=False)
    assert done.returncode == 1
    assert "UnidentifiedImageError" in done.stderr.strip().splitlines()[-1]
    made = sorted((tmp_path / "out").iterdir())
    assert [open_whole(path).mode for path in made] == ["RGBA", "RGBA"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("picture.jpg", "a str: expected a Pillow image"),
        (b"\xff\xd8", "a bytes: expected"),
        (None, "a NoneType: expected"),
        (np.zeros((4, 4, 3), np.float32), r"an array \(4, 4, 3\) of float32: expected uint8"),
        (np.zeros((4, 4, 5), np.uint8), r"an array \(4, 4, 5\) of uint8"),
        (np.zeros((2, 2), object), "of object"),
        (np.zeros((), np.uint8), r"an array \(\)"),
        (np.zeros((0, 4, 3), np.uint8), "4 x 0 pixels"),
        (Image.new("L", (0, 3)), "0 x 3 pixels"),
    ],
)
def test_what_is_no_picture_is_named(given: Any, message: str) -> None:
    """A path, bytes, arrays of another type, nothing at all: an error that says so."""
    with pytest.raises(DataError, match=message):
        HumanSegmenter(network=Light()).mask(given)


@pytest.mark.parametrize("mode", ["La", "RGBa", "RGBX", "PA", "HSV", "YCbCr", "LAB", "I;16B", "1"])
def test_rare_modes(mode: str) -> None:
    """Every mode that Pillow has can be looked at."""
    grey = picture("LA") if mode == "La" else picture("RGBA") if mode == "RGBa" else None
    image = grey.convert(mode) if grey else Image.new(mode, (9, 5))
    assert HumanSegmenter(network=Light()).mask(image).size == image.size


@pytest.mark.parametrize("value", [np.nan, np.inf, -3.0, 17.0])
@pytest.mark.parametrize("options", [Options(), Options(crop="self", refine="on")], ids=repr)
def test_a_network_that_answers_nonsense_is_an_error(value: float, options: Options) -> None:
    """NaN, or logits where alpha was expected: an error that blames the weights, no mask."""

    class Broken:
        settings = Settings(size=32)

        def __call__(self, batch: np.ndarray) -> np.ndarray:
            return np.full((len(batch), 8, 8), value, np.float32)

    with pytest.raises(WeightsError, match="damaged, or lack the sigmoid"):
        HumanSegmenter(network=Broken(), options=options).mask(picture())


def test_half_precision_may_overshoot() -> None:
    """A thousandth beyond 0…1 is rounding, not nonsense."""

    class Rounding:
        settings = Settings(size=32)

        def __call__(self, batch: np.ndarray) -> np.ndarray:
            return np.full((len(batch), 8, 8), 1.001, np.float32)

    assert HumanSegmenter(network=Rounding()).mask(picture()).getextrema() == (255, 255)
