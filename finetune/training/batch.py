"""A training batch as tensor operations on the bank's device: crop, compose, light, spoil.

Everything is drawn from one generator, so that a batch depends on its seed and number alone.
All ranges stand in :class:`Recipe`; a run's record holds them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from u2net_human_plugin.preprocess import MEAN, STD

from .bank import Bank

Range = tuple[float, float]


@dataclass(frozen=True)
class Recipe:
    """How pictures are drawn and changed; probabilities are 0…1, ranges (lowest, highest)."""

    #: Share of the batch whose ground is a scene with nobody in it; the rest are photos.
    scenes: float = 0.3
    #: Of those scenes, how many stay empty and how many get a single person.
    empty: float = 0.45
    single: float = 0.2
    #: At most as many people are pasted into one picture.
    most_people: int = 4
    #: How often a photo gets one or two more people, and any picture one or two things.
    joined: float = 0.12
    things: float = 0.35
    #: How often a picture is used whole, or cut down to its people.
    whole: float = 0.4
    tight: float = 0.15
    #: Size of the part that is used otherwise, as a share of the picture's side.
    zoom: Range = (0.5, 1.15)
    #: Log of the change of width against height.
    stretch: float = 0.2
    #: Standard deviation of the angle in radians, and how often a picture lies on its side
    #: or stands on its head.
    turn: float = 0.06
    lying: float = 0.06
    #: Height of a pasted person, as a share of the picture's.
    height: Range = (0.1, 1.2)
    #: How much the light varies: 1 is a factor of 1.5 in each of brightness, contrast and so on.
    light: float = 0.8
    grey: float = 0.05
    dark: float = 0.06
    #: How often the picture is out of focus, of low resolution, noisy, or saved as JPEG,
    blurred: float = 0.12
    coarse: float = 0.15
    noisy: float = 0.2
    jpeg: float = 0.4
    #: and its quality then.
    quality: Range = (8.0, 85.0)


class Batch(NamedTuple):
    """What a step sees: float32 tensors of one device."""

    #: (N,3,S,S), normalised as :func:`u2net_human_plugin.preprocess.normalize` does.
    image: Tensor
    #: (N,1,S,S) in 0…1.
    alpha: Tensor
    #: (N,1,S,S) in 0…1; 0 does not count.
    weight: Tensor
    #: (N,1,S,S) in 0…1: what the network before fine-tuning answers, and
    before: Tensor
    #: (N,1,S,S) whether that is known.
    before_weight: Tensor


@dataclass
class Batches:
    """An endless, reproducible supply of batches.

    Args:
        bank: decoded pictures.
        recipe: what is done with them.
        seed: of the whole run.
    """

    bank: Bank
    recipe: Recipe
    seed: int = 0

    def __post_init__(self) -> None:
        self.device = self.bank.share.device
        self.photos, self.scenes = self.bank.pool("photo"), self.bank.pool("scene")
        self.cutouts = torch.cat((self.photos, self.bank.pool("cutout")))

    @torch.no_grad()
    def draw(self, number: int, count: int, size: int) -> Batch:
        """Batch ``number`` of ``count`` pictures with ``size`` pixels a side."""
        rng = torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + number)
        draw = _Draw(rng, self.device)
        recipe = self.recipe
        on_scenes = draw.chance(count, recipe.scenes)
        if not len(self.scenes):
            on_scenes[:] = False
        ground = torch.where(
            on_scenes,
            self._choose(draw, self.scenes, count),
            self._choose(draw, self.photos, count),
        )
        maps = _crop_maps(draw, self.bank, ground, recipe)
        rgb, alpha, weight, before = _sampled(self.bank, ground, maps, size)
        alpha[on_scenes] = 0
        weight[on_scenes] = 1
        rgb = _lit(draw, rgb, recipe.light * 0.5)
        known = self.bank.has_before[ground].float()
        before_weight = known[:, None, None, None].expand_as(alpha).clone()
        more = draw.integers(count, 1, recipe.most_people + 1)
        people = torch.where(
            on_scenes,
            torch.where(draw.chance(count, recipe.single), 1, more)
            * ~draw.chance(count, recipe.empty),
            draw.integers(count, 1, 3) * draw.chance(count, recipe.joined),
        )
        things = draw.integers(count, 1, 3) * draw.chance(count, recipe.things)
        if not len(self.bank.things):
            things[:] = 0
        aspect = draw.log_uniform(count, 0.6, 1.8)
        for layer in range(max(recipe.most_people, 2)):
            for pool, wanted, somebody in (
                (self.bank.things, things, False),
                (self.cutouts, people, True),
            ):
                onto = (wanted > layer).nonzero()[:, 0]
                if not len(onto):
                    continue
                pasted = self._choose(draw, pool, len(onto))
                maps = _layer_maps(draw, self.bank, pasted, aspect[onto], recipe)
                colour, cover, _, _ = _sampled(self.bank, pasted, maps, size, outside="zeros")
                colour = _lit(draw, colour, recipe.light * 0.7)
                cover = ((cover - 0.08) / 0.86).clamp(0, 1)
                rgb[onto] = rgb[onto].lerp(colour, cover)
                below = alpha[onto] * (1 - cover)
                alpha[onto] = torch.maximum(below, cover) if somebody else below
                weight[onto] = torch.maximum(weight[onto], cover)
                before_weight[onto] = 0
        rgb = _spoilt(draw, _lit(draw, rgb, recipe.light), recipe)
        return Batch(_normalized(rgb), alpha, weight, before, before_weight)

    def _choose(self, draw: _Draw, pool: Tensor, count: int) -> Tensor:
        if not len(pool):
            return torch.zeros(count, dtype=torch.long, device=self.device)
        shares = self.bank.share[pool]
        return pool[torch.multinomial(shares, count, replacement=True, generator=draw.rng)]


class _Draw:
    """Random tensors of one generator."""

    def __init__(self, rng: torch.Generator, device: torch.device) -> None:
        self.rng, self.device = rng, device

    def uniform(self, count: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=self.rng, device=self.device)

    def log_uniform(self, count: int, low: float, high: float) -> Tensor:
        return self.uniform(count, math.log(low), math.log(high)).exp()

    def chance(self, count: int, share: float) -> Tensor:
        return self.uniform(count) < share

    def integers(self, count: int, low: int, high: int) -> Tensor:
        return torch.randint(low, high, (count,), generator=self.rng, device=self.device)

    def normal(self, *size: int) -> Tensor:
        return torch.randn(size, generator=self.rng, device=self.device)

    def sign(self, count: int) -> Tensor:
        return 2.0 * self.chance(count, 0.5) - 1


def _affine(angle: Tensor, scale: tuple[Tensor, Tensor], centre: tuple[Tensor, Tensor]) -> Tensor:
    """Maps (N,2,3) from output to input, both in -1…1: turn, scale, move."""
    cos, sin = angle.cos(), angle.sin()
    (sx, sy), (cx, cy) = scale, centre
    rows = (torch.stack((cos * sx, -sin * sx, cx), 1), torch.stack((sin * sy, cos * sy, cy), 1))
    return torch.stack(rows, 1)


def _angles(draw: _Draw, count: int, recipe: Recipe) -> Tensor:
    angle = recipe.turn * draw.normal(count)
    quarter = draw.integers(count, 1, 4) * (math.pi / 2)
    return torch.where(draw.chance(count, recipe.lying), angle + quarter, angle)


def _crop_maps(draw: _Draw, bank: Bank, index: Tensor, recipe: Recipe) -> Tensor:
    """The part of its picture that each item shows: the whole, a part, or its people."""
    count = len(index)
    zoom = torch.where(
        draw.chance(count, recipe.whole),
        draw.uniform(count, 0.95, 1.05),
        draw.log_uniform(count, *recipe.zoom),
    )
    ratio = draw.uniform(count, -recipe.stretch, recipe.stretch).exp()
    width, height = zoom * ratio, zoom / ratio
    x = (1 - width).clamp(min=0) * draw.uniform(count, -1, 1)
    y = (1 - height).clamp(min=0) * draw.uniform(count, -1, 1)
    box = bank.box_xyxy[index]
    sides = box[:, 2:] - box[:, :2]
    tight = (sides[:, 0] > 0) & draw.chance(count, recipe.tight)
    room = draw.uniform(count, 1.02, 1.8)
    close = (sides * room[:, None]).clamp(min=0.25)
    middle = box[:, :2] + box[:, 2:] - 1
    width, height = torch.where(tight, close[:, 0], width), torch.where(tight, close[:, 1], height)
    away = 0.15 * draw.uniform(count, -1, 1)
    x = torch.where(tight, middle[:, 0] + away * close[:, 0], x)
    y = torch.where(tight, middle[:, 1] + away * close[:, 1], y)
    return _affine(_angles(draw, count, recipe), (width * draw.sign(count), height), (x, y))


def _layer_maps(
    draw: _Draw, bank: Bank, index: Tensor, canvas_aspect: Tensor, recipe: Recipe
) -> Tensor:
    """Where pasted figures go: anywhere; who is cut off below stands on the picture's edge."""
    count = len(index)
    box = bank.box_xyxy[index]
    own = (box[:, 2:] - box[:, :2]).clamp(min=0.02)
    height = draw.log_uniform(count, *recipe.height)
    slimness = own[:, 0] * bank.aspect[index] / own[:, 1]
    width = height * slimness / canvas_aspect
    excess = (width / 1.1).clamp(min=1)
    width, height = width / excess, height / excess
    x = draw.uniform(count, -0.9, 0.9) * (1.05 - 0.4 * width).clamp(min=0.1)
    standing = (1 - height).clamp(-0.6, 1) * draw.uniform(count, 0.3, 1.1)
    y = torch.where(draw.chance(count, 0.6), standing, draw.uniform(count, -0.8, 0.8))
    cut_off = box[:, 3] > 0.97
    y = torch.where(cut_off, 1 - height * draw.uniform(count, 0.7, 1.0), y)
    sx, sy = draw.sign(count) * own[:, 0] / width, own[:, 1] / height
    angle = _angles(draw, count, recipe)
    cos, sin = angle.cos(), angle.sin()
    # Turned in the picture's own proportions, so that nobody is sheared.
    xx, xy = sx * cos, -sx * sin / canvas_aspect
    yx, yy = sy * sin * canvas_aspect, sy * cos
    centre = box[:, :2] + box[:, 2:] - 1
    rows = (
        torch.stack((xx, xy, centre[:, 0] - xx * x - xy * y), 1),
        torch.stack((yx, yy, centre[:, 1] - yx * x - yy * y), 1),
    )
    return torch.stack(rows, 1)


