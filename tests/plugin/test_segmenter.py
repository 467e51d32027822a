"""HumanSegmenter: the promises about masks, whatever the network, and the real one's answers.

Most tests use a stand-in for the network that takes light for people (tests/light.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from light import Light, people_of_light
from PIL import Image, ImageOps

import u2net_human_plugin
from u2net_human_plugin.errors import OptionError, PluginError
from u2net_human_plugin.options import Options
from u2net_human_plugin.refine import guided_filter, upsample_logits
from u2net_human_plugin.segmenter import HumanSegmenter
from u2net_human_plugin.settings import Settings


class Faint:
    """A network that is nearly sure that nobody is there: alpha is 0.01 everywhere."""

    settings = Settings()

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        return np.full((len(batch), 9, 9), 0.01, np.float32)


def noise(seed: int, size_wh: tuple[int, int]) -> Image.Image:
    """Smooth blobs of light, as a hard case between a photo and random pixels."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)
    return Image.fromarray(small).resize(size_wh, Image.Resampling.BICUBIC)


ALL_OPTIONS = [
    Options(crop="off"),
    Options(crop="self"),
    Options(crop="self", persons="largest", refine="on"),
    Options(persons="all", max_persons=1, min_person=0.01),
    Options(refine="on"),
    Options(crop="self", flip="on"),
]
sizes = st.tuples(st.integers(1, 400), st.integers(1, 400))


@given(sizes, st.integers(0, 9), st.sampled_from(["RGB", "L", "RGBA", "P"]))
@settings(deadline=None, max_examples=40)
@pytest.mark.parametrize("options", ALL_OPTIONS, ids=repr)
def test_a_mask_has_the_pictures_size_and_is_8_bit_grey(
    options: Options, size_wh: tuple[int, int], seed: int, mode: str
) -> None:
    """Any size from one pixel up, any options: an "L" mask and a float array in 0…1."""
    segmenter = HumanSegmenter(network=Light(), options=options)
    image = noise(seed, size_wh).convert(mode)
    mask = segmenter.mask(image)
    assert (mask.mode, mask.size) == ("L", size_wh)
    alpha = segmenter.alpha(image)
    assert alpha.dtype == np.float32
    assert alpha.shape == (size_wh[1], size_wh[0])
    assert (alpha == np.asarray(mask, np.float32) / np.float32(255)).all()


@pytest.mark.parametrize("size_wh", [(1, 1), (1, 20000), (20000, 1), (3, 700), (5000, 2)])
@pytest.mark.parametrize("colour", ["black", "white", "grey"])
def test_extreme_shapes_and_flat_pictures(size_wh: tuple[int, int], colour: str) -> None:
    """One pixel, hair-thin strips, black and white pictures: a mask, without a warning."""
    segmenter = HumanSegmenter(network=Light())
    for options in ALL_OPTIONS:
        with np.errstate(all="raise"):
            mask = segmenter.mask(Image.new("RGB", size_wh, colour), options)
        assert mask.size == size_wh


# Not the options that keep one person: of two alike, the mirrored picture may keep the other.
@given(st.integers(0, 99), st.sampled_from(ALL_OPTIONS[:2]), st.booleans())
@settings(deadline=None, max_examples=40)
def test_flipping_the_picture_flips_the_mask(seed: int, options: Options, left: bool) -> None:
    """Mirrored input, mirrored mask, within 5 of 255 at each pixel (resampling rounds)."""
    segmenter = HumanSegmenter(network=Light(), options=options)
    flip = ImageOps.mirror if left else ImageOps.flip
    image = noise(seed, (300, 200))
    mask = np.asarray(segmenter.mask(image), int)
    flipped = np.asarray(flip(segmenter.mask(flip(image))), int)
    assert np.abs(mask - flipped).max() <= 5


@given(st.integers(0, 200), st.integers(0, 200), st.sampled_from(ALL_OPTIONS))
@settings(deadline=None, max_examples=40)
def test_adding_a_border_moves_the_mask(left: int, top: int, options: Options) -> None:
    """A dark border of any width moves the mask with the picture: IoU at least 0.93."""
    segmenter = HumanSegmenter(network=Light(), options=options)
    image = people_of_light((300, 200), (60, 40, 150, 180))
    moved = people_of_light((300 + left, 200 + top), (60 + left, 40 + top, 150 + left, 180 + top))
    first = np.asarray(segmenter.mask(image)) >= 128
    second = np.asarray(segmenter.mask(moved))[top:, left:] >= 128
    assert (first & second).sum() / (first | second).sum() >= 0.93


