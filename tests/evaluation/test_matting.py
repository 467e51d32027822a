"""The errors of alpha matting: known answers."""

from __future__ import annotations

import numpy as np
import pytest

from u2net_human_plugin.finetune.evaluation import matting

EVERYWHERE = np.ones((40, 60), bool)


def half(value):
    """Opaque on the left, ``value`` on the right of column 30."""
    mask = np.ones((40, 60), np.float32)
    mask[:, 30:] = value
    return mask


class TestUnknownBand:
    def test_around_a_contour(self):
        """A hard edge is unknown for 2 % of the diagonal to both sides, no farther."""
        truth = np.zeros((300, 400), np.uint8)
        truth[:, :200] = 255
        band = matting.unknown_band(truth)
        assert np.flatnonzero(band[7]).tolist() == list(range(190, 210))
        assert (band == band[0]).all()

    def test_around_soft_pixels(self):
        """Half-transparent pixels are unknown wherever they are, with the same margin."""
        truth = np.full((300, 400), 255, np.uint8)
        truth[150, 200] = 128
        rows, columns = np.nonzero(matting.unknown_band(truth))
        assert (rows.min(), rows.max()) == (140, 160)
        assert (columns.min(), columns.max()) == (190, 210)

    @pytest.mark.parametrize("value", [0, 255])
    def test_nothing_is_unknown_of_one_colour(self, value):
        """The picture's edge is no contour."""
        assert not matting.unknown_band(np.full((30, 40), value, np.uint8)).any()


def test_a_matte_is_soft_a_mask_is_not():
    """JPEG's noise around 0 and 255 makes no matte."""
    noisy = np.array([[0, 3, 252, 255]] * 4, np.uint8)
    assert not matting.is_matte(noisy)
    noisy[1, 1] = 100
    assert matting.is_matte(noisy)


@pytest.mark.parametrize(
    "error",
    [matting.sad, matting.mse, matting.gradient_error, matting.connectivity_error],
)
class TestEveryError:
    def test_no_difference(self, error):
        """The truth itself has none, whatever its type."""
        rng = np.random.default_rng(0)
        truth = rng.integers(0, 256, (40, 60), np.uint8)
        assert error(truth, truth, EVERYWHERE) == 0
        assert error(truth.astype(np.float32) / 255, truth, EVERYWHERE) == 0

    def test_only_the_unknown_counts(self, error):
        """What is wrong elsewhere, and farther away than a gradient sees, costs nothing."""
        truth, wrong = half(0), half(0)
        wrong[:10, 50:] = 1
        unknown = np.zeros_like(EVERYWHERE)
        unknown[20:, 25:35] = True
        assert error(wrong, truth, unknown) == 0
        assert error(wrong, truth, EVERYWHERE) > 0
        assert error(wrong, truth, np.zeros_like(EVERYWHERE)) == 0


def test_sad_and_mse():
    """A quarter too much on half of 2400 pixels: 300 pixels, and 1/32."""
    assert matting.sad(half(0.25), half(0), EVERYWHERE) == pytest.approx(0.3)
    assert matting.mse(half(0.25), half(0), EVERYWHERE) == pytest.approx(1 / 32)
    exact = matting.sad(
        np.full((10, 10), 51, np.uint8), np.zeros((10, 10), np.uint8), np.ones((10, 10), bool)
    )
    assert exact == pytest.approx(0.02)


class TestGradient:
    def test_a_step_is_its_kernel_summed(self):
        """Beside a flat truth, each row of a step of height 1 has the sums of a unit kernel.

        Worked out in two dimensions, from the kernel that the benchmark's code builds.
        """
        sigma, reach = 1.4, 4
        x = np.arange(-reach, reach + 1)
        bell = np.exp(-(x**2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi))
        kernel = np.outer(bell, -x * bell / sigma**2)
        kernel /= np.sqrt((kernel**2).sum())
        across = kernel.sum(axis=0)
        responses = [across[: k + 1].sum() for k in range(2 * reach)]
        expected = 40 * np.square(responses).sum() / 1000
        found = matting.gradient_error(half(0), np.ones((40, 60), np.float32), EVERYWHERE)
        assert found == pytest.approx(expected, rel=1e-4)

    def test_level_does_not_matter(self):
        """Only edges do: two flat mattes have the same gradient, none."""
        flat = np.full((40, 60), 0.2, np.float32)
        assert matting.gradient_error(flat, flat * 4, EVERYWHERE) == pytest.approx(0, abs=1e-9)


