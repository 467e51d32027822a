"""Boxes and regions: pure functions, checked against answers known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from u2net_human_plugin import choose, people
from u2net_human_plugin.boxes import Boxes, intersection_xyxy, joined_xyxy
from u2net_human_plugin.errors import PluginError
from u2net_human_plugin.hysteresis import bar_for, hysteresis
from u2net_human_plugin.options import Options
from u2net_human_plugin.regions import label_regions, region_boxes_xyxy
from u2net_human_plugin.settings import Settings

SETTINGS = Settings()


def boxes(*rows: tuple[float, float, float, float]) -> Boxes:
    return np.array(rows, np.float32).reshape(-1, 4)


def picture(*rows: str) -> np.ndarray:
    """A mask drawn in text: # is set."""
    return np.array([[character == "#" for character in row] for row in rows])


@pytest.mark.parametrize(
    ("mask", "count", "expected"),
    [
        pytest.param(picture("....", "...."), 0, [], id="empty"),
        pytest.param(picture("#"), 1, [(0, 0, 1, 1)], id="one cell that is everything"),
        pytest.param(picture("##.#", "...#"), 2, [(0, 0, 2, 1), (3, 0, 4, 2)], id="two"),
        pytest.param(picture("#.", ".#"), 1, [(0, 0, 2, 2)], id="corners touch"),
        pytest.param(picture("#.#", "#.#", "###"), 1, [(0, 0, 3, 3)], id="U: joined late"),
        pytest.param(picture("#.#.#", "#####"), 1, [(0, 0, 5, 2)], id="comb"),
        pytest.param(
            picture("#####", "#...#", "#.#.#", "#...#", "#####"),
            2,
            [(0, 0, 5, 5), (2, 2, 3, 3)],
            id="an island in a ring",
        ),
        pytest.param(picture(".##", "#..", ".##"), 1, [(0, 0, 3, 3)], id="C: joined backwards"),
    ],
)
def test_label_regions(mask: np.ndarray, count: int, expected: list[tuple[int, ...]]) -> None:
    """Regions are 8-connected, numbered from 1, and boxed with exclusive ends."""
    labels = label_regions(mask)
    assert labels.max(initial=0) == count
    assert ((labels > 0) == mask).all()
    assert region_boxes_xyxy(labels).tolist() == [list(map(float, box)) for box in expected]


@given(st.integers(0, 2**32 - 1), st.integers(1, 24), st.integers(1, 24), st.floats(0, 1))
def test_label_regions_on_noise(seed: int, height: int, width: int, share: float) -> None:
    """Neighbours share a number, and a region's cells are all reachable from one of them."""
    mask = np.random.default_rng(seed).random((height, width)) < share
    labels = label_regions(mask)
    for region in range(1, labels.max(initial=0) + 1):
        cells = labels == region
        seed_cell = np.zeros(mask.shape, bool)
        seed_cell[tuple(np.argwhere(cells)[0])] = True
        flooded = flood(seed_cell, mask)
        assert (flooded == cells).all()


@given(st.integers(0, 2**32 - 1), st.integers(0, 24), st.integers(1, 24), st.floats(0, 1))
def test_doubtful_regions_vanish_and_nothing_else(
    seed: int, height: int, width: int, bar: float
) -> None:
    """Each cell stays or goes with the highest one of its region; what is below haze stays."""
    values = np.random.default_rng(seed).random((height, width), np.float32) ** 9
    before = values.copy()
    labels = label_regions(values >= SETTINGS.haze)
    expected = values.copy()
    for region in range(1, labels.max(initial=0) + 1):
        if values[labels == region].max() < bar:
            expected[labels == region] = 0
    assert (hysteresis(values, bar, SETTINGS.haze) == expected).all()
    assert (values == before).all()


@pytest.mark.parametrize(
    ("surest", "bar"),
    [
        pytest.param(1.0, SETTINGS.sure, id="somebody is surely there"),
        pytest.param(0.97, 0.97, id="the surest stays"),
        pytest.param(0.3, SETTINGS.floor, id="nobody"),
    ],
)
def test_the_bar_is_relative_to_the_surest(surest: float, bar: float) -> None:
    """What is doubtful goes only beside what is surer, or below the floor."""
    maps = [np.full((2, 2), alpha, np.float32) for alpha in (0.1, surest, 0.2)]
    assert bar_for(maps, SETTINGS) == pytest.approx(bar)


