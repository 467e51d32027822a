"""A training batch as tensor operations on the bank's device: crop, compose, light, spoil.

All random numbers come from one generator, so that a batch depends on its seed and number alone
(and on whether a CPU or a GPU draws it). All probabilities and ranges are fields of
:class:`.recipe.Recipe`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .bank import PLANES, Bank
from .draws import Draw
from .light import lit, normalized, spoilt
from .recipe import Recipe


class Batch(NamedTuple):
    """The samples of one training step: float32 tensors on one device."""

    #: (N,3,S,S), normalised as :func:`u2net_human_plugin.preprocess.normalize` does.
    image: Tensor
    #: (N,1,S,S) in 0…1.
    alpha: Tensor
    #: (N,1,S,S) in 0…1; 0 does not count.
    weight: Tensor
    #: (N,1,S,S) in 0…1: the answer of a network that must not be forgotten; None without one.
    before: Tensor | None
    #: (N,1,1,1) 0 or 1: whether ``before`` holds; not for a sample into which something is pasted.
    before_weight: Tensor


@dataclass
class Batches:
    """An endless, reproducible supply of batches.

    Args:
        bank: decoded pictures.
        recipe: how samples are made of them.
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
        draw = Draw(rng, self.device)
        recipe = self.recipe
        on_scenes = draw.chance(count, recipe.scenes)
        if not len(self.scenes) or not len(self.photos):
            on_scenes[:] = not len(self.photos)
        ground = torch.where(
            on_scenes,
            self._choose(draw, self.scenes, count),
            self._choose(draw, self.photos, count),
        )
        maps = _crop_maps(draw, self.bank, ground, recipe)
        rgb, alpha, weight, before = _sampled(self.bank, ground, maps, size)
        alpha[on_scenes] = 0
        weight[on_scenes] = 1
        if not len(self.scenes) and not len(self.photos):  # plain colour is no wrong scene
            rgb = draw.uniform(3 * count).view(count, 3, 1, 1).expand_as(rgb).clone()
        rgb = lit(draw, rgb, recipe, recipe.light * recipe.light_ground)
        before_weight = torch.ones(count, 1, 1, 1, device=self.device)
        more = draw.integers(count, 1, recipe.most_people + 1)
        people = torch.where(
            on_scenes,
            torch.where(draw.chance(count, recipe.single), 1, more)
            * ~draw.chance(count, recipe.empty),
            draw.integers(count, 1, recipe.most_joined + 1) * draw.chance(count, recipe.joined),
        )
        several = draw.integers(count, 1, recipe.most_distractors + 1)
        distractors = several * draw.chance(count, recipe.distractors)
        aspect = draw.log_uniform(count, *recipe.canvas)
        most = max(recipe.most_people, recipe.most_joined, recipe.most_distractors)
        for layer in range(most):
            for pool, wanted, somebody in (
                (self.bank.distractors, distractors, False),
                (self.cutouts, people, True),
            ):
                onto = (wanted > layer).nonzero()[:, 0]
                if not len(onto) or not len(pool):
                    continue
                pasted = self._choose(draw, pool, len(onto))
                maps = _layer_maps(draw, self.bank, pasted, aspect[onto], recipe)
                colour, cover = _cut_out(self.bank, pasted, maps, size)
                colour = lit(draw, colour, recipe, recipe.light * recipe.light_pasted)
                rgb[onto] = rgb[onto].lerp(colour, cover)
                below = alpha[onto] * (1 - cover)
                alpha[onto] = torch.maximum(below, cover) if somebody else below
                weight[onto] = torch.maximum(weight[onto], cover)
                before_weight[onto] = 0
        rgb = spoilt(draw, lit(draw, rgb, recipe, recipe.light), recipe)
        return Batch(normalized(rgb), alpha, weight, before, before_weight)

    def _choose(self, draw: Draw, pool: Tensor, count: int) -> Tensor:
        if not len(pool):
            return torch.zeros(count, dtype=torch.long, device=self.device)
        shares = self.bank.share[pool]
        return pool[torch.multinomial(shares, count, replacement=True, generator=draw.rng)]


def _affine(angle: Tensor, scale: tuple[Tensor, Tensor], centre: tuple[Tensor, Tensor]) -> Tensor:
    """Maps (N,2,3) from output to input, both in -1…1, that rotate, scale and translate."""
    cos, sin = angle.cos(), angle.sin()
    (sx, sy), (cx, cy) = scale, centre
    rows = (torch.stack((cos * sx, -sin * sx, cx), 1), torch.stack((sin * sy, cos * sy, cy), 1))
    return torch.stack(rows, 1)


def _angles(draw: Draw, count: int, recipe: Recipe) -> Tensor:
    angle = recipe.turn * draw.normal(count)
    quarter = draw.integers(count, 1, 4) * (math.pi / 2)
    return torch.where(draw.chance(count, recipe.lying), angle + quarter, angle)


