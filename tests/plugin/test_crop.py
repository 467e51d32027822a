"""People first, end to end: crops, seams, YOLO, and who may choose what is loaded."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from light import Light, people_of_light
from PIL import Image

import u2net_human_plugin
from u2net_human_plugin.errors import PluginError
from u2net_human_plugin.options import Options
from u2net_human_plugin.paste import paste
from u2net_human_plugin.regions import label_regions
from u2net_human_plugin.segmenter import HumanSegmenter

YOLO_WEIGHTS = Path(__file__).resolve().parents[3] / "shared" / "weights" / "yolov8n.pt"
SCENE = (1600, 1200)
SMALL = (700, 500, 760, 680)


def detector_of(*boxes: tuple[float, ...]) -> Callable[[Image.Image], Any]:
    """A detector that has seen these boxes in every picture."""
    return lambda _image: (np.array(boxes, np.float32).reshape(-1, 4), np.ones(len(boxes)))


def iou(mask: Image.Image, box: tuple[int, int, int, int]) -> float:
    found = np.asarray(mask) >= 128
    truth = np.zeros_like(found)
    truth[box[1] : box[3], box[0] : box[2]] = True
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize("crop", ["self", "yolo"])
def test_a_closer_look_makes_a_small_figure_sharper(crop: Any) -> None:
    """Error 1 - IoU at least halved against one look at the whole picture."""
    scene = people_of_light(SCENE, SMALL)
    segmenter = HumanSegmenter(network=Light(), detector=detector_of(SMALL))
    # Refined, so sharp an edge is right to the pixel even without a closer look.
    plain = 1 - iou(segmenter.mask(scene, Options(crop="off", refine="off")), SMALL)
    closer = 1 - iou(segmenter.mask(scene, Options(crop=crop, refine="off")), SMALL)
    assert closer < plain / 2


def test_a_picture_takes_three_batches_at_most() -> None:
    """One over the whole, one over its four parts, then one with a crop for each person."""
    network = Light()
    three = people_of_light(
        SCENE, (100, 100, 140, 220), (800, 500, 840, 620), (1400, 900, 1440, 1000)
    )
    HumanSegmenter(network=network, options=Options(crop="self")).mask(three)
    assert network.batches == [1, 4, 3]


LARGE, ASIDE = (200, 100, 1200, 1100), (1400, 500, 1440, 620)


@pytest.mark.parametrize(
    "boxes",
    [[LARGE], [(0, 0, 1600, 1200)], [LARGE, ASIDE]],
    ids=["one", "nothing else", "beside somebody small"],
)
def test_people_who_fill_the_picture_cost_no_second_look(
    boxes: list[tuple[int, int, int, int]],
) -> None:
    """Their mask is that of crop="off", bit for bit."""
    network = Light()
    scene = people_of_light(SCENE, *boxes)
    close = HumanSegmenter(network=network, options=Options(crop="self")).mask(scene)
    assert network.batches == [1]
    assert (
        close.tobytes()
        == HumanSegmenter(network=Light(), options=Options(crop="off")).mask(scene).tobytes()
    )


def test_whom_a_detector_finds_beside_somebody_large_is_looked_at_closer() -> None:
    """That is what it is asked for."""
    network = Light()
    segmenter = HumanSegmenter(network=network, detector=detector_of(LARGE, ASIDE), crop="yolo")
    segmenter.mask(people_of_light(SCENE, LARGE, ASIDE))
    assert network.batches == [1, 1]


class Nearsighted(Light):
    """Sees nobody who is smaller than 150 cells of its map."""

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        alphas = super().__call__(batch)
        for alpha in alphas:
            labels = label_regions(alpha >= 0.02)
            alpha[np.bincount(labels.ravel())[labels] < 150] = 0
        return alphas


@pytest.mark.parametrize("crop", ["self", "yolo"])
@pytest.mark.parametrize("persons", [None, "all"])
def test_people_too_small_for_the_first_look_are_found_in_a_part(crop: Any, persons: Any) -> None:
    """Once, although all four parts show them; whatever YOLO overlooks, too, unless it chooses."""
    middle = (780, 540, 840, 660)
    scene = people_of_light(SCENE, middle)
    network = Nearsighted()
    options = Options(crop=crop, persons=persons)
    segmenter = HumanSegmenter(network=network, options=options, detector=detector_of())
    mask = segmenter.mask(scene)
    found = not (crop == "yolo" and persons)
    assert iou(mask, middle) > 0.9 if found else not mask.getbbox()
    assert network.batches == ([1, 4, 1] if found else [1])  # else the mask is empty anyway
    assert not segmenter.mask(scene, Options(crop="off")).getbbox()


class Hasty(Light):
    """Overlooks the right half at first, and may see nobody in the largest closer look."""

    def __init__(self, *, denies: bool) -> None:
        super().__init__()
        self.denies = denies

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        alphas = super().__call__(batch)
        if len(self.batches) == 1:
            alphas[:, :, 80:] = 0
        if len(self.batches) == 3 and self.denies:
            alphas[0] = 0
        return alphas


@pytest.mark.parametrize("denies", [False, True])
@pytest.mark.parametrize(
    "choice", [{"persons": "largest"}, {"max_persons": 1}, {"persons": "all", "min_person": 0.02}]
)
def test_people_are_chosen_by_what_the_closer_looks_leave(
    denies: bool, choice: dict[str, Any]
) -> None:
    """A haze around somebody small, or around nobody, does not win over the larger person."""
    large, small = (200, 500, 350, 900), (1300, 300, 1380, 420)
    scene = people_of_light(SCENE, large)
    scene.paste((96, 96, 96), (1150, 200, 1590, 600))  # alpha 0.05
    scene.paste((255, 255, 255), small)
    segmenter = HumanSegmenter(network=Hasty(denies=denies), options=Options(**choice))
    assert iou(segmenter.mask(scene), large) > 0.95


@pytest.mark.parametrize(
    "choice", [{"persons": "all"}, {"max_persons": 2}, {"min_person": 0.0005}], ids=repr
)
def test_somebody_far_behind_stays_as_long_as_no_limit_is_reached(choice: dict[str, Any]) -> None:
    """With less than a hundredth of the near one's pixels, yet as much a person."""
    near, far = (200, 500, 450, 1100), (1300, 300, 1320, 360)
    scene = people_of_light(SCENE, near, far)
    mask = HumanSegmenter(network=Light(), options=Options(**choice)).mask(scene)
    assert mask.getpixel((1310, 330)) > 200
    assert mask.getpixel((300, 800)) == 255


