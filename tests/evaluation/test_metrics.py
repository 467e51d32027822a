"""Every metric against answers that can be worked out by hand, and against its invariants."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from skimage import data

from u2net_human_plugin.finetune.evaluation import metrics


def box(top, bottom, left, right, shape=(100, 100)):
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


SQUARE = box(20, 80, 20, 80)
NOBODY = np.zeros((100, 100), bool)
EVERYTHING = ~NOBODY
# 100 x 100 pixels: the diagonal is 141.4, so 2 % are 2.83 pixels: 2 whole ones for an exact
# distance, 3 after rounding.


class TestBinary:
    @pytest.mark.parametrize(
        ("mask", "expected"),
        [
            (np.array([[False, True]]), [[False, True]]),
            (np.array([[127, 128]], np.uint8), [[False, True]]),
            (np.array([[0.49, 0.5]], np.float32), [[False, True]]),
        ],
        ids=["bool", "uint8", "float"],
    )
    def test_person_starts_at_one_half(self, mask, expected):
        """Everything from one half up is person, in each of the three forms of a mask."""
        np.testing.assert_array_equal(metrics.binary(mask), expected)


class TestIou:
    @pytest.mark.parametrize(
        ("predicted", "truth", "expected"),
        [
            (SQUARE, SQUARE, 1.0),
            (NOBODY, NOBODY, 1.0),
            (SQUARE, NOBODY, 0.0),
            (NOBODY, SQUARE, 0.0),
            (box(20, 80, 20, 50), SQUARE, 0.5),
            (box(20, 80, 50, 110, (100, 120)), box(20, 80, 20, 80, (100, 120)), 1 / 3),
            (EVERYTHING, SQUARE, 0.36),
        ],
        ids=["same", "both empty", "ghost", "missed", "half", "shifted", "everything"],
    )
    def test_known_answers(self, predicted, truth, expected):
        """Overlap by area over joint area; two empty masks agree."""
        assert metrics.iou(predicted, truth) == pytest.approx(expected)

    def test_soft_masks_are_cut_at_one_half(self):
        """A soft mask scores as its own cut at one half."""
        assert metrics.iou(SQUARE * 0.6, SQUARE) == 1.0
        assert metrics.iou((SQUARE * 120).astype(np.uint8), SQUARE) == 0.0

    def test_other_size_is_an_error(self):
        """Masks of different sizes are never compared."""
        with pytest.raises(ValueError, match=r"\(100, 100\) and \(50, 100\)"):
            metrics.iou(SQUARE, SQUARE[::2])


class TestBoundaryIou:
    @pytest.mark.parametrize(
        ("predicted", "truth", "expected"),
        [
            (SQUARE, SQUARE, 1.0),
            (NOBODY, NOBODY, 1.0),
            (SQUARE, NOBODY, 0.0),
            (NOBODY, SQUARE, 0.0),
            # Rims of 3 pixels: 60² - 54² = 684 and 54² - 48² = 612, without a shared pixel.
            (box(23, 77, 23, 77), SQUARE, 0.0),
            # One pixel smaller all around: rims 684 and 58² - 52² = 660; shared 58² - 54² = 448.
            (box(21, 79, 21, 79), SQUARE, 448 / (684 + 660 - 448)),
        ],
        ids=["same", "both empty", "ghost", "missed", "3 px smaller", "1 px smaller"],
    )
    def test_known_answers(self, predicted, truth, expected):
        """The IoU of rims as wide as 2 % of the diagonal, rounded."""
        assert metrics.boundary_iou(predicted, truth) == pytest.approx(expected)

    def test_frame_counts_as_contour(self):
        """A mask that fills the picture has the picture's frame as its rim."""
        # Rims: 100² - 94² = 1164 and 684; no pixel is in both.
        assert metrics.boundary_iou(EVERYTHING, EVERYTHING) == 1.0
        assert metrics.boundary_iou(EVERYTHING, SQUARE) == 0.0
        # The rim of the left half runs along three edges: 100·50 - 94·44 = 864;
        # the whole picture's shares 3·50·2 + 94·3 = 582 with it.
        assert metrics.boundary_iou(EVERYTHING, box(0, 100, 0, 50)) == pytest.approx(
            582 / (1164 + 864 - 582)
        )

    def test_erosion_is_the_authors_own(self):
        """The rim equals d erosions by a 3x3 square with zeros around the picture."""
        from scipy import ndimage

        rng = np.random.default_rng(0)
        mask = ndimage.gaussian_filter(rng.standard_normal((180, 260)), 12) > 0
        d = round(0.02 * np.hypot(180, 260))
        eroded = ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=d)
        rim = mask & ~eroded
        other = np.roll(mask, 3, 1)
        other_rim = other & ~ndimage.binary_erosion(other, np.ones((3, 3)), iterations=d)
        expected = (rim & other_rim).sum() / (rim | other_rim).sum()
        assert metrics.boundary_iou(mask, other) == pytest.approx(expected)
        # A view with other strides gives the same answer.
        assert metrics.boundary_iou(mask[:, ::-1], other[:, ::-1]) == pytest.approx(expected)


