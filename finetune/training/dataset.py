"""Samples to measure with: photos, photos with people added, composites, empty scenes.

They are rendered at their own size, for `compose` and for validation while training; training
itself learns from :mod:`.batch`. Sample ``n`` depends on the seed and ``n`` alone. The
probabilities and ranges here, in :mod:`.composition` and in :mod:`.distractors` are constants and
not part of a :class:`~.recipe.Recipe`, so that validation scores of different runs can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image, ImageChops, ImageFilter
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from u2net_human_plugin.cutout import upright
from u2net_human_plugin.errors import DataError
from u2net_human_plugin.preprocess import SIZE, normalize

from ..data.manifest import Row
from ..data.pictures import alpha_of, load_image, load_mask, open_image
from ..data.unlabelled import IS_PERSON, IS_UNKNOWN, bystanders
from .composition import (
    HEIGHT_BANDS,
    LONGEST_SIDE,
    CutOut,
    Rng,
    Sample,
    backdrop,
    beside_people,
    composite,
    cut_out,
    cut_out_rgba,
    draw_heights,
    random_canvas,
    scene_crop,
)
from .distractors import cloth, hung, shape
from .training_rows import rounded, shows_nobody

#: How often a scene is a plain backdrop.
PLAIN = 0.2
#: How often a scene with people, and an empty one, has one to three distractors in it,
DISTRACTORS, DISTRACTORS_IN_EMPTY = 0.6, 0.65
#: and how often such a distractor is a cut-out, if there are any, instead of a drawn shape.
REAL_DISTRACTORS = 0.5
#: How often a drawn shape is of striped cloth: flags beside people were taken for clothes.
CLOTH = 0.7
#: How often cloth hangs as the rectangle that it is, instead of being cut to a shape.
HUNG = 0.5


@dataclass(frozen=True)
class Mix:
    """How often each kind of picture is drawn, in proportion to the others."""

    photo: float = 0.40
    #: A photo with more people pasted in, so that they stand among real ones.
    group: float = 0.17
    scene: float = 0.35
    #: Few: with one in seven, networks missed people in unusual poses and light.
    empty: float = 0.08

    def draw(self, rng: Rng) -> str:
        """One of the four names."""
        shares = vars(self)
        total = sum(shares.values())
        return str(rng.choice(list(shares), p=[share / total for share in shares.values()]))


@dataclass(frozen=True)
class Material:
    """The rows that samples are made of.

    ``coarse`` names sources whose masks have steps, with the number of pixels within
    which their contour cannot be trusted.
    """

    rows: Sequence[Row]
    coarse: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.photos and not self.people:
            raise DataError(
                "no picture with a mask is left to train on; check the manifest's split column."
            )

    @property
    def photos(self) -> list[Row]:
        """Pictures with a mask file of their own."""
        return [row for row in self.rows if row.mask not in (None, "alpha")]

    @property
    def people(self) -> list[Row]:
        """Pictures that a person can be cut out of."""
        return [row for row in self.rows if row.mask is not None]

    @property
    def scenes(self) -> list[Row]:
        """Pictures without people."""
        return [row for row in self.rows if shows_nobody(row)]

    @property
    def distractors(self) -> list[Row]:
        """Cut-outs of distractors."""
        return [row for row in self.rows if row.is_distractor]


class PeopleDataset:
    """An endless, reproducible supply of samples.

    Sample ``n`` is a dict of float32 tensors: ``image`` (3,size,size) as the network takes
    it, ``alpha`` (1,size,size) in 0…1, ``weight`` (1,size,size) in 0…1. ``height_bands`` and
    ``longest_side`` hold for composites, see :func:`~.composition.draw_heights` and
    :func:`~.composition.random_canvas`. ``beside`` is how often the scene is the part of a photo
    beside its people, see :func:`~.composition.beside_people`.
    """

    def __init__(
        self,
        material: Material,
        *,
        size: int = SIZE,
        seed: int = 0,
        mix: Mix | None = None,
        height_bands: Sequence[tuple[float, float]] = HEIGHT_BANDS,
        longest_side: tuple[int, int] = LONGEST_SIDE,
        beside: float = 0.0,
    ) -> None:
        self.material, self.size, self.seed = material, size, seed
        self.photos, self.people = material.photos, material.people
        self.scenes, self.distractors = material.scenes, material.distractors
        # Photos in which it is known where all people are.
        self.seen = [row for row in self.photos if row.was_searched]
        self.mix = mix or Mix()
        self.height_bands, self.longest_side = height_bands, longest_side
        self.beside = beside

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        sample = self.sample(number)
        shown = torch.from_numpy(np.array(sample.image)).permute(2, 0, 1)
        truth = torch.from_numpy(np.stack([np.asarray(sample.alpha), np.asarray(sample.weight)]))
        size = [self.size, self.size]
        image = functional.resize(shown, size, InterpolationMode.BICUBIC, antialias=True)
        planes = functional.resize(truth, size, InterpolationMode.BILINEAR, antialias=True)
        rgb = image.permute(1, 2, 0).contiguous().numpy()
        alpha, weight = planes[:1].float() / 255, planes[1:].float() / 255
        return {"image": torch.from_numpy(normalize(rgb)), "alpha": alpha, "weight": weight}

    def sample(self, number: int) -> Sample:
        """Sample ``number`` at its own size."""
        rng = np.random.default_rng([self.seed, number, 0])
        kind = self.mix.draw(rng)
        if kind in ("photo", "group") and self.photos:
            photo = self._photo(number)
            return photo if kind == "photo" else self._group(rng, photo)
        return self._scene(rng, empty=kind == "empty")

    def _photo(self, number: int) -> Sample:
        """The photo of sample ``number``: of as many samples as there are photos, each has another.

        Samples of other kinds leave theirs out: a photo comes up about once in that many.
        """
        round_, place = divmod(number, len(self.photos))
        order = np.random.default_rng([self.seed, round_, 2]).permutation(len(self.photos))
        row = self.photos[order[place]]
        image, mask = load_image(row), load_mask(row)
        weight = Image.new("L", mask.size, 255)
        trimap = bystanders(row, mask)
        pixels = self.material.coarse.get(row.source)
        if pixels:
            mask = rounded(mask, pixels)
        box = mask.getbbox()
        height = (box[3] - box[1]) / mask.height if box else 0.0
        # 0 where it is unknown whether somebody is there.
        weight.paste(0, (0, 0), ImageChops.subtract(trimap.point(IS_UNKNOWN), mask))
        everybody = ImageChops.lighter(mask, trimap.point(IS_PERSON))
        if pixels:
            weight = ImageChops.subtract(weight, _contour(mask, pixels))
        return Sample(image, everybody, weight, int(box is not None), height)

    def _group(self, rng: Rng, photo: Sample) -> Sample:
        heights = draw_heights(rng, int(rng.integers(1, 4)), self.height_bands)
        return composite(
            rng,
            photo.image,
            lambda height: self._person(rng, height),
            heights,
            base=(photo.alpha, photo.weight),
        )

    def _scene(self, rng: Rng, *, empty: bool) -> Sample:
        scene = self._random_scene(rng)
        canvas = random_canvas(rng, scene, self.longest_side)
        persons = 0 if empty else int(rng.choice([1, 2, 3, 4, 5], p=[0.35, 0.25, 0.2, 0.1, 0.1]))
        often = DISTRACTORS_IN_EMPTY if empty else DISTRACTORS
        count = int(rng.integers(1, 4)) if rng.random() < often else 0
        plain = rng.random() < PLAIN
        return composite(
            rng,
            backdrop(rng, canvas) if plain else scene_crop(rng, scene, canvas),
            lambda height: self._person(rng, height),
            draw_heights(rng, persons, self.height_bands) if persons else [],
            distractors=[self._distractor(rng) for _ in range(count)],
        )

    def _distractor(self, rng: Rng) -> CutOut:
        if self.distractors and rng.random() < REAL_DISTRACTORS:
            piece = cut_out_rgba(_rgba(self.distractors[rng.integers(len(self.distractors))]))
            if piece is not None:
                return piece
        if rng.random() < CLOTH:
            return (hung if rng.random() < HUNG else shape)(rng, cloth(rng))
        return shape(rng, self._random_scene(rng))

    def _random_scene(self, rng: Rng) -> Image.Image:
        if self.seen and rng.random() < self.beside:
            for row in (self.seen[number] for number in rng.integers(len(self.seen), size=8)):
                scene = beside_people(load_image(row), load_mask(row), row.boxes_xyxy)
                if scene is not None:
                    return scene
        if not self.scenes:  # a plain colour is a poor scene, but not a wrong one
            return Image.new(
                "RGB", (640, 480), tuple(int(value) for value in rng.integers(0, 256, 3))
            )
        return load_image(self.scenes[rng.integers(len(self.scenes))])

    def _person(self, rng: Rng, height: float) -> CutOut:
        """Draw a person for this ``height``; its photo does not cut off a small one."""
        piece: CutOut | None = None
        for _ in range(20):
            row = self.people[rng.integers(len(self.people))]
            drawn = self._cut_out(row)
            if drawn is None:
                continue
            piece = drawn
            half_length = "bottom" in drawn.cut
            both_sides = {"left", "right"} <= drawn.cut
            if half_length and height < 0.25:
                continue
            if both_sides and height < 0.7 and rng.random() < 0.7:
                continue
            if "top" in drawn.cut or drawn.image.height < 100:
                continue
            break
        if piece is None:
            raise DataError("none of 20 masks drawn at random holds a person; check the masks.")
        return piece

    def _cut_out(self, row: Row) -> CutOut | None:
        if row.mask == "alpha":
            return cut_out_rgba(_rgba(row))
        mask = load_mask(row)
        pixels = self.material.coarse.get(row.source)
        if pixels:
            mask = rounded(mask, pixels)
        return cut_out(load_image(row), mask, _softness(pixels))


def _rgba(row: Row) -> Image.Image:
    picture = open_image(row.image, row.where)
    alpha = alpha_of(picture, "alpha", row.name)
    image = upright(picture).convert("RGBA")
    image.putalpha(alpha)
    return image


def _softness(pixels: float | None) -> float:
    """How far the edge of a cut-out is softened, if its mask has steps of ``pixels`` or none."""
    return 0.7 * pixels if pixels else 1.3


def _contour(mask: Image.Image, pixels: float) -> Image.Image:
    """The band within ``pixels`` of the mask's contour, as 255."""
    side = 2 * pixels + 1
    grown = mask.filter(ImageFilter.BoxBlur(pixels))
    inside = round(255 * (1 - 0.5 / side**2))
    return grown.point([255 if 0 < value < inside else 0 for value in range(256)])