def test_a_part_that_is_dark_all_over_is_nobody() -> None:
    """Seen in the whole picture's light it stays dark: the one person there is is the largest."""
    person = (60, 240, 150, 380)
    scene = people_of_light((300, 400), person)
    options = Options(crop="self", persons="largest")
    assert iou(HumanSegmenter(network=Light(), options=options).mask(scene), person) > 0.9


def test_one_bright_pixel_leaves_a_small_person_in_a_dark_picture() -> None:
    """The closer look has the first look's light, which does not know of a single pixel."""
    person = (700, 500, 790, 720)
    dark = people_of_light(SCENE, person).point(lambda value: value * 0.15)
    dark.putpixel((40, 40), (255, 255, 255))
    mask = HumanSegmenter(network=Light(), options=Options(crop="self")).mask(dark)
    assert iou(mask, person) > 0.9


def test_a_person_cut_by_the_box_shows_no_seam() -> None:
    """A tall figure of which the detector saw the middle third: no step along the border.

    In the mask's soft answers a step between the two looks would show; the blend keeps
    every change along the figure's axis below 8 of 255 a pixel.
    """

    class Uneasy(Light):
        """Less sure of what it sees in a crop than in the whole picture."""

        def __call__(self, batch: np.ndarray) -> np.ndarray:
            sureness = 0.99 if len(self.batches) == 0 else 0.6
            return super().__call__(batch) * np.float32(sureness)

    scene = people_of_light(SCENE, (700, 100, 800, 1100))
    seen = detector_of((690, 450, 810, 700))
    segmenter = HumanSegmenter(network=Uneasy(), options=Options(crop="yolo"), detector=seen)
    # What the coarse map joins to the person would widen the box: look at the paste itself.
    mask = HumanSegmenter(network=Uneasy(), options=Options(crop="off")).mask(scene)
    closer = Image.new("L", (300, 400), round(0.6 * 255))
    paste(mask, closer, (600, 400, 900, 800))
    along = np.asarray(mask, int)[150:1050, 750]
    assert along.min() < 170
    assert along.max() > 230
    assert np.abs(np.diff(along)).max() <= 8
    along = np.asarray(segmenter.mask(scene), int)[150:1050, 750]
    assert np.abs(np.diff(along)).max() <= 8