def _sampled(
    bank: Bank, index: Tensor, maps: Tensor, size: int, outside: str = "reflection"
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pictures through affine maps: rgb (N,3,S,S), alpha, weight, before (N,1,S,S), in 0…1."""
    planes = torch.cat([plane[index.to(plane.device)] for plane in bank.planes.values()], 1)
    planes = planes.to(maps.device).float().div_(255)
    grid = F.affine_grid(maps, [len(index), planes.shape[1], size, size], align_corners=False)
    # Shrunk by more than two, sampling would skip pixels: they are averaged first.
    shrink = maps[:, :, :2].pow(2).sum(1).sqrt().mean(1) * bank.side / size
    out = torch.empty((len(index), planes.shape[1], size, size), device=maps.device)
    for low, high, factor in ((0.0, 1.6, 1), (1.6, 3.2, 2), (3.2, math.inf, 4)):
        these = ((shrink >= low) & (shrink < high)).nonzero()[:, 0]
        if len(these):
            source = planes[these]
            if factor > 1:
                source = F.avg_pool2d(source, factor)
            out[these] = F.grid_sample(
                source, grid[these], mode="bilinear", padding_mode=outside, align_corners=False
            )
    rgb, alpha, weight, before = out.split((3, 1, 1, 1), 1)
    return rgb.contiguous(), alpha.contiguous(), weight.contiguous(), before.contiguous()


def _lit(draw: _Draw, rgb: Tensor, strength: float) -> Tensor:
    """Gamma, contrast, saturation, white balance and brightness, drawn for each picture."""
    count = len(rgb)

    def factor(low: float, high: float) -> Tensor:
        return (draw.uniform(count, low, high) * strength).exp()[:, None, None, None]

    rgb = rgb.clamp(1e-4, 1) ** factor(-0.45, 0.45)
    mean = rgb.mean((1, 2, 3), keepdim=True)
    rgb = (rgb - mean) * factor(-0.4, 0.35) + mean
    grey = _luma(rgb)
    rgb = grey + (rgb - grey) * factor(-0.5, 0.35)
    balance = (draw.uniform(3 * count, -0.15, 0.15) * strength).exp().view(count, 3, 1, 1)
    return (rgb * balance * factor(-0.5, 0.25)).clamp(0, 1)


def _luma(rgb: Tensor) -> Tensor:
    return (rgb * rgb.new_tensor((0.299, 0.587, 0.114))[:, None, None]).sum(1, keepdim=True)


def _spoilt(draw: _Draw, rgb: Tensor, recipe: Recipe) -> Tensor:
    """Grey, dark, out of focus, of low resolution, noisy, compressed: each now and then."""
    count, size = len(rgb), rgb.shape[-1]

    def some(share: float) -> Tensor:
        return draw.chance(count, share).nonzero()[:, 0]

    if len(these := some(recipe.grey)):
        rgb[these] = _luma(rgb[these]).expand(-1, 3, -1, -1)
    if len(these := some(recipe.dark)):
        rgb[these] *= draw.uniform(len(these), 0.15, 0.5)[:, None, None, None]
    for number in some(recipe.blurred).tolist():
        rgb[number] = _blurred(rgb[number][None], float(draw.uniform(1, 0.4, 2.2)))[0]
    for number in some(recipe.coarse).tolist():
        small = max(16, int(size * float(draw.log_uniform(1, 0.12, 0.7))))
        reduced = F.interpolate(rgb[number][None], small, mode="bilinear", antialias=True)
        rgb[number] = F.interpolate(reduced, size, mode="bicubic").clamp(0, 1)[0]
    if len(these := some(recipe.noisy)):
        strength = 0.04 * draw.normal(len(these), 1, 1, 1).abs()
        rgb[these] = (rgb[these] + strength * draw.normal(len(these), 3, size, size)).clamp(0, 1)
    for number in some(recipe.jpeg).tolist():
        rgb[number] = compressed(rgb[number][None], float(draw.uniform(1, *recipe.quality)))[0]
    return rgb


def _blurred(rgb: Tensor, sigma: float) -> Tensor:
    reach = max(1, int(2.5 * sigma))
    steps = torch.arange(-reach, reach + 1, device=rgb.device, dtype=rgb.dtype)
    kernel = (-steps.square() / (2 * sigma * sigma)).exp()
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1).expand(3, 1, 1, -1)
    rgb = F.pad(rgb, (reach,) * 4, mode="reflect")
    rgb = F.conv2d(rgb, kernel, groups=3)
    return F.conv2d(rgb, kernel.transpose(2, 3), groups=3)


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


def compressed(rgb: Tensor, quality: float) -> Tensor:
    """What JPEG with chroma at half resolution makes of colours (N,3,H,W) in 0…1.

    H and W are multiples of 16; ``quality`` is 1…100, as in libjpeg.
    """
    scale = 50 / quality if quality < 50 else 2 - quality / 50
    rgb = rgb * 255
    luma = _luma(rgb)
    blue, red = (rgb[:, 2:] - luma) * 0.564, (rgb[:, :1] - luma) * 0.713
    luma = _quantized(luma - 128, _LUMA_STEPS, scale) + 128
    chroma = F.avg_pool2d(torch.cat((blue, red), 1), 2)
    chroma = F.interpolate(_quantized(chroma, _CHROMA_STEPS, scale), scale_factor=2, mode="nearest")
    blue, red = chroma.split(1, 1)
    green = luma - 0.344 * blue - 0.714 * red
    return (torch.cat((luma + 1.403 * red, green, luma + 1.773 * blue), 1) / 255).clamp(0, 1)


def _quantized(plane: Tensor, steps: tuple[tuple[int, ...], ...], scale: float) -> Tensor:
    """Blocks of 8x8 through the discrete cosine transform, rounded to ``steps``, and back."""
    n = torch.arange(8, device=plane.device, dtype=plane.dtype)
    cosines = ((2 * n[None] + 1) * n[:, None] * (math.pi / 16)).cos() * 0.5
    cosines[0] *= 0.5**0.5
    step = (plane.new_tensor(steps) * scale).clamp(min=1)
    count, channels, height, width = plane.shape
    blocks = plane.view(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    kept = ((cosines @ blocks @ cosines.T) / step).round() * step
    blocks = cosines.T @ kept @ cosines
    return blocks.transpose(3, 4).reshape(plane.shape)


def _normalized(rgb: Tensor) -> Tensor:
    """As :func:`u2net_human_plugin.preprocess.normalize`: (N,3,S,S) in 0…1."""
    rgb = rgb / rgb.amax((1, 2, 3), keepdim=True).clamp(min=1 / 255)
    mean, std = (torch.from_numpy(values).to(rgb.device)[:, None, None] for values in (MEAN, STD))
    return (rgb - mean) / std
