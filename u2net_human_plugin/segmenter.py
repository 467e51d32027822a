"""HumanSegmenter: an image in, the alpha mask of its people out, at the image's own size.

look at the whole → at its parts? → at small people closer? → paste back

A look: preprocess → network → drop what is doubtful → enlarge → refine edges
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from . import people
from .boxes import Boxes, joined_xyxy
from .errors import DataError, WeightsError
from .network import Network, load_onnx
from .options import Options, refuse_unknown
from .paste import paste
from .preprocess import SIZE, brightest_value, normalize, reduced, to_rgb
from .refine import enlarge, sharpen
from .regions import without_weak_regions
from .weights import find_weights
from .yolo import Detector, find_people

#: Connected cells of the network's map from these alphas on, one after the other, are people
#: only if one of them has :data:`people.SURE_ABOVE`: the first ends at a haze between two
#: parts, the second clears the haze.
DOUBT_ABOVE = (0.1, 0.02)

#: What masks are made from: a Pillow image of any mode, or a uint8 array (H,W), (H,W,3) or
#: (H,W,4). EXIF orientation is not applied.
Picture = Image.Image | npt.NDArray[np.uint8]


class HumanSegmenter:
    """Finds the people in an image. Keeps nothing of it; safe to share between threads.

    Args:
        weights: a weights file of your own; None looks where
            :mod:`u2net_human_plugin.weights` says, and ends at the bundled file.
        options: how people are located and which are kept; None reads the environment.
        network: a loaded network to use instead of a file.
        detector: what finds people for ``crop="yolo"``, see
            :data:`u2net_human_plugin.yolo.Detector`; None is YOLOv8n.
        choices: single options by name, stronger than ``options``: ``crop="yolo"``.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | None = None,
        *,
        options: Options | None = None,
        network: Network | None = None,
        detector: Detector | None = None,
        **choices: Any,
    ) -> None:
        options = options if options is not None else Options.from_environment()
        refuse_unknown(choices, "HumanSegmenter")
        self.options = dataclasses.replace(options, **choices)
        self.network = network if network is not None else load_onnx(find_weights(weights))
        self.detector = detector if detector is not None else find_people

    def mask(self, image: Picture, options: Options | None = None) -> Image.Image:
        """The alpha matte as a Pillow "L" image of the image's size, 255 = person.

        The scale is fixed: a picture with nobody in it gives an empty mask. ``options``
        holds for this image alone; None means the segmenter's own.

        Beside the image and its RGB version this takes at most 5 bytes a pixel.

        Raises:
            DataError: no picture, or one without pixels.
            WeightsError: the network's answer is no alpha matte.
        """
        options = options if options is not None else self.options
        rgb = to_rgb(_checked(image))
        small = reduced(rgb, self._size)
        # All further looks are in this one's light. The brightest of the full-size pixels may
        # be one in a million, which this look never saw.
        brightest = brightest_value(small)
        coarse = self._alphas([small], brightest, options)[0]
        mask = _full_size(coarse, rgb, options)
        boxes: Boxes | None = None
        if options.crop != "off":
            regions = people.locate(coarse, rgb.size)
            overlooked = self._overlooked(regions, rgb, brightest, options)
            regions = np.concatenate((regions, overlooked))
            if options.crop == "self":
                places = people.extended_xyxy(regions, regions)
            else:
                boxes = people.checked_boxes(self.detector(rgb), rgb.size)
                kept = people.choose(boxes, options, rgb.size)
                places = people.extended_xyxy(boxes[kept], regions)
                if not options.chooses_persons:
                    places = np.concatenate((places, people.apart_xyxy(regions, boxes)))
            closer = people.crops_xyxy(places, rgb.size)
            alphas = self._alphas_of_parts(rgb, closer, brightest, options)
            for box, alpha in zip(closer, alphas, strict=True):
                paste(mask, _full_size(alpha, rgb.crop(box), options), box)
        if not options.chooses_persons:
            return mask
        if boxes is None:
            # Only now is it known who is somebody, and how large.
            boxes = people.locate_in_mask(mask)
        kept = people.choose(boxes, options, rgb.size)
        return people.keep_only(mask, boxes[kept], boxes[~kept])

    def alpha(self, image: Picture, options: Options | None = None) -> npt.NDArray[np.float32]:
        """Like :meth:`mask`, as float32 (H,W) in 0…1."""
        return np.asarray(self.mask(image, options), np.float32) / np.float32(255)

    def _overlooked(
        self, regions: Boxes, rgb: Image.Image, brightest: int, options: Options
    ) -> Boxes:
        """Boxes (N,4) xyxy of people in parts of the picture, apart from the whole's regions."""
        parts = people.parts_xyxy(regions, rgb.size)
        found = [regions[:0]]
        alphas = self._alphas_of_parts(rgb, parts, brightest, options)
        for (left, top, right, bottom), alpha in zip(parts, alphas, strict=True):
            boxes = people.locate(alpha, (right - left, bottom - top), seen=people.SURE_IN_PART)
            found.append(boxes + np.array([left, top, left, top], np.float32))
        apart = people.apart_xyxy(np.concatenate(found), regions)
        return joined_xyxy(apart, at_most=len(apart))  # whom two parts show is one

    @property
    def _size(self) -> int:
        return self.network.size or SIZE

    def _alphas_of_parts(
        self,
        rgb: Image.Image,
        parts_xyxy: Iterable[tuple[int, int, int, int]],
        brightest: int,
        options: Options,
    ) -> npt.NDArray[np.float32]:
        """Looks at parts of a picture, in its own light: (N,h,w) in 0…1."""
        views = (reduced(rgb.crop(part), self._size) for part in parts_xyxy)
        return self._alphas(views, brightest, options)

    def _alphas(
        self, views: Iterable[npt.NDArray[np.uint8]], brightest: int, options: Options
    ) -> npt.NDArray[np.float32]:
        """(N,h,w) in 0…1, from one batch. ``brightest``: see :func:`normalize`."""
        inputs = [normalize(view, brightest) for view in views]
        if not inputs:
            return np.empty((0, 1, 1), np.float32)
        batch = np.stack(inputs)
        if options.flip == "on":
            both = self._answers(np.concatenate((batch, batch[..., ::-1])))
            return (both[: len(batch)] + both[len(batch) :, :, ::-1]) / np.float32(2)
        return self._answers(batch)

    def _answers(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        alphas = self.network(batch)
        # The tolerance is for half precision. Anything compared with NaN is False.
        if not ((alphas > -0.01) & (alphas < 1.01)).all():
            raise WeightsError(
                f"The network answers with values from {alphas.min():.3g} to {alphas.max():.3g} "
                "instead of 0 to 1: its weights are damaged, or lack the sigmoid at the end."
            )
        return alphas


def _checked(picture: Picture) -> Image.Image:
    if isinstance(picture, np.ndarray):
        shape, dtype = picture.shape, picture.dtype
        try:
            picture = Image.fromarray(picture)
        except (IndexError, TypeError, ValueError):
            raise DataError(
                f"an array {shape} of {dtype}: expected uint8 in the shape (height, width, 3), "
                "with colours in the order red, green, blue."
            ) from None
    if not isinstance(picture, Image.Image):
        raise DataError(f"a {type(picture).__name__}: expected a Pillow image or a uint8 array.")
    if 0 in picture.size:
        raise DataError(f"a picture of {picture.width} x {picture.height} pixels: nothing to see.")
    return picture


def _full_size(alpha: npt.NDArray[np.float32], view: Image.Image, options: Options) -> Image.Image:
    for low in DOUBT_ABOVE:
        alpha = without_weak_regions(alpha, low, people.SURE_ABOVE)
    mask = enlarge(alpha, view.size)
    return sharpen(mask, view) if options.refine == "on" else mask