def flood(reached: np.ndarray, mask: np.ndarray) -> np.ndarray:
    while True:
        padded = np.pad(reached, 1)
        around = sum(
            padded[dy : dy + mask.shape[0], dx : dx + mask.shape[1]].astype(int)
            for dy in range(3)
            for dx in range(3)
        )
        larger = (around > 0) & mask
        if (larger == reached).all():
            return reached
        reached = larger


@pytest.mark.parametrize(
    ("first", "second", "area"),
    [
        pytest.param((0, 0, 4, 4), (2, 2, 6, 6), 4, id="overlap"),
        pytest.param((0, 0, 4, 4), (4, 0, 8, 4), 0, id="touch"),
        pytest.param((0, 0, 4, 4), (5, 5, 8, 8), 0, id="apart"),
        pytest.param((0, 0, 9, 9), (2, 3, 4, 6), 6, id="inside"),
    ],
)
def test_intersection(first: tuple[int, ...], second: tuple[int, ...], area: float) -> None:
    """The common area, the same from both sides."""
    a, b = boxes(first), boxes(second)  # type: ignore[arg-type]
    assert intersection_xyxy(a, b).tolist() == [[area]]
    assert intersection_xyxy(b, a).tolist() == [[area]]


@pytest.mark.parametrize(
    ("given_boxes", "at_most", "expected"),
    [
        pytest.param([], 8, [], id="none"),
        pytest.param([(0, 0, 2, 2), (5, 5, 7, 7)], 8, [(0, 0, 2, 2), (5, 5, 7, 7)], id="apart"),
        pytest.param([(0, 0, 4, 4), (2, 2, 6, 6)], 8, [(0, 0, 6, 6)], id="a hugging couple"),
        pytest.param([(0, 0, 9, 9), (3, 3, 4, 4)], 8, [(0, 0, 9, 9)], id="a child in front"),
        pytest.param(
            [(0, 0, 3, 3), (2, 2, 6, 6), (5, 0, 8, 3)], 8, [(0, 0, 8, 6)], id="a chain of three"
        ),
        pytest.param(
            [(0, 0, 2, 2), (3, 0, 5, 2), (90, 90, 92, 92)],
            2,
            [(0, 0, 5, 2), (90, 90, 92, 92)],
            id="too many: the closest are joined",
        ),
    ],
)
def test_joined(
    given_boxes: list[tuple[float, float, float, float]],
    at_most: int,
    expected: list[tuple[float, float, float, float]],
) -> None:
    """Overlapping boxes become their hull; beyond the limit the cheapest pair is joined."""
    joined = joined_xyxy(boxes(*given_boxes), at_most)
    assert sorted(joined.tolist()) == sorted(map(list, expected))


def test_boxes_whose_hull_does_not_fit_stay_apart() -> None:
    """A chain of three that may be 8 wide is joined as far as that goes, and not given up."""
    chain = boxes((0, 0, 3, 3), (2, 0, 6, 3), (5.5, 0, 10, 3))
    joined = joined_xyxy(chain, people.MAX_CROPS, fits=lambda hulls: hulls[:, 2] - hulls[:, 0] <= 8)
    assert sorted(joined.tolist()) == [[0, 0, 6, 3], [5.5, 0, 10, 3]]


def test_a_row_of_small_people_is_looked_at_closer() -> None:
    """Across a whole picture, each beside the next: joined in twos, none left out."""
    row = boxes(*[(left, 100, left + 20, 140) for left in range(10, 390, 40)])
    crops = people.crops_xyxy(row, (400, 200), SETTINGS)
    assert 2 <= len(crops) <= people.MAX_CROPS
    for left, top, right, bottom in row.tolist():
        assert any(c[0] < left and c[1] < top and c[2] > right and c[3] > bottom for c in crops)
    assert all(crop[2] - crop[0] < SETTINGS.small * 400 for crop in crops)