class TestBoundaryAccuracy:
    def test_right_everywhere(self):
        """Equal masks score 1, whatever their shape."""
        assert metrics.boundary_accuracy(SQUARE, SQUARE) == 1.0

    def test_vertical_edge(self):
        """Along a straight edge the band is 2 pixels on each side; errors far away are free."""
        truth = box(0, 100, 0, 50)
        assert metrics.boundary_accuracy(box(0, 100, 0, 49), truth) == 0.75
        assert metrics.boundary_accuracy(box(0, 100, 0, 48), truth) == 0.5
        assert metrics.boundary_accuracy(box(0, 100, 0, 51), truth) == 0.75
        assert metrics.boundary_accuracy(NOBODY, truth) == 0.5
        assert metrics.boundary_accuracy(EVERYTHING, truth) == 0.5
        assert metrics.boundary_accuracy(box(0, 100, 20, 50), truth) == 1.0

    def test_distance_is_euclidean(self):
        """Around a single pixel the band is a disc: 24 neighbours and itself within 2.83."""
        truth = box(50, 51, 50, 51)
        # Within 2.83 of one pixel lie all of the 5x5 square but the corners at √8 = 2.828…
        # which just belong to it: 25 pixels.
        assert metrics.boundary_accuracy(NOBODY, truth) == pytest.approx(24 / 25)
        assert metrics.boundary_accuracy(NOBODY, truth, width=0.02 * 0.99) == pytest.approx(20 / 21)

    def test_inverted_is_zero(self):
        """The opposite of the truth is wrong at every pixel of the band."""
        assert metrics.boundary_accuracy(~SQUARE, SQUARE) == 0.0

    def test_truth_and_complement_are_alike(self):
        """Swapping person and background in both masks changes nothing."""
        predicted = box(25, 80, 18, 79)
        assert metrics.boundary_accuracy(predicted, SQUARE) == pytest.approx(
            metrics.boundary_accuracy(~predicted, ~SQUARE)
        )

    @pytest.mark.parametrize("truth", [NOBODY, EVERYTHING], ids=["nobody", "everything"])
    def test_without_a_contour_all_pixels_count(self, truth):
        """A truth without a contour is judged by the share of right pixels in the picture."""
        assert metrics.boundary_accuracy(truth, truth) == 1.0
        assert metrics.boundary_accuracy(truth ^ box(0, 10, 0, 10), truth) == pytest.approx(0.99)

    def test_window_around_the_person_changes_nothing(self):
        """The band near a small person is what distances over the whole picture give."""
        from scipy import ndimage

        truth = box(3, 30, 90, 99, (120, 100)) | box(50, 60, 20, 40, (120, 100))
        predicted = np.roll(truth, 2, 0)
        reach = 0.02 * np.hypot(120, 100)
        inside = ndimage.distance_transform_edt(truth)
        outside = ndimage.distance_transform_edt(~truth)
        band = np.maximum(inside, outside) <= reach
        expected = (predicted == truth)[band].mean()
        assert metrics.boundary_accuracy(predicted, truth) == pytest.approx(expected)