def test_a_person_cut_by_the_box_is_whole_in_the_mask() -> None:
    """The coarse map's safeguard: legs outside a detector's box stay."""
    person = (700, 500, 760, 680)
    scene = people_of_light(SCENE, person)
    upper_half = detector_of((700, 500, 760, 590))
    segmenter = HumanSegmenter(network=Light(), options=Options(crop="yolo"), detector=upper_half)
    assert iou(segmenter.mask(scene), person) > 0.95


def test_a_crop_at_the_pictures_border_counts_up_to_the_border() -> None:
    """Nothing is blended away where the picture ends."""
    mask = Image.new("L", (200, 100))
    paste(mask, Image.new("L", (80, 100), 255), (0, 0, 80, 100))
    pixels = np.asarray(mask)
    assert pixels[:, :70].min() == 255
    assert pixels[:, 80:].max() == 0
    assert (np.diff(pixels[50].astype(int)) <= 0).all()


@pytest.mark.parametrize("crop", ["off", "self", "yolo"])
@pytest.mark.parametrize(
    ("persons", "stays", "goes"),
    [("largest", (250, 300), (1200, 300)), ("center", (1200, 300), (250, 300))],
)
def test_people_not_chosen_vanish(
    crop: Any, persons: Any, stays: tuple[int, int], goes: tuple[int, int]
) -> None:
    """The one asked for stays whole, of the other nothing is left."""
    large, central = (200, 100, 300, 500), (1150, 250, 1230, 460)
    scene = people_of_light((2000, 700), large, central)
    detector = detector_of(large, central)
    options = Options(crop=crop, persons=persons)
    mask = HumanSegmenter(network=Light(), options=options, detector=detector).mask(scene)
    assert mask.getpixel(stays) == 255
    assert mask.getpixel(goes) == 0
    left, right = mask.crop((0, 0, 700, 700)), mask.crop((700, 0, 2000, 700))
    gone = right if goes[0] > 700 else left
    assert gone.getextrema() == (0, 0)


def test_a_person_not_chosen_vanishes_inside_the_kept_crop() -> None:
    """Two small figures close together in one crop: only the chosen one stays."""
    large, other = (700, 500, 760, 680), (790, 560, 820, 680)
    scene = people_of_light(SCENE, large, other)
    options = Options(crop="yolo", persons="largest")
    segmenter = HumanSegmenter(network=Light(), options=options, detector=detector_of(large, other))
    assert iou(segmenter.mask(scene), large) > 0.9


@pytest.mark.parametrize("crop", ["off", "self", "yolo"])
def test_no_person_found(crop: Any) -> None:
    """The whole picture's mask is used; with persons asked for, the mask is empty."""
    scene = Image.new("RGB", (800, 600))
    segmenter = HumanSegmenter(network=Light(), detector=detector_of())
    whole = segmenter.mask(scene, Options(crop="off"))
    assert segmenter.mask(scene, Options(crop=crop)).tobytes() == whole.tobytes()
    assert segmenter.mask(scene, Options(crop=crop, persons="all")).getextrema() == (0, 0)


