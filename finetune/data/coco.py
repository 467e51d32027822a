"""COCO annotations drawn as masks: polygons, and run lengths compressed or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from u2net_human_plugin.boxes import Boxes
from u2net_human_plugin.errors import DataError

from .photo import CocoMask
from .pictures import SizeError, fit_mask


def draw_people(coco: CocoMask, picture: Image.Image, name: str) -> tuple[Image.Image, Boxes]:
    """The union of an image's annotations as "L" 0/255, upright, and the box of each.

    ``picture`` is as opened. Annotations are drawn for the size that the JSON states, upright or
    as stored; if it states none, for the picture as stored.

    Raises:
        DataError: an annotation is malformed, or the stated size is not the picture's.
    """
    width, height = coco.size_wh or picture.size
    union = Image.new("L", (width, height))
    boxes = []
    for number, annotation in enumerate(coco.annotations):
        where = f"{name}: annotation {annotation.get('id', number)}"
        mask = Image.fromarray(decode(annotation.get("segmentation"), (width, height), where) * 255)
        union.paste(255, (0, 0), mask)
        box = fit_mask(picture, mask, name).getbbox()
        if box is not None:
            boxes.append(box)
    return fit_mask(picture, union, name), np.array(boxes, np.float32).reshape(-1, 4)


def decode(segmentation: Any, size_wh: tuple[int, int], where: str) -> npt.NDArray[np.uint8]:
    """One COCO segmentation as (H,W) uint8 of 0 and 1.

    Args:
        segmentation: a list of polygons ``[x0, y0, x1, y1, …]`` in pixels, or an RLE object
            whose "counts" are a list or COCO's compressed text.
        size_wh: the image's width and height.
        where: what messages call the annotation.

    Raises:
        DataError: it is neither, or malformed.
        SizeError: the RLE is of another size.
    """
    from pycocotools import mask as coco_mask

    width, height = size_wh
    if isinstance(segmentation, Mapping):
        size = list(segmentation.get("size") or ())
        if size != [height, width]:
            raise SizeError(
                f"{where}: its RLE is of size {size} (height, width), the image {[height, width]}."
            )
        counts = segmentation.get("counts")
        if isinstance(counts, list):
            _require(_is_numbers(counts) and sum(counts) == width * height, where)
            runs = coco_mask.frPyObjects({"size": size, "counts": counts}, height, width)
        else:
            _require(isinstance(counts, str | bytes), where)
            runs = {"size": size, "counts": counts}
    else:
        # pycocotools takes a list of four numbers for a box, hence at least three corners.
        _require(
            isinstance(segmentation, list)
            and bool(segmentation)
            and all(
                _is_numbers(part) and len(part) >= 6 and len(part) % 2 == 0 for part in segmentation
            ),
            where,
        )
        runs = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    try:
        decoded: npt.NDArray[np.uint8] = coco_mask.decode(runs)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{where}: its RLE cannot be decoded ({error}); remove it.") from None
    return decoded


def _is_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, int | float) and np.isfinite(value) and abs(value) < 2**31
        for value in values
    )


def _require(fits: bool, where: str) -> None:
    if not fits:
        raise DataError(
            f'{where}: "segmentation" is neither a list of polygons with at least three corners '
            "nor a whole RLE; correct or remove it."
        )