class TestMae:
    def test_known_answers(self):
        """The mean distance of the soft values, whatever their types."""
        assert metrics.mae(SQUARE, SQUARE) == 0.0
        assert metrics.mae(SQUARE, ~SQUARE) == 1.0
        assert metrics.mae(SQUARE * 0.75, SQUARE) == pytest.approx(0.25 * 0.36)
        assert metrics.mae(SQUARE.astype(np.uint8) * 255, SQUARE * 1.0) == 0.0
        assert metrics.mae(np.full((10, 10), 51, np.uint8), np.zeros((10, 10))) == pytest.approx(
            0.2
        )


class TestIsEmpty:
    @pytest.mark.parametrize(("pixels", "expected"), [(0, True), (49, True), (50, False)])
    def test_half_a_percent_is_the_limit(self, pixels, expected):
        """Of 10 000 pixels, 49 are nobody and 50 are somebody."""
        mask = np.zeros((100, 100), bool)
        mask.flat[:pixels] = True
        assert metrics.is_empty(mask) is expected


class TestIsMissed:
    @pytest.mark.parametrize(("marked", "expected"), [(0, True), (9, True), (10, False)])
    def test_a_tenth_is_the_limit(self, marked, expected):
        """Of a figure of 100 pixels, 9 are too few; what is marked beside it does not count."""
        truth = np.zeros((1000, 1000), bool)
        truth[0, :100] = True
        predicted = np.zeros_like(truth)
        predicted[0, :marked] = predicted[500:] = True
        assert metrics.is_missed(predicted, truth) is expected


class TestVisualConsistency:
    image = Image.fromarray(data.astronaut()).resize((200, 150))

    def test_names_and_sizes(self):
        """Five versions, each as large as the picture and different from it."""
        found = list(metrics.versions(self.image))
        assert [version.name for version in found] == [
            "mirrored",
            "brighter",
            "darker",
            "jpeg",
            "moved",
        ]
        for version in found:
            assert version.image.size == self.image.size
            assert version.image.tobytes() != self.image.tobytes()

    def test_masks_are_mapped_back(self):
        """A segmenter that follows the picture exactly is perfectly consistent.

        It marks the picture by contents that every version keeps: a bright disc.
        """
        yy, xx = np.ogrid[:150, :200]
        disc = (yy - 60) ** 2 + (xx - 130) ** 2 < 40**2
        image = Image.fromarray(np.where(disc[..., None], 200, 40).repeat(3, 2).astype(np.uint8))
        assert metrics.visual_consistency(
            lambda picture: np.asarray(picture.convert("L")) > 120, image
        ) == pytest.approx(1.0, abs=2e-3)

    def test_mask_that_ignores_the_picture(self):
        """A fixed mask is consistent only where the versions keep their place."""
        fixed = box(0, 150, 0, 100, (150, 200))
        # Mirrored: IoU 0. Moved by 6 of 200 columns: 94 of 100 columns stay. The rest: 1.
        expected = (0 + 1 + 1 + 1 + 94 / 100) / 5
        assert metrics.visual_consistency(lambda _: fixed, self.image) == pytest.approx(expected)

    def test_given_mask_is_the_reference(self):
        """A mask handed over is used instead of a further pass."""
        calls = []

        def segment(picture):
            calls.append(picture)
            return np.zeros((150, 200))

        assert metrics.visual_consistency(segment, self.image, np.zeros((150, 200))) == 1.0
        assert len(calls) == 5