@pytest.mark.parametrize("options", ALL_OPTIONS, ids=repr)
def test_nobody_in_the_picture_gives_an_empty_mask(options: Options) -> None:
    """The scale is fixed: a faint answer stays faint and is not stretched to full opacity."""
    low, high = HumanSegmenter(network=Faint()).mask(noise(0, (200, 100)), options).getextrema()
    assert low == high
    assert high == (0 if options.chooses_persons else 3)
    dark = HumanSegmenter(network=Light()).mask(Image.new("RGB", (200, 100)), options)
    assert dark.getextrema() == (0, 0)


@pytest.mark.parametrize(
    "grey", [pytest.param(134, id="alpha 0.65"), pytest.param(96, id="alpha 0.05")]
)
@pytest.mark.parametrize("options", ALL_OPTIONS)
def test_what_is_doubtful_throughout_is_nobody(options: Options, grey: int) -> None:
    """A grey ghost vanishes, and so does a mere haze; the person beside it stays."""
    picture = people_of_light((400, 300), (40, 60, 160, 280))
    ghost = picture.copy()
    ghost.paste((grey, grey, grey), (260, 60, 360, 280))
    segmenter = HumanSegmenter(network=Light(), options=options)
    mask = np.asarray(segmenter.mask(ghost))
    assert mask[100:240, 70:130].min() >= 250
    assert mask[100:240, 280:340].max() == 0


def test_flip_takes_the_mean_with_the_mirrored_picture() -> None:
    """A network that knows only the left half is half sure of either; one batch serves both.

    Of the top it is sure: a region of which it is sure nowhere would be taken for nobody.
    """

    class LeftHalf(Light):
        def __call__(self, batch: np.ndarray) -> np.ndarray:
            alphas = super().__call__(batch)
            alphas[:, 10:, 80:] = 0
            return alphas

    network = LeftHalf()
    segmenter = HumanSegmenter(network=network, crop="off")
    white = Image.new("RGB", (320, 320), "white")
    plain = np.asarray(segmenter.mask(white))
    assert (plain[:, :150].min(), plain[40:, 170:].max()) == (255, 0)
    both = np.asarray(segmenter.mask(white, Options(crop="off", flip="on")))
    assert np.abs(both[40:, [0, 100, 219, 319]].astype(int) - 128).max() <= 2
    assert network.batches == [1, 2]


def test_nothing_leaks_from_one_picture_to_the_next() -> None:
    """The mask of a picture is the same whatever came before it."""
    pictures = [noise(seed, (200 + 40 * seed, 150)) for seed in range(4)]
    for options in ALL_OPTIONS:
        alone = [
            HumanSegmenter(network=Light(), options=options).mask(one).tobytes() for one in pictures
        ]
        shared = HumanSegmenter(network=Light(), options=options)
        in_turn = [shared.mask(one).tobytes() for one in (*pictures, *pictures)]
        assert in_turn == [*alone, *alone]


def test_the_picture_is_not_changed() -> None:
    """The caller's image comes back as it was."""
    for options in ALL_OPTIONS:
        image = people_of_light((300, 200), (100, 50, 130, 110))
        before = image.tobytes()
        HumanSegmenter(network=Light(), options=options).mask(image)
        assert image.tobytes() == before


def test_one_segmenter_serves_many_threads() -> None:
    """Eight threads get the masks of a sequential run."""
    segmenter = HumanSegmenter(network=Light(), options=Options(crop="self", refine="on"))
    pictures = [noise(seed, (160, 120)) for seed in range(16)]
    expected = [segmenter.mask(picture).tobytes() for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda picture: segmenter.mask(picture).tobytes(), pictures * 3))
    assert found == expected * 3


def test_options_of_one_picture_hold_for_that_picture_alone() -> None:
    """Options given to mask() replace the segmenter's own for one call."""
    segmenter = HumanSegmenter(network=Light(), options=Options(crop="off"))
    pair = people_of_light((400, 200), (20, 40, 120, 180), (250, 100, 300, 180))
    both = segmenter.mask(pair).tobytes()
    assert segmenter.mask(pair, Options(persons="largest")).getpixel((270, 150)) == 0
    assert segmenter.mask(pair).tobytes() == both


