"""What the network says of a picture and of parts of it, and how several answers become one.

Alpha maps are float32 (h,w) in 0…1, in a size of the network's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from .boxes import Box, Size
from .errors import WeightsError
from .network import Network
from .preprocess import brightest_value, normalize, reduced
from .settings import Settings

Alpha = npt.NDArray[np.float32]

#: Logits beyond this are as good as certain.
_LOGIT_LIMIT = np.float32(12)

#: Views that go through the network together: memory does not grow with the number of figures.
_AT_ONCE = 4


class Looks:
    """A network's looks at one RGB picture, all in the light of the whole picture.

    Args:
        network: what is asked.
        rgb: the picture, mode "RGB".
        mirrored: ask about the mirrored views as well and take the mean, in twice the time.
    """

    def __init__(self, network: Network, rgb: Image.Image, mirrored: bool = False) -> None:
        self._network, self._rgb, self._mirrored = network, rgb, mirrored
        #: How the network is run; the defaults if somebody's own callable has no settings.
        self.settings: Settings = getattr(network, "settings", None) or Settings()
        self._size = self.settings.size
        self._whole = reduced(rgb, self._size)
        # The brightest of the full-size pixels may be one in a million, which no look sees.
        self._brightest = brightest_value(self._whole)

    def at_whole(self) -> Alpha:
        """The first look, at the whole picture."""
        whole: Alpha = self._alphas([self._whole])[0]
        return whole

    def at(self, boxes: Iterable[Box]) -> list[Alpha]:
        """Looks at parts of the picture."""
        return list(self._alphas([reduced(self._rgb.crop(box), self._size) for box in boxes]))

    def _alphas(self, views: Sequence[npt.NDArray[np.uint8]]) -> Alpha:
        if not views:
            return np.empty((0, 1, 1), np.float32)
        batch = np.stack([normalize(view, self._brightest) for view in views])
        if not self._mirrored:
            return self._answers(batch)
        both = self._answers(np.concatenate((batch, batch[..., ::-1])))
        return (both[: len(batch)] + both[len(batch) :, :, ::-1]) / np.float32(2)

    def _answers(self, batch: npt.NDArray[np.float32]) -> Alpha:
        parts = (batch[start : start + _AT_ONCE] for start in range(0, len(batch), _AT_ONCE))
        alphas = np.concatenate([self._network(part) for part in parts])
        # The tolerance is for half precision. Anything compared with NaN is False.
        if not ((alphas > -0.01) & (alphas < 1.01)).all():
            raise WeightsError(
                f"The network answers with values from {alphas.min():.3g} to {alphas.max():.3g} "
                "instead of 0 to 1: its weights are damaged, or lack the sigmoid at the end."
            )
        return alphas


def combined(closer: Alpha, first: Alpha, box: Box, size_wh: Size, sure: float) -> Alpha:
    """A closer look at ``box`` and the first one at the whole picture, as one: like ``closer``.

    The closer look, which sees more, decides, except where the first one was surer than
    ``sure``: whoever was surely there stays. Of the first look's logits, twice the excess over
    that of ``sure`` counts, so that what it was less sure of leaves no haze.
    """
    across, down = first.shape[1] / size_wh[0], first.shape[0] / size_wh[1]
    part = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
    excess = Image.fromarray(2 * (_logit(first) - _logit(np.array(sure, np.float32))))
    there = np.asarray(excess.resize(closer.shape[::-1], Image.Resampling.BILINEAR, part))
    alpha: Alpha = np.maximum(closer, 1 / (1 + np.exp(-there)))
    return alpha


def _logit(alpha: Alpha) -> Alpha:
    with np.errstate(divide="ignore", invalid="ignore"):
        logit: Alpha = np.log(alpha.clip(0, 1) / (1 - alpha.clip(0, 1)))
    return logit.clip(-_LOGIT_LIMIT, _LOGIT_LIMIT)