PEOPLE = boxes(
    (0, 0, 30, 60),  # 0: large, at the left
    (45, 40, 55, 60),  # 1: small, exactly in the centre
    (80, 10, 100, 50),  # 2: middling, at the right
    (60, 0, 62, 4),  # 3: tiny
)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        pytest.param(Options(), [0, 1, 2, 3], id="everyone by default"),
        pytest.param(Options(persons="all"), [0, 1, 2, 3], id="all"),
        pytest.param(Options(persons="largest"), [0], id="the largest"),
        pytest.param(Options(persons="center"), [1], id="the most central"),
        pytest.param(Options(max_persons=2), [0, 2], id="at most two: the largest"),
        pytest.param(Options(persons="largest", max_persons=3), [0, 1, 2], id="three largest"),
        pytest.param(Options(persons="center", max_persons=2), [0, 1], id="two most central"),
        pytest.param(Options(max_persons=9), [0, 1, 2, 3], id="more than there are"),
        pytest.param(Options(min_person=0.01), [0, 1, 2], id="a minimum share"),
        pytest.param(Options("off", "center", min_person=0.05), [0], id="the centre is too small"),
        pytest.param(Options(min_person=0.5), [], id="nobody is large enough"),
    ],
)
def test_choose(options: Options, kept: list[int]) -> None:
    """Who stays, in a picture of 100 x 100 pixels."""
    assert np.flatnonzero(choose.choose(PEOPLE, options, (100, 100))).tolist() == kept


def test_choose_from_nobody() -> None:
    """No boxes, nobody kept, whatever is asked."""
    for persons in ("all", "largest", "center"):
        assert choose.choose(boxes(), Options(persons=persons), (9, 9)).tolist() == []


def test_center_prefers_a_large_person_beside_the_centre_to_a_passer_by_behind() -> None:
    """Distance counts in units of the person's own size."""
    pair = boxes((40, 10, 80, 95), (44, 30, 48, 40))
    kept = choose.choose(pair, Options(persons="center"), (100, 100))
    assert kept.tolist() == [True, False]


def test_locate_finds_each_region_and_scales_it_to_the_picture() -> None:
    """Boxes of a 4:1 map, in the picture's pixels."""
    alpha = np.zeros((20, 10), np.float32)
    alpha[2:8, 1:3] = 1.0
    alpha[10:20, 6:10] = SETTINGS.floor + 0.01
    alpha[5:9, 6:9] = SETTINGS.haze - 0.02
    found = people.locate(alpha, (100, 400), SETTINGS)
    assert found.tolist() == [[10, 40, 30, 160], [60, 200, 100, 400]]


def test_locate_takes_what_is_faint_only_around_what_is_seen() -> None:
    """A faint region is nobody; around a cell that is clearly seen it belongs to the box."""
    alpha = np.zeros((20, 20), np.float32)
    alpha[2:8, 2:8] = alpha[12:18, 10:16] = SETTINGS.haze + 0.02
    alpha[4, 4] = SETTINGS.floor + 0.01
    alpha[14, 12] = SETTINGS.floor - 0.01
    assert people.locate(alpha, (20, 20), SETTINGS).tolist() == [[2, 2, 8, 8]]


def test_whom_several_parts_show_is_overlooked_once() -> None:
    """In parts only what is surely somebody counts, and nobody who is known already."""
    parts = people.parts_xyxy((200, 100), SETTINGS)
    (left, top, right, bottom), *_ = parts
    assert (left, top, right, bottom) == (0, 0, 120, 60)
    alphas = [np.zeros((100, 100), np.float32) for _ in parts]
    alphas[0][60:80, 75:85] = 0.99  # 90 … 102 across, 36 … 48 down
    alphas[1][60:80, 8:18] = 0.99  # the same one, seen from the right
    alphas[0][10:20, 10:20] = 0.9  # doubtful
    alphas[2][10:20, 10:20] = 0.99  # at 12 … 24, 46 … 52: known
    found = people.overlooked_xyxy(parts, alphas, boxes((10, 45, 30, 60)), SETTINGS)
    assert found.round().tolist() == [[90, 36, 102, 48]]


def test_parts_hold_the_whole_picture_and_overlap() -> None:
    """Every pixel is in a part, the middle ones in all four, and none lies outside."""
    seen = np.zeros((301, 200), int)
    for left, top, right, bottom in people.parts_xyxy((200, 301), SETTINGS):
        assert 0 <= left < right <= 200
        assert 0 <= top < bottom <= 301
        seen[top:bottom, left:right] += 1
    assert seen.min() == 1
    assert (seen[130:170, 85:115] == 4).all()