def test_whom_the_detector_missed_the_first_look_finds() -> None:
    """In a closer look, beside the one the detector saw; but not if only some shall stay."""
    seen, missed = (200, 500, 260, 680), (1200, 500, 1260, 680)
    scene = people_of_light(SCENE, seen, missed)
    network = Light()
    segmenter = HumanSegmenter(network=network, detector=detector_of(seen))
    mask = segmenter.mask(scene, Options(crop="yolo"))
    assert network.batches == [1, 4, 2]
    right = (800, 0, *SCENE)
    alone = segmenter.mask(scene, Options(crop="self")).crop(right)
    assert mask.crop(right).tobytes() == alone.tobytes()
    network.batches.clear()
    chosen = segmenter.mask(scene, Options(crop="yolo", persons="largest"))
    assert network.batches == [1, 4, 1]
    assert chosen.crop(right).getextrema() == (0, 0)


def test_a_detector_in_code_gets_the_rgb_picture_in_its_own_size() -> None:
    """Whatever the mode of the picture, the detector sees RGB."""
    seen: list[Image.Image] = []

    def detector(image: Image.Image) -> tuple[Any, Any]:
        seen.append(image)
        return [], []

    HumanSegmenter(network=Light(), detector=detector, options=Options(crop="yolo")).mask(
        Image.new("LA", (30, 20))
    )
    assert [(image.mode, image.size) for image in seen] == [("RGB", (30, 20))]


def test_a_detectors_own_error_and_its_nonsense_are_not_swallowed() -> None:
    """What the user's detector raises arrives; what it should not return is named."""

    def broken(_image: Image.Image) -> Any:
        raise RuntimeError("no camera")

    picture = Image.new("RGB", (30, 20))
    with pytest.raises(RuntimeError, match="no camera"):
        HumanSegmenter(network=Light(), detector=broken, options=Options("yolo")).mask(picture)
    with pytest.raises(PluginError, match="must return"):
        HumanSegmenter(
            network=Light(), detector=lambda _image: [1, 2, 3], options=Options("yolo")
        ).mask(picture)


@pytest.mark.parametrize(
    ("chosen", "looks"),
    [
        pytest.param({"persons": "largest", "min_person": 0.5}, [1], id="nobody is large enough"),
        pytest.param({"persons": "largest"}, [1, 4, 1], id="somebody is"),
        pytest.param({}, [1, 4, 1], id="nobody is left out"),
    ],
)
def test_no_closer_look_where_nobody_stays(chosen: dict[str, Any], looks: list[int]) -> None:
    """The mask will be empty whatever the network says; else all looks are taken."""
    network = Light()
    segmenter = HumanSegmenter(network=network, detector=detector_of(SMALL), crop="yolo")
    mask = segmenter.mask(
        people_of_light(SCENE, SMALL), Options().updated({"crop": "yolo", **chosen})
    )
    assert network.batches == looks
    assert (mask.getextrema() == (0, 0)) is (looks == [1])


# YOLO itself, in a process of its own: what it prints, writes and sends is part of the test.


@pytest.fixture
def yolo_weights(shared: Path) -> Path:
    pytest.importorskip("ultralytics", reason="needs the extra `yolo`")
    assert YOLO_WEIGHTS.parents[1] == shared
    return YOLO_WEIGHTS


