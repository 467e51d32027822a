"""Ways to cut people out of a picture, each as a generator of RGBA pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
from PIL import Image

from u2net_human_plugin.errors import importing, install_command
from u2net_human_plugin.matting import decontaminated

from ..predictors import Segment
from .matting import Alpha

#: An RGB picture and its true trimap, (H,W) float32 of 0 (nobody), 1 (person) and 0.5 (unknown) →
#: cut-outs in RGBA of the picture's size with their names, in the order in which they are ready.
#: Their colours are not multiplied by alpha.
Way = Callable[[Image.Image, Alpha], Iterator[tuple[str, Image.Image]]]


def through_rembg(name: str, segment: Segment, alpha_matting: bool) -> Way:
    """What `rembg i`, or `rembg i -a`, makes of a network's mask, with rembg's own defaults."""
    with importing("rembg", f"{install_command('rembg')}."):
        from rembg import remove

    def way(image: Image.Image, _trimap: Alpha) -> Iterator[tuple[str, Image.Image]]:
        session = SimpleNamespace(predict=lambda one, *_, **__: [Image.fromarray(segment(one))])
        # rembg writes into the picture it is given.
        yield name, remove(image.copy(), session=session, alpha_matting=alpha_matting)

    return way


def refined(name: str, segment: Segment) -> Way:
    """A mask of our pipeline, on the photo's own colours, and then on decontaminated ones."""

    def way(image: Image.Image, _trimap: Alpha) -> Iterator[tuple[str, Image.Image]]:
        mask = Image.fromarray(segment(image))
        yield name, _with_alpha(image, mask)
        yield f"{name}, decontaminated", _with_alpha(decontaminated(image, mask), mask)

    return way


def told_the_trimap(name: str) -> Way:
    """Closed-form matting and multi-level colours within the true unknown band.

    No network knows the band; what is left of the error is the methods' own.
    """
    with importing("pymatting", f"{install_command('train')}."):
        from pymatting import estimate_alpha_cf

    def way(image: Image.Image, trimap: Alpha) -> Iterator[tuple[str, Image.Image]]:
        alpha = estimate_alpha_cf(np.asarray(image) / 255, trimap.astype(np.float64))
        mask = Image.fromarray((alpha * 255).round().astype(np.uint8))
        yield name, _with_alpha(decontaminated(image, mask), mask)

    return way


def _with_alpha(image: Image.Image, mask: Image.Image) -> Image.Image:
    cutout = image.copy()
    cutout.putalpha(mask)
    return cutout
