"""HumanSegmenter: an image in, the alpha mask of its people out, at the image's own size.

look at the whole → closer where that pays → drop what is doubtful → enlarge, with the photo's
edges → paste → leave those who were chosen
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from .choose import checked_boxes, choose, keep_only, people_in_mask
from .closer import looked_closer
from .hysteresis import bar_for, hysteresis
from .looks import Alpha, Looks
from .matting import decontaminated, matted
from .network import Network, load_onnx
from .options import Options, refuse_unknown
from .paste import paste
from .preprocess import Picture, to_rgb
from .refine import guided_filter, upsample_logits
from .weights import find_weights
from .yolo import Detector, find_people


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
        rgb = to_rgb(image)
        look = Looks(self.network, rgb, mirrored=options.flip == "on")
        views = [((0, 0, *rgb.size), look.at_whole())]
        boxes = None
        if options.crop == "yolo":
            boxes = checked_boxes(self.detector(rgb), rgb.size)
        if options.crop != "off":
            views = looked_closer(views[0][1], look, rgb.size, boxes, options)
        bar = bar_for((alpha for _, alpha in views), look.settings)
        views = [(box, hysteresis(alpha, bar, look.settings.haze)) for box, alpha in views]
        (_, whole), *closer = views
        mask = _full_size(whole, rgb, options)
        for box, alpha in closer:
            paste(mask, _full_size(alpha, rgb.crop(box), options), box)
        if options.refine == "matting":
            mask = matted(mask, rgb)
        if options.chooses_persons:
            # Only now is it known who is somebody, and how large.
            boxes = people_in_mask(mask) if boxes is None else boxes
            kept = choose(boxes, options, rgb.size)
            keep_only(mask, rgb, boxes[kept], boxes[~kept])
        return mask

    def alpha(self, image: Picture, options: Options | None = None) -> npt.NDArray[np.float32]:
        """Like :meth:`mask`, as float32 (H,W) in 0…1."""
        return np.asarray(self.mask(image, options), np.float32) / np.float32(255)

    def cutout(
        self, image: Picture, options: Options | None = None, *, decontaminate: bool = False
    ) -> Image.Image:
        """The people on nothing: "RGBA", with :meth:`mask` as alpha.

        ``decontaminate`` takes the background's colour out of the edges' pixels, as rembg's
        option of that name does, and as transparent-background always does.
        """
        mask, rgb = self.mask(image, options), to_rgb(image)
        cutout = decontaminated(rgb, mask) if decontaminate else rgb.copy()
        cutout.putalpha(mask)
        return cutout


def _full_size(alpha: Alpha, view: Image.Image, options: Options) -> Image.Image:
    if options.refine == "off":
        return upsample_logits(alpha, view.size)
    return guided_filter(alpha, view)