@pytest.mark.parametrize("crop", ["off", "self"])
def test_a_haze_between_two_people_does_not_make_them_one(crop: str) -> None:
    """Of two people whom a grey veil, alpha about 0.06, joins, the smaller one can go."""
    picture = people_of_light((400, 300), (40, 60, 160, 280))
    picture.paste((98, 98, 98), (40, 100, 300, 280))
    picture.paste((255, 255, 255), (40, 60, 160, 280))
    picture.paste((255, 255, 255), (250, 150, 300, 280))
    segmenter = HumanSegmenter(network=Light(), options=Options().updated({"crop": crop}))
    both = np.asarray(segmenter.mask(picture))
    largest = np.asarray(
        segmenter.mask(picture, Options().updated({"crop": crop, "persons": "largest"}))
    )
    assert both[100:240, 70:130].min() >= 250
    assert both[180:260, 265:285].min() >= 250
    assert largest[100:240, 70:130].min() >= 250
    assert largest[180:260, 265:285].max() == 0


def test_single_options_can_be_given_by_name() -> None:
    """HumanSegmenter(crop="yolo") is short for Options, and as strict."""
    segmenter = HumanSegmenter(network=Light(), options=Options(persons="center"), crop="yolo")
    assert segmenter.options == Options("yolo", "center")
    with pytest.raises(OptionError, match="crop='YOLO'"):
        HumanSegmenter(network=Light(), crop="YOLO")
    with pytest.raises(OptionError, match="crops"):
        HumanSegmenter(network=Light(), crops="yolo")


def test_arrays_are_pictures_too() -> None:
    """A uint8 array (H,W), (H,W,3) or (H,W,4) gives the mask of the same Pillow image."""
    segmenter = HumanSegmenter(network=Light())
    for mode in ("L", "RGB", "RGBA"):
        image = noise(1, (120, 90)).convert(mode)
        assert segmenter.mask(np.asarray(image)).tobytes() == segmenter.mask(image).tobytes()


def test_the_environment_sets_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without options in code, the environment's are used, and a wrong one is an error."""
    monkeypatch.setenv("U2NET_HUMAN_PERSONS", "center")
    assert HumanSegmenter(network=Light()).options == Options(persons="center")
    monkeypatch.setenv("U2NET_HUMAN_PERSONS", "middle")
    with pytest.raises(PluginError, match="U2NET_HUMAN_PERSONS='middle'"):
        HumanSegmenter(network=Light())


LARGE = """
import resource, sys
from light import Light
from PIL import Image
from test_segmenter import ALL_OPTIONS
from u2net_human_plugin.segmenter import HumanSegmenter
from u2net_human_plugin.settings import Settings

def peak():
    if sys.platform == "linux":  # where ru_maxrss is never below that of the parent process
        status = open("/proc/self/status").read()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used * (1 if sys.platform == "darwin" else 1024)

segmenter = HumanSegmenter(network=Light())
boxes = (1000, 800, 1500, 2200), (4000, 400, 4300, 1500), (2500, 3000, 2600, 3300)
for size in ((600, 400), (6000, 4000)):
    image = Image.new("RGB", size, "black")
    for box in boxes:
        image.paste("white", box)
    before = peak()
    segmenter.mask(image, ALL_OPTIONS[int(sys.argv[1])])
print((peak() - before) / 24e6)
"""


@pytest.mark.process
@pytest.mark.parametrize("options", [0, 1, 2, 3, 5], ids=lambda number: repr(ALL_OPTIONS[number]))
def test_memory_on_a_large_picture_is_bounded(options: int) -> None:
    """Beside a picture of 24 megapixels itself, at most 5 bytes a pixel, with any options."""
    pytest.importorskip("resource", reason="needs a Unix to measure the peak")
    here = Path(__file__).parent
    folders = (Path(u2net_human_plugin.__file__).parents[1], here, here.parent)
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(options)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        check=True,
        capture_output=True,
        text=True,
    )
    assert 1 <= float(done.stdout) <= 5


