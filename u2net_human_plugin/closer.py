"""Closer looks: where the network looks again, and what becomes of its answers."""

from __future__ import annotations

import numpy as np

from . import people
from .boxes import Box, Boxes, Size
from .choose import choose
from .looks import Alpha, Looks, combined
from .options import Options


def looked_closer(
    first: Alpha, look: Looks, size_wh: Size, detected: Boxes | None, options: Options
) -> list[tuple[Box, Alpha]]:
    """The first look at the whole and, to be pasted over it, closer ones.

    If nobody is large in the picture, people whom the first look overlooks are sought in parts of
    it, and everybody is looked at closer. If somebody is, one look is enough: beside a large person
    closer looks lose as much as they gain. Whom a detector found is looked at closer anyway.

    Args:
        first: what :meth:`Looks.at_whole` found.
        look: looks at the picture.
        size_wh: its size.
        detected: boxes (N,4) xyxy of a detector, if one was asked.
        options: which people are wanted; of the others, a detector's need no closer look.
    """
    settings, whole = look.settings, (0, 0, *size_wh)
    chosen = None if detected is None else detected[choose(detected, options, size_wh)]
    if options.chooses_persons and chosen is not None and not len(chosen):
        return [(whole, first)]  # nobody stays, so the mask will be empty
    regions = people.locate(first, size_wh, settings)
    places = regions[:0]
    if not people.large(regions, size_wh, settings):
        parts = people.parts_xyxy(size_wh, settings)
        overlooked = people.overlooked_xyxy(parts, look.at(parts), regions, settings)
        places = regions = np.concatenate((regions, overlooked))
    if chosen is not None:
        apart = people.apart_xyxy(places, chosen)
        places = people.extended_xyxy(chosen, regions)
        if not options.chooses_persons:
            places = np.concatenate((places, apart))
    crops = people.crops_xyxy(places, size_wh, settings)
    closer = zip(crops, look.at(crops), strict=True)
    return [
        (whole, first),
        *((box, combined(alpha, first, box, size_wh, settings.sure)) for box, alpha in closer),
    ]
