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
#: names and cut-outs (RGBA, of the picture's size), in the order in which they are ready. Their
#: colours are not multiplied by alpha.
Way = Callable[[Image.Image, Alpha], Iterator[tuple[str, Image.Image]]]


def through_rembg(name: str, segment: Segment, alpha_matting: bool) -> Way:
    """The cut-out of `rembg i`, or `rembg i -a`, from a network's mask, with rembg's defaults."""
    with importing("rembg", f"{install_command('rembg')}."):
        from rembg import remove

    def way(image: Image.Image, _trimap: Alpha) -> Iterator[tuple[str, Image.Image]]:
        session = SimpleNamespace(predict=lambda one, *_, **__: [Image.fromarray(segment(one))])
        # rembg changes the picture it gets.
        yield name, remove(image.copy(), session=session, alpha_matting=alpha_matting)

    return way


def refined(name: str, segment: Segment) -> Way:
    """A mask of our pipeline with the photo's own colours, and with decontaminated ones."""

    def way(image: Image.Image, _trimap: Alpha) -> Iterator[tuple[str, Image.Image]]:
        mask = Image.fromarray(segment(image))
        yield name, _with_alpha(image, mask)
        yield f"{name}, decontaminated", _with_alpha(decontaminated(image, mask), mask)

    return way


def told_the_trimap(name: str) -> Way:
    """Closed-form matting and multi-level colours within the true unknown band.

    No network knows this band; the remaining error is that of the methods.
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