def _crop_maps(draw: Draw, bank: Bank, index: Tensor, recipe: Recipe) -> Tensor:
    """The part of its picture that each sample shows: the whole, a part, or its people."""
    count = len(index)
    zoom = torch.where(
        draw.chance(count, recipe.whole),
        draw.uniform(count, *recipe.whole_zoom),
        draw.log_uniform(count, *recipe.zoom),
    )
    ratio = draw.uniform(count, -recipe.stretch, recipe.stretch).exp()
    width, height = zoom * ratio, zoom / ratio
    x = (1 - width).clamp(min=0) * draw.uniform(count, -1, 1)
    y = (1 - height).clamp(min=0) * draw.uniform(count, -1, 1)
    box = bank.box_xyxy[index]
    sides = box[:, 2:] - box[:, :2]
    tight = (sides[:, 0] > 0) & draw.chance(count, recipe.tight)
    room = draw.uniform(count, *recipe.tight_room)
    close = (sides * room[:, None]).clamp(min=recipe.tight_least)
    middle = box[:, :2] + box[:, 2:] - 1
    width, height = torch.where(tight, close[:, 0], width), torch.where(tight, close[:, 1], height)
    away = recipe.tight_shift * draw.uniform(count, -1, 1)
    x = torch.where(tight, middle[:, 0] + away * close[:, 0], x)
    y = torch.where(tight, middle[:, 1] + away * close[:, 1], y)
    angles, mirror = _angles(draw, count, recipe), draw.sign(count, 1 - recipe.mirrored)
    return _affine(angles, (width * mirror, height), (x, y))


def _layer_maps(
    draw: Draw, bank: Bank, index: Tensor, canvas_aspect: Tensor, recipe: Recipe
) -> Tensor:
    """Maps for pasted figures; one that is cut off below goes to the lower edge of the picture."""
    count = len(index)
    box = bank.box_xyxy[index]
    own = (box[:, 2:] - box[:, :2]).clamp(min=0.02)
    height = draw.log_uniform(count, *recipe.height)
    slimness = own[:, 0] * bank.aspect[index] / own[:, 1]
    width = height * slimness / canvas_aspect
    excess = (width / recipe.widest).clamp(min=1)
    width, height = width / excess, height / excess
    x = draw.uniform(count, -recipe.across, recipe.across) * (1.05 - 0.4 * width).clamp(min=0.1)
    standing = (1 - height).clamp(-0.6, 1) * draw.uniform(count, *recipe.standing_at)
    low = draw.chance(count, recipe.standing)
    y = torch.where(low, standing, draw.uniform(count, -recipe.floating, recipe.floating))
    cut_off = box[:, 3] > 0.97
    y = torch.where(cut_off, 1 - height * draw.uniform(count, *recipe.cut_off), y)
    sx, sy = draw.sign(count, 1 - recipe.mirrored) * own[:, 0] / width, own[:, 1] / height
    angle = _angles(draw, count, recipe)
    cos, sin = angle.cos(), angle.sin()
    # Rotated in the picture's own proportions, so that figures are not sheared.
    xx, xy = sx * cos, -sx * sin / canvas_aspect
    yx, yy = sy * sin * canvas_aspect, sy * cos
    centre = box[:, :2] + box[:, 2:] - 1
    rows = (
        torch.stack((xx, xy, centre[:, 0] - xx * x - xy * y), 1),
        torch.stack((yx, yy, centre[:, 1] - yx * x - yy * y), 1),
    )
    return torch.stack(rows, 1)


def _sampled(
    bank: Bank, index: Tensor, maps: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Pictures through affine maps: rgb (N,3,S,S), alpha, weight, before (N,1,S,S), in 0…1."""
    names = [*PLANES, "before"] if "before" in bank.planes else [*PLANES]
    out = _warped(bank, _planes(bank, index, names), maps, size, "reflection")
    rgb, alpha, weight = (out[:, first:end].contiguous() for first, end in ((0, 3), (3, 4), (4, 5)))
    return rgb, alpha, weight, out[:, 5:].contiguous() if "before" in names else None


def _cut_out(bank: Bank, index: Tensor, maps: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Figures through affine maps, without background: rgb (N,3,S,S), cover (N,1,S,S)."""
    planes = _planes(bank, index, ["rgb", "alpha"])
    # Weighted with alpha, so that no background colour bleeds into an edge.
    planes[:, :3] *= planes[:, 3:]
    warped = _warped(bank, planes, maps, size, "zeros")
    colour, alpha = warped[:, :3], warped[:, 3:]
    return (colour / alpha.clamp(min=1e-3)).clamp(0, 1), ((alpha - 0.08) / 0.86).clamp(0, 1)


def _planes(bank: Bank, index: Tensor, names: list[str]) -> Tensor:
    """Stored pictures in 0…1: (N,C,R,R) float32 on the device of ``index``."""
    found = [bank.planes[name][index.to(bank.planes[name].device)] for name in names]
    return torch.cat(found, 1).to(index.device).float().div_(255)


def _warped(bank: Bank, planes: Tensor, maps: Tensor, size: int, outside: str) -> Tensor:
    grid = F.affine_grid(maps, [len(maps), planes.shape[1], size, size], align_corners=False)
    # A picture that shrinks by more than two is averaged first: sampling would skip pixels.
    shrink = maps[:, :, :2].pow(2).sum(1).sqrt().mean(1) * bank.side / size
    out = torch.empty((len(maps), planes.shape[1], size, size), device=maps.device)
    for low, high, factor in ((0.0, 1.6, 1), (1.6, 3.2, 2), (3.2, math.inf, 4)):
        these = ((shrink >= low) & (shrink < high)).nonzero()[:, 0]
        if len(these):
            source = planes[these]
            if factor > 1:
                source = F.avg_pool2d(source, factor)
            out[these] = F.grid_sample(
                source, grid[these], mode="bilinear", padding_mode=outside, align_corners=False
            )
    return out
