"""Augmentation with torchvision.transforms.v2, on picture, mask and weight together.

Geometry acts on all three alike; colour, blur, noise and JPEG act on the picture alone
(v2 tells them apart by their ``tv_tensors`` types).
"""

from __future__ import annotations

from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F


class RandomZoom(v2.Transform):  # type: ignore[misc] # torchvision is untyped
    """Resize a random part, or the whole, to ``size`` x ``size`` pixels.

    The part is never smaller than ``size`` on either side as long as the picture allows:
    an enlarged picture would teach the network to draw blurred edges. The aspect ratio is
    not kept, because inference does not keep it either. Masks are reduced with an
    antialiasing filter and become soft, rather than picking nearest pixels.
    """

    def __init__(self, size: int, whole: float = 0.4) -> None:
        super().__init__()
        self.size, self.whole = size, whole

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = F.get_size(flat_inputs[0])
        if torch.rand(()) < self.whole:
            return {"top": 0, "left": 0, "height": height, "width": width}
        part_height, part_width = (self._side(side) for side in (height, width))
        top = int(torch.randint(0, height - part_height + 1, ()))
        left = int(torch.randint(0, width - part_width + 1, ()))
        return {"top": top, "left": left, "height": part_height, "width": part_width}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        mode = (
            v2.InterpolationMode.BILINEAR
            if isinstance(inpt, tv_tensors.Mask)
            else v2.InterpolationMode.BICUBIC
        )
        # As a plain tensor: v2 resizes Mask objects by nearest neighbour only.
        resized = F.resized_crop(
            inpt.as_subclass(torch.Tensor),
            **params,
            size=[self.size, self.size],
            interpolation=mode,
            antialias=True,
        )
        return tv_tensors.wrap(resized, like=inpt)

    def _side(self, side: int) -> int:
        smallest = min(side, max(self.size, side // 2))
        return int(torch.randint(smallest, side + 1, ()))


class LowResolution(v2.Transform):  # type: ignore[misc] # torchvision is untyped
    """Reduce the picture to ``sides`` pixels and enlarge it again; masks stay sharp.

    So looks a small person of a small picture in the closer look of inference. Half of the
    pictures are JPEG-compressed while they are small.
    """

    def __init__(self, sides: tuple[int, int] = (40, 200)) -> None:
        super().__init__()
        self.low, self.high = sides

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        del flat_inputs
        # Every factor of reduction is equally frequent; crops are not square.
        side = self.low * (self.high / self.low) ** float(torch.rand(()))
        size = [round(side * float(factor)) for factor in torch.empty(2).uniform_(0.7, 1.4)]
        quality = int(torch.randint(40, 96, ())) if torch.rand(()) < 0.5 else None
        return {"size": size, "quality": quality}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        mode = v2.InterpolationMode.BICUBIC
        small = F.resize(inpt, params["size"], mode, antialias=True)
        if params["quality"] is not None:
            small = F.jpeg(small, params["quality"])
        return F.resize(small, list(F.get_size(inpt)), mode, antialias=True)


def whole(size: int) -> v2.Transform:
    """The deterministic counterpart for validation: the whole picture, resized."""
    return RandomZoom(size, whole=1.0)


def training(size: int) -> v2.Transform:
    """What training pictures go through. Input: uint8 ``Image`` (3,H,W), ``Mask`` (2,H,W)."""
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            # What a rotation brings in from outside has weight 0, like the mask's fill.
            v2.RandomApply([v2.RandomRotation((-10.0, 10.0), v2.InterpolationMode.BILINEAR)], 0.1),
            RandomZoom(size),
            v2.RandomApply([v2.ColorJitter(0.5, 0.4, 0.4, 0.06)], 0.8),
            v2.RandomGrayscale(0.08),
            v2.RandomApply([LowResolution()], 0.25),
            v2.RandomApply([v2.GaussianBlur(5, (0.2, 1.2))], 0.12),
            v2.RandomAdjustSharpness(2.0, 0.1),
            v2.RandomApply([v2.JPEG((40, 95))], 0.35),
            v2.RandomApply([_noise()], 0.1),
        ]
    )


def _noise() -> v2.Transform:
    return v2.Compose(
        [
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            v2.GaussianNoise(sigma=0.03),
            v2.ToDtype({tv_tensors.Image: torch.uint8, "others": None}, scale=True),
        ]
    )