def test_somebody_large_in_either_direction() -> None:
    """From the share ``small`` of a side on; nobody is not large."""
    assert people.large(boxes((10, 10, 60, 40), (20, 100, 80, 290)), (200, 300), SETTINGS)
    assert not people.large(boxes((10, 10, 60, 40)), (200, 300), SETTINGS)
    assert not people.large(boxes(), (200, 300), SETTINGS)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(None, id="nothing at all"),
        pytest.param(np.zeros((2, 4)), id="boxes without scores"),
        pytest.param((np.zeros((2, 5)), np.zeros(2)), id="five numbers a box"),
        pytest.param((np.zeros((2, 4)), np.zeros(3)), id="scores of other boxes"),
        pytest.param((np.array([[0, 0, np.nan, 1]]), np.zeros(1)), id="not a number"),
        pytest.param((np.zeros((2, 4)), np.zeros((2, 1))), id="scores in a column"),
        pytest.param(([["a", 0, 1, 2]], [1]), id="text"),
    ],
)
def test_a_detector_that_returns_something_else_is_told_so(found: object) -> None:
    """The error says what was expected and what came."""
    with pytest.raises(PluginError, match="must return \\(boxes, scores\\)"):
        choose.checked_boxes(found, (10, 10))


def test_checked_boxes_clips_and_drops_empty_boxes() -> None:
    """Boxes beyond the picture are cut to it; those with nothing left are gone."""
    found = ([[-5, 2, 20, 8], [12, 0, 15, 3], [4, 4, 4, 9], [7, 7, 3, 3]], [0.9, 0.8, 0.7, 0.6])
    assert choose.checked_boxes(found, (10, 10)).tolist() == [[0, 2, 10, 8]]
    assert choose.checked_boxes(([], []), (10, 10)).shape == (0, 4)


def test_what_touches_a_person_in_the_coarse_map_extends_the_box() -> None:
    """A hat above and skis beside the box are inside it afterwards; a stranger's are not."""
    alpha = np.zeros((100, 100), np.float32)
    alpha[30:80, 40:60] = 1  # the person
    alpha[20:30, 45:55] = 1  # the hat
    alpha[75:80, 20:80] = 1  # skis
    alpha[30:80, 90:95] = 1  # someone else
    detected = boxes((40, 32, 60, 80))
    regions = people.locate(alpha, (200, 200), SETTINGS)
    extended = people.extended_xyxy(detected * 2, regions)
    assert extended.tolist() == [[40, 40, 160, 160]]
    assert detected.tolist() == [[40, 32, 60, 80]]


def test_regions_apart_from_all_boxes() -> None:
    """Those that share no area with a box, in order; all of them if there is no box."""
    regions = boxes((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10))
    detected = boxes((5, 5, 20, 20), (49, 9, 60, 60))
    assert people.apart_xyxy(regions, detected).tolist() == [[20, 0, 30, 10]]
    assert people.apart_xyxy(regions, detected[:0]).tolist() == regions.tolist()
    assert people.apart_xyxy(regions[:0], detected).shape == (0, 4)


@pytest.mark.parametrize(
    ("person", "looked_at"),
    [
        pytest.param((480, 400, 520, 500), True, id="a small figure"),
        pytest.param((0, 900, 40, 1000), True, id="a small figure in a corner"),
        pytest.param((200, 100, 700, 950), False, id="fills the picture"),
        pytest.param((500, 500, 503, 508), True, id="a few pixels"),
    ],
)
def test_only_small_people_are_looked_at_closer(
    person: tuple[float, float, float, float], looked_at: bool
) -> None:
    """A crop holds the whole person with room around, and lies inside the picture."""
    crops = people.crops_xyxy(boxes(person), (1000, 1000), SETTINGS)
    assert len(crops) == looked_at
    for left, top, right, bottom in crops:
        assert left <= person[0]
        assert top <= person[1]
        assert right >= person[2]
        assert bottom >= person[3]
        assert 0 <= left < right <= 1000
        assert 0 <= top < bottom <= 1000
        assert min(right - left, bottom - top) >= SETTINGS.min_crop


def test_a_crowd_is_looked_at_in_a_bounded_number_of_crops() -> None:
    """A hundred people do not mean a hundred passes."""
    crowd = boxes(*[(x, y, x + 4, y + 9) for x in range(0, 4000, 400) for y in range(0, 3000, 300)])
    crops = people.crops_xyxy(crowd, (4000, 3000), SETTINGS)
    assert len(crops) <= people.MAX_CROPS
