"""Which parts of the network's answers are people: hysteresis, relative to the surest of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .looks import Alpha
from .regions import label_regions, region_peaks

#: Cells from this alpha on that touch are one region, and stand or fall together. Lower, and a
#: faint haze joins ghosts to people; higher, and soft edges lose what is beyond it.
HAZE = 0.03
#: A region with a cell of this alpha is a person, whatever else there is; whom the first look
#: sees that surely stays. Higher, and people in bad light are lost; lower, and things stay.
SURE = 0.99
#: If nobody is that sure, who is as sure as the surest, but not below this. Lower, and empty
#: scenes are not left empty; higher, and strong compression makes people vanish.
FLOOR = 0.95


def bar_for(alphas: Iterable[Alpha]) -> float:
    """The alpha that a region must reach somewhere in a picture of which these are the looks.

    What is doubtful beside people goes; the surest is never cleared for being below ``SURE``.
    """
    surest = max(float(alpha.max(initial=0)) for alpha in alphas)
    return min(SURE, max(FLOOR, surest))


def without_doubtful(alpha: Alpha, bar: float) -> Alpha:
    """Set to zero the regions of cells from :data:`HAZE` on that nowhere reach ``bar``: (h,w).

    The hysteresis thresholding of Canny's edge detector (1986), for a soft map: what stays keeps
    its values. Returns ``alpha`` itself if nothing goes.
    """
    labels = label_regions(alpha >= HAZE)
    doubtful = np.append(False, region_peaks(alpha, labels) < bar)
    return np.where(doubtful[labels], np.float32(0), alpha) if doubtful.any() else alpha