class TestConnectivity:
    def test_a_separate_patch_counts_with_its_alpha(self):
        """100 pixels of alpha 0.8 apart from the person, where the truth has none: 80 pixels."""
        truth = half(0)
        apart = half(0)
        apart[10:20, 45:55] = 0.8
        assert matting.connectivity_error(apart, truth, EVERYWHERE) == pytest.approx(0.08)

    def test_a_faint_excess_does_not_show(self):
        """Below 0.15 it is the same to the eye, from there on it is not."""
        truth, faint = half(0), half(0)
        faint[10:20, 45:55] = 0.14
        assert matting.connectivity_error(faint, truth, EVERYWHERE) == 0
        faint[10:20, 45:55] = 0.16
        assert matting.connectivity_error(faint, truth, EVERYWHERE) == pytest.approx(0.016)

    def test_what_both_have_apart_is_the_same_in_both(self):
        """A second person far from the first is no error where both mattes have it."""
        both = half(0)
        both[10:20, 45:55] = 1
        assert matting.connectivity_error(both, both, EVERYWHERE) == 0

    def test_against_the_benchmarks_loop(self):
        """The same as its definition written out level by level, on random mattes."""
        from scipy import ndimage

        rng = np.random.default_rng(3)
        smooth = [ndimage.gaussian_filter(rng.random((40, 60)), 4) for _ in range(2)]
        one, two = (((s - s.min()) / np.ptp(s)).astype(np.float32) for s in smooth)
        level = np.full((40, 60), -1.0)
        for step in range(1, 11):
            labels, _ = ndimage.label((one >= step / 10) & (two >= step / 10))
            sizes = [(labels == label).sum() for label in range(1, labels.max() + 1)]
            largest = labels == 1 + int(np.argmax(sizes)) if sizes else np.zeros((40, 60), bool)
            level[(level == -1) & ~largest] = (step - 1) / 10
        level[level == -1] = 1
        phi = [1 - np.where(m - level >= 0.15, m - level, 0) for m in (one, two)]
        expected = abs(phi[0] - phi[1]).sum() / 1000
        assert matting.connectivity_error(one, two, EVERYWHERE) == pytest.approx(expected, rel=1e-4)


class TestHaze:
    truth = np.where(np.arange(400) < 200, 255, 0).astype(np.uint8)[None].repeat(300, axis=0)

    def test_only_away_from_contours(self):
        """A soft contour is no haze; half a quarter of the rest at one half is one eighth."""
        band = matting.unknown_band(self.truth)
        soft = self.truth.copy()
        soft[:, 192:208] = 128
        assert matting.haze(soft, band) == 0
        hazy = soft.copy()
        hazy[:150, 305:400] = 100
        assert matting.haze(hazy, band) == pytest.approx(150 * 95 / (300 * 380))

    @pytest.mark.parametrize(("value", "is_haze"), [(12, 0), (13, 1), (242, 1), (243, 0)])
    def test_from_5_to_95_per_cent(self, value, is_haze):
        """Faint noise and nearly opaque pixels are none."""
        nothing = np.zeros((20, 20), bool)
        assert matting.haze(np.full((20, 20), value, np.uint8), nothing) == is_haze

    def test_where_everything_is_near_a_contour(self):
        """Nothing is away."""
        assert matting.haze(np.full((20, 20), 128, np.uint8), np.ones((20, 20), bool)) == 0