@pytest.fixture
def new_user(clean_environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """An environment with an empty home of its own and none of anyone's settings."""
    kept = {k: v for k, v in clean_environment.items() if not k.startswith("YOLO")}
    (tmp_path / "home").mkdir()
    folders = (Path(u2net_human_plugin.__file__).parents[1], Path(__file__).parents[1])
    path = os.pathsep.join(map(str, folders))
    return {**kept, "HOME": str(tmp_path / "home"), "PYTHONPATH": path}


def said(code: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What a program that ends well has printed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done


FIND = """
import json, socket
from ultralytics_assets import bus
looked_up = []
def refuse(*arguments, **keywords):
    looked_up.append(arguments)
    raise OSError("no network")
socket.getaddrinfo = socket.create_connection = refuse
from PIL import Image
from u2net_human_plugin.yolo import find_people
boxes, scores = find_people(Image.open(bus).convert("RGB"))
boxes, again = find_people(Image.open(bus).convert("RGB"))
assert (scores == again).all()
print(json.dumps([boxes.tolist(), str(boxes.dtype), str(scores.dtype), len(looked_up)]))
"""


@pytest.mark.process
def test_yolo_finds_people_and_is_silent(
    yolo_weights: Path, new_user: dict[str, str], tmp_path: Path
) -> None:
    """Four people at the bus; no chatter, no file in the home, no name looked up."""
    from importlib.util import find_spec

    package = Path(str(find_spec("ultralytics").origin)).parent  # type: ignore[union-attr]
    (tmp_path / "ultralytics_assets.py").write_text(f"bus = {str(package / 'assets/bus.jpg')!r}\n")
    done = said(FIND, tmp_path, {**new_user, "U2NET_HUMAN_YOLO_WEIGHTS": str(yolo_weights)})
    assert done.stderr == ""
    boxes, *rest = json.loads(done.stdout)
    assert rest == ["float32", "float32", 0]
    assert len(boxes) >= 4
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file()]


WHOLE = """
from pathlib import Path
import numpy as np, skimage
from PIL import Image, ImageOps
from u2net_human_plugin import HumanSegmenter
for name in "astronaut.png", "camera.png":
    picture = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
    for view in picture, ImageOps.mirror(picture), picture.reduce(2):
        everybody, largest = (
            np.asarray(HumanSegmenter(crop="yolo", **chosen).mask(view), int)
            for chosen in ({}, {"persons": "largest"})
        )
        print(largest.sum() / everybody.sum())
"""


@pytest.mark.process
def test_one_person_with_two_boxes_is_not_cut_in_two(
    yolo_weights: Path, new_user: dict[str, str], tmp_path: Path
) -> None:
    """YOLO finds two or three of most of these portraits; what stays of them is one whole person.

    Up to half of them was gone before boxes that overlap became one.
    """
    done = said(WHOLE, tmp_path, {**new_user, "U2NET_HUMAN_YOLO_WEIGHTS": str(yolo_weights)})
    kept = [float(line) for line in done.stdout.split()]
    assert len(kept) == 6
    assert min(kept) > 0.95, kept


@pytest.mark.process
@pytest.mark.parametrize(("name", "reason"), [("gone.pt", "no such file"), ("photo.jpg", ".pt")])
def test_yolo_weights_that_are_none(
    name: str, reason: str, new_user: dict[str, str], tmp_path: Path
) -> None:
    """The error names the file and the variable; nothing is downloaded instead."""
    pytest.importorskip("ultralytics", reason="needs the extra `yolo`")
    (tmp_path / "photo.jpg").write_bytes(b"a photo")
    code = "from PIL import Image; from u2net_human_plugin.yolo import find_people as f\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}f(Image.new('RGB', (9, 9)))"],
        cwd=tmp_path,
        env={**new_user, "U2NET_HUMAN_YOLO_WEIGHTS": str(tmp_path / name)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    error = done.stderr.splitlines()[-1]
    assert f"WeightsError: {tmp_path / name}: " in error
    assert reason in error
    assert "U2NET_HUMAN_YOLO_WEIGHTS" in error


EXPORTED = """
import os
import numpy as np
from PIL import Image
from u2net_human_plugin import yolo
exported = yolo.import_yolo()("people.pt").export(format="onnx", dynamic=True, simplify=False)
from ultralytics.utils import ASSETS
found = []
for os.environ["U2NET_HUMAN_YOLO_WEIGHTS"] in "people.pt", exported:
    yolo.preload()
    found.append(yolo.find_people(Image.open(ASSETS / "bus.jpg").convert("RGB"))[0])
np.testing.assert_allclose(*found, atol=2)
"""


@pytest.mark.process
def test_yolo_weights_may_be_exported(
    yolo_weights: Path, new_user: dict[str, str], tmp_path: Path
) -> None:
    """What ultralytics reads only with its first picture finds the same people."""
    pytest.importorskip("onnx", reason="needs the extra `train`")
    shutil.copy(yolo_weights, tmp_path / "people.pt")
    said(EXPORTED, tmp_path, new_user)


DOWNLOAD = """
import os, shutil, sys
from pathlib import Path
from PIL import Image
from u2net_human_plugin import yolo
opener = Image.open
yolo.import_yolo()
assert Image.open is opener  # ultralytics puts its own in its place
from ultralytics.utils import downloads
def download(url, file, **keywords):
    print(url.rpartition("/")[2], file)
    Path(file).parent.mkdir(parents=True)
    shutil.copy(sys.argv[1], file)
downloads.safe_download = download
for folder in ("one", "two"):
    os.mkdir(folder)
    os.chdir(folder)
    Path("yolov8n.pt").write_text("put here by somebody")
    yolo.find_people(Image.new("RGB", (64, 64)))
    yolo._models.clear()
    assert os.listdir() == ["yolov8n.pt"]
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        pytest.param({"U2NET_HUMAN_YOLO_WEIGHTS": ""}, "home/.rembg", id="home"),
        pytest.param({"XDG_DATA_HOME": "data"}, "data/rembg", id="a folder that rembg follows"),
    ],
)
def test_yolo_weights_are_downloaded_once(
    yolo_weights: Path,
    new_user: dict[str, str],
    tmp_path: Path,
    variables: dict[str, str],
    folder: str,
) -> None:
    """Beside rembg's models, whatever the working directory is and holds."""
    variables = {name: value and str(tmp_path / value) for name, value in variables.items()}
    done = subprocess.run(
        [sys.executable, "-c", DOWNLOAD, yolo_weights],
        cwd=tmp_path,
        env={**new_user, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    file = tmp_path / folder / "models" / "yolov8n" / "yolov8n.pt"
    assert done.stdout.splitlines() == [f"yolov8n.pt {file}"]


@pytest.mark.process
def test_without_ultralytics_the_extra_is_named(new_user: dict[str, str], tmp_path: Path) -> None:
    """crop="yolo" says what to install, and leaves one folder at most; everything else works."""
    code = """
import os, sys, tempfile
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "ultralytics":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from PIL import Image
from light import Light
from u2net_human_plugin import HumanSegmenter, Options
picture = Image.new("RGB", (30, 20))
HumanSegmenter(network=Light(), options=Options(crop="self")).mask(picture)
segmenter = HumanSegmenter(network=Light(), options=Options(crop="yolo"))
for _ in range(3):
    try:
        segmenter.mask(picture)
    except ImportError:
        pass
print(len(os.listdir(tempfile.gettempdir())))
segmenter.mask(picture)
"""
    folder = tmp_path / "temporary"
    folder.mkdir()
    variables = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**new_user, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert int(done.stdout) <= 1
    last = done.stderr.splitlines()[-1]
    assert "MissingExtraError: ultralytics is not installed" in last
    assert 'pip install "ultralytics' in last


@pytest.mark.process
@pytest.mark.parametrize("code", ["raise ImportError('no libGL.so.1')", "import no_libGL"])
def test_a_broken_ultralytics_is_not_called_missing(
    new_user: dict[str, str], tmp_path: Path, code: str
) -> None:
    """The error says what it lacks, and shows where."""
    package = tmp_path / "ultralytics"
    package.mkdir()
    (package / "__init__.py").write_text(code)
    find = "from PIL import Image; from u2net_human_plugin.yolo import find_people as f\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{find}f(Image.new('RGB', (9, 9)))"],
        cwd=tmp_path,
        env=new_user,
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert "BrokenExtraError: ultralytics cannot be imported: " in last
    assert "libGL" in last
    assert "direct cause" in done.stderr


@pytest.fixture
def server(
    installed_python: Path, new_user: dict[str, str], tmp_path: Path
) -> Iterator[tuple[str, Path]]:
    """A running `rembg s` of the installed package: its address and its working folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    rembg = "from rembg.cli import main; main()"
    command = [installed_python, "-c", rembg, "s", "--host", "127.0.0.1", "--port", str(port)]
    environment = {k: v for k, v in new_user.items() if k != "PYTHONPATH"}
    environment["U2NET_HUMAN_YOLO_WEIGHTS"] = str(YOLO_WEIGHTS)  # missing: an error, no download
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            if process.poll() is not None:
                pytest.fail(f"rembg s ended:\n{(tmp_path / 'log').read_text()}")
            try:
                urllib.request.urlopen(f"{address}/api", timeout=2).close()  # noqa: S310 - our own
                break
            except OSError:
                time.sleep(0.5)
        yield address, tmp_path
    finally:
        process.terminate()
        process.wait(30)


MALICIOUS_KEYS = (
    "yolo_weights weights model model_path detector yolo yolo_model ckpt network path "
    "u2net_human_yolo_weights U2NET_HUMAN_YOLO_WEIGHTS"
)


@pytest.mark.process
def test_a_remote_caller_cannot_choose_what_is_loaded(server: tuple[str, Path]) -> None:
    """Extras that name a pickle are posted to a running server; the pickle never runs.

    The pickle is what ultralytics would load: loading it would create a file.
    """
    import torch

    address, folder = server
    proof = folder / "the pickle ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (proof,))

    pickle = folder / "yolov8n-evil.pt"
    torch.save({"model": Payload()}, pickle)
    torch.load(pickle, weights_only=False)
    assert proof.exists(), "the test's own pickle does nothing"
    proof.unlink()

    picture = BytesIO()
    people_of_light((80, 60), (20, 10, 50, 50)).save(picture, "PNG")
    keys = MALICIOUS_KEYS.split()
    unknown_keys = [{"crop": "yolo", key: str(pickle)} for key in keys]
    wrong_values = [
        {"crop": str(pickle)},
        {"persons": str(pickle)},
        {"crop": {"yolo": str(pickle)}},
    ]
    # Wrong values are errors; keys that ask for a file are refused or not looked at.
    answers = []
    for extra in (*unknown_keys, *wrong_values):
        query = urllib.parse.urlencode({"extras": json.dumps(extra)})
        answers.append(post(f"{address}/api/remove?{query}", picture.getvalue())[0])
    assert set(answers) <= {200, 400, 500}
    assert set(answers[len(unknown_keys) :]) == {400}
    # Not looked at: YOLO ran, with the weights that the server's environment names.
    assert answers[0] == (200 if YOLO_WEIGHTS.is_file() else 500)
    assert not proof.exists()
    # And the server lives: a plain request is answered with a cut-out.
    status, body = post(f"{address}/api/remove", picture.getvalue())
    assert status == 200
    assert Image.open(BytesIO(body)).size == (80, 60)
    assert "OptionError" not in (folder / "log").read_text()


def post(url: str, picture: bytes) -> tuple[int, bytes]:
    """Send a picture to rembg's server for our model; the answer's status and body."""
    mark, line = "7d1f", "\r\n"
    part = f'--{mark}{line}Content-Disposition: form-data; name="'
    head = f'{part}model"{line * 2}u2net_human_ft{line}{part}file"; filename="a.png"{line * 2}'
    request = urllib.request.Request(  # noqa: S310 - the address is our own server's
        url,
        head.encode() + picture + f"{line}--{mark}--{line}".encode(),
        {"Content-Type": f"multipart/form-data; boundary={mark}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - as above
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
