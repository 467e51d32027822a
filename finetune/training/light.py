"""Photometric augmentation: light, blur, resolution, noise and JPEG, as operations on batches."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from u2net_human_plugin.preprocess import MEAN, STD

from .draws import Draw
from .recipe import Range, Recipe


def lit(draw: Draw, rgb: Tensor, recipe: Recipe, strength: float) -> Tensor:
    """Gamma, contrast, saturation, white balance and brightness, drawn for each picture.

    ``strength`` 1 uses the whole of the recipe's ranges, 0 changes nothing.
    """
    count = len(rgb)

    def factor(span: Range) -> Tensor:
        return (draw.uniform(count, *span) * strength).exp()[:, None, None, None]

    rgb = rgb.clamp(1e-4, 1) ** factor(recipe.gamma)
    mean = rgb.mean((1, 2, 3), keepdim=True)
    rgb = (rgb - mean) * factor(recipe.contrast) + mean
    grey = _luma(rgb)
    rgb = grey + (rgb - grey) * factor(recipe.saturation)
    balance = (draw.uniform(3 * count, *recipe.white_balance) * strength).exp().view(count, 3, 1, 1)
    return (rgb * balance * factor(recipe.brightness)).clamp(0, 1)


def _luma(rgb: Tensor) -> Tensor:
    return (rgb * rgb.new_tensor((0.299, 0.587, 0.114))[:, None, None]).sum(1, keepdim=True)


def spoilt(draw: Draw, rgb: Tensor, recipe: Recipe) -> Tensor:
    """Make some pictures grey, dark, out of focus, of low resolution, noisy or compressed."""
    count, size = len(rgb), rgb.shape[-1]

    def some(share: float) -> Tensor:
        return draw.chance(count, share).nonzero()[:, 0]

    if len(these := some(recipe.grey)):
        rgb[these] = _luma(rgb[these]).expand(-1, 3, -1, -1)
    if len(these := some(recipe.dark)):
        rgb[these] *= draw.uniform(len(these), *recipe.darkness)[:, None, None, None]
    if len(these := some(recipe.blurred)):
        rgb[these] = _blurred(rgb[these], draw.uniform(len(these), *recipe.blur), recipe.blur[1])
    if len(these := some(recipe.coarse)):
        # One resolution for the whole batch: pictures of different sizes are not one tensor.
        small = max(16, int(size * float(draw.log_uniform(1, *recipe.resolution))))
        reduced = F.interpolate(rgb[these], small, mode="bilinear", antialias=True)
        rgb[these] = F.interpolate(reduced, size, mode="bicubic").clamp(0, 1)
    if len(these := some(recipe.noisy)):
        strength = recipe.noise * draw.normal(len(these), 1, 1, 1).abs()
        rgb[these] = (rgb[these] + strength * draw.normal(len(these), 3, size, size)).clamp(0, 1)
    if len(these := some(recipe.jpeg)):
        rgb[these] = compressed(rgb[these], draw.uniform(len(these), *recipe.quality))
    return rgb


def _blurred(rgb: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """Each of (N,3,H,W) by a Gaussian of its own ``sigma`` (N,) in pixels, up to ``largest``."""
    count, channels, height, width = rgb.shape
    reach = min(math.ceil(2.7 * largest), height - 1, width - 1)
    steps = torch.arange(-reach, reach + 1, device=rgb.device, dtype=rgb.dtype)
    kernels = (-steps.square() / (2 * sigma.square()[:, None])).exp()
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    kernels = kernels[:, None, None]
    planes = rgb.reshape(1, count * channels, height, width)
    planes = F.pad(planes, (reach,) * 4, mode="reflect")
    planes = F.conv2d(planes, kernels, groups=count * channels)
    planes = F.conv2d(planes, kernels.transpose(2, 3), groups=count * channels)
    return planes.view(rgb.shape)


# ITU-T T.81, tables K.1 and K.2: the quantisation of JPEG at quality 50.
_LUMA_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56), (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMA_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99), (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)  # fmt: skip


def compressed(rgb: Tensor, quality: Tensor) -> Tensor:
    """Colours (N,3,H,W) in 0…1 after JPEG compression with chroma at half resolution.

    ``quality`` is (N,) in 1…100, as in libjpeg.
    """
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    height, width = rgb.shape[2:]
    rgb = F.pad(rgb * 255, (0, -width % 16, 0, -height % 16), mode="replicate")
    luma = _luma(rgb)
    blue, red = (rgb[:, 2:] - luma) * 0.564, (rgb[:, :1] - luma) * 0.713
    luma = _quantized(luma - 128, _LUMA_STEPS, scale) + 128
    chroma = F.avg_pool2d(torch.cat((blue, red), 1), 2)
    chroma = _quantized(chroma, _CHROMA_STEPS, scale)
    # As libjpeg's "fancy upsampling", its default.
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    blue, red = chroma[:, :1], chroma[:, 1:]
    green = luma - 0.344 * blue - 0.714 * red
    decoded = torch.cat((luma + 1.403 * red, green, luma + 1.773 * blue), 1)
    return (decoded[..., :height, :width] / 255).clamp(0, 1)


def _quantized(plane: Tensor, steps: tuple[tuple[int, ...], ...], scale: Tensor) -> Tensor:
    """Blocks of 8x8 through the discrete cosine transform, rounded to ``steps``, and back."""
    n = torch.arange(8, device=plane.device, dtype=plane.dtype)
    cosines = ((2 * n[None] + 1) * n[:, None] * (math.pi / 16)).cos() * 0.5
    cosines[0] *= 0.5**0.5
    step = (plane.new_tensor(steps) * scale.view(-1, 1, 1, 1, 1, 1)).clamp(min=1)
    count, channels, height, width = plane.shape
    blocks = plane.view(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    kept = ((cosines @ blocks @ cosines.T) / step).round() * step
    blocks = cosines.T @ kept @ cosines
    return blocks.transpose(3, 4).reshape(plane.shape)


def normalized(rgb: Tensor) -> Tensor:
    """(N,3,S,S) in 0…1, normalised as by :func:`u2net_human_plugin.preprocess.normalize`."""
    rgb = rgb / rgb.amax((1, 2, 3), keepdim=True).clamp(min=1 / 255)
    mean, std = (torch.from_numpy(values).to(rgb.device)[:, None, None] for values in (MEAN, STD))
    return (rgb - mean) / std