def test_enlarging_keeps_an_edge_in_place_and_steep() -> None:
    """The half-way line of a step stays between its cells, and a flat map stays flat."""
    alpha = np.full((4, 16), 1e-3, np.float32)
    alpha[:, 8:] = 1 - 1e-3
    big = np.asarray(upsample_logits(alpha, (160, 40)), int)
    assert big[20, 79] < 128 <= big[20, 80]
    plain = Image.fromarray((alpha * 255).round().astype(np.uint8)).resize((160, 40), 2)
    assert big[20, 83] > np.asarray(plain, int)[20, 83]
    for level in (0.0, 1.0):
        flat = upsample_logits(np.full((3, 3), level, np.float32), (50, 20))
        assert flat.getextrema() == (round(level * 255), round(level * 255))


def as_alpha(mask: Image.Image) -> np.ndarray:
    return np.asarray(mask, np.float32) / np.float32(255)


def test_the_guided_filter_moves_the_edge_to_the_photos() -> None:
    """Much of what a mask lies beside the photo's edge is put right; far away it stays."""
    size_wh = (640, 480)
    photo = people_of_light(size_wh, (200, 100, 400, 400))
    truth = np.asarray(photo.convert("L")) > 128
    beside = people_of_light(size_wh, (204, 97, 397, 403)).convert("L")
    rough = as_alpha(beside.resize((80, 60), Image.Resampling.BOX))
    sharp = np.asarray(guided_filter(rough, photo))
    before = ((np.asarray(upsample_logits(rough, size_wh)) >= 128) != truth).sum()
    assert ((sharp >= 128) != truth).sum() < 0.6 * before
    assert sharp[200:300, 270:330].min() == 255
    assert sharp[:40].max() == 20


def test_the_guided_filter_sees_edges_of_colour_alone() -> None:
    """Red against a green of the same brightness: what is displaced is put right as well."""
    size_wh = (640, 480)
    photo = Image.new("RGB", size_wh, (0, 130, 0))
    photo.paste((255, 0, 0), (200, 100, 400, 400))
    truth = np.asarray(photo)[..., 0] > 128
    beside = people_of_light(size_wh, (204, 97, 397, 403)).convert("L")
    rough = as_alpha(beside.resize((80, 60), Image.Resampling.BOX))
    before = ((np.asarray(upsample_logits(rough, size_wh)) >= 128) != truth).sum()
    sharp = np.asarray(guided_filter(rough, photo))
    assert ((sharp >= 128) != truth).sum() < 0.6 * before


def test_the_guided_filter_leaves_flat_maps_alone() -> None:
    """No edge, nothing to do, in a picture full of texture."""
    for level in (0, 255):
        mask = guided_filter(np.full((3, 4), level / 255, np.float32), noise(3, (301, 200)))
        assert (mask.size, mask.getextrema()) == ((301, 200), (level, level))


@pytest.fixture(scope="module")
def real() -> HumanSegmenter:
    pytest.importorskip("onnxruntime")
    return HumanSegmenter(options=Options(crop="off"))


def test_the_bundled_network_finds_the_astronaut(
    real: HumanSegmenter, astronaut: Image.Image
) -> None:
    """The face is a person, the upper right corner is not."""
    alpha = real.alpha(astronaut)
    assert alpha[80:160, 190:245].mean() > 0.9
    assert alpha[:60, 470:].mean() < 0.1


def test_flipping_and_moving_a_real_photo(real: HumanSegmenter, astronaut: Image.Image) -> None:
    """The bundled network: IoU at least 0.75 when mirrored or moved by a border."""

    def iou(first: np.ndarray, second: np.ndarray) -> float:
        first, second = first >= 128, second >= 128
        return float((first & second).sum() / (first | second).sum())

    plain = np.asarray(real.mask(astronaut))
    flipped = np.asarray(ImageOps.mirror(real.mask(ImageOps.mirror(astronaut))))
    assert iou(plain, flipped) >= 0.75
    bordered = ImageOps.expand(astronaut, 40, "white")
    assert iou(plain, np.asarray(real.mask(bordered))[40:-40, 40:-40]) >= 0.75


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("person", r'no option "person"; did you mean "persons"\? The options: crop: '),
        ("max_people", r'no option "max_people"; did you mean "max_persons"\? The opt'),
        ("quality", r'no option "quality"\. The options: crop: '),
    ],
)
def test_an_option_that_does_not_exist_is_named(name: str, sentence: str) -> None:
    """With the nearest that there is, if one is near, and all options."""
    with pytest.raises(OptionError, match=f"^HumanSegmenter has {sentence}"):
        HumanSegmenter(**{name: 1})
