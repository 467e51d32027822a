"""Which parts of the network's answers are people: hysteresis, relative to the surest of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .looks import Alpha
from .regions import label_regions, region_peaks
from .settings import Settings


def bar_for(alphas: Iterable[Alpha], settings: Settings) -> float:
    """The alpha that a region must reach somewhere in a picture of which these are the looks.

    What is doubtful beside people goes; the surest is never cleared for being below
    ``settings.sure``.
    """
    surest = max(float(alpha.max(initial=0)) for alpha in alphas)
    return min(settings.sure, max(settings.floor, surest))


def hysteresis(alpha: Alpha, bar: float, haze: float) -> Alpha:
    """Set to zero the regions of cells from ``haze`` on that nowhere reach ``bar``: (h,w).

    The hysteresis thresholding of Canny's edge detector (1986), for a soft map: what stays keeps
    its values. Returns ``alpha`` itself if nothing goes.
    """
    labels = label_regions(alpha >= haze)
    doubtful = np.append(False, region_peaks(alpha, labels) < bar)
    return np.where(doubtful[labels], np.float32(0), alpha) if doubtful.any() else alpha
