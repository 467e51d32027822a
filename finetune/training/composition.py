"""Compositing: cut-out people on scenes, with exact masks at any size and number.

Real photos with masks mostly show one person who fills the picture. Composites add
what they lack: small figures, groups that overlap, people cut by the frame, and empty
scenes with distractors in them: salient things that are nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from u2net_human_plugin.boxes import Boxes

#: A pasted person is never enlarged by more: enlarged edges are blurred.
MAX_ENLARGEMENT = 1.15
#: A distractor may be enlarged more: its edge is not in the mask.
MAX_ENLARGEMENT_OF_DISTRACTORS = 2.0
#: Width by height of composed pictures: the usual ones of cameras.
ASPECT_RATIOS = (3 / 4, 4 / 3, 2 / 3, 3 / 2, 9 / 16, 16 / 9, 1.0)

#: The longer side of a composed picture, in pixels: smallest, largest.
LONGEST_SIDE = (400, 640)
#: Heights of figures, as shares of the picture's: small, half-length, filling the frame.
HEIGHT_BANDS = ((0.05, 0.25), (0.25, 0.7), (0.7, 1.3))
#: Least width in pixels of a scene made of what is beside somebody.
MIN_BESIDE = 180
#: Pixels over which the two halves of such a scene blend into each other,
_FADE = 12
#: and by which a detector's box may exceed the mask of the very same person.
_SLACK = 12

Rng = np.random.Generator


@dataclass(frozen=True)
class CutOut:
    """A person (or distractor) without background, cropped to its bounding box.

    ``image`` is RGB, ``alpha`` "L" of the same size. ``cut`` names the sides on which
    the photo's own frame cut the person off; a paste has to hide them again.
    """

    image: Image.Image
    alpha: Image.Image
    cut: frozenset[str]


class Sample(NamedTuple):
    """A picture with its truth; all images have one size.

    ``alpha`` is "L", 255 = person. ``weight`` is "L": 0 where nothing is known (an
    unlabelled bystander, a coarse contour), 255 where the mask can be trusted.
    """

    image: Image.Image
    alpha: Image.Image
    weight: Image.Image
    persons: int
    person_height: float


def cut_out(image: Image.Image, mask: Image.Image, softness: float) -> CutOut | None:
    """Cut the masked person out of ``image``; None if the mask is empty.

    ``softness`` is the standard deviation in pixels of the blur that rounds the mask's
    steps. The edge then moves inwards by a quarter of that, half a pixel at most: enough to
    remove most of the old background, but not so much that masks become too tight.
    """
    box = mask.getbbox()
    if box is None:
        return None
    left, top, right, bottom = box
    sides = {
        "left": left <= 1,
        "top": top <= 1,
        "right": right >= mask.width - 1,
        "bottom": bottom >= mask.height - 1,
    }
    # On the blurred step 0.5 is the old edge, and 0.6 lies 0.25 standard deviations inside.
    ramp = [round(255 * min(max((value / 255 - 0.6) / 0.4 + 0.5, 0), 1)) for value in range(256)]
    alpha = mask.filter(ImageFilter.GaussianBlur(softness)).point(ramp)
    cut = frozenset(side for side, is_cut in sides.items() if is_cut)
    return CutOut(image.crop(box), alpha.crop(box), cut)


def cut_out_rgba(image: Image.Image) -> CutOut | None:
    """The cut-out that an RGBA picture already is; None if it is fully transparent."""
    alpha = image.getchannel("A")
    box = alpha.getbbox()
    if box is None:
        return None
    return CutOut(image.convert("RGB").crop(box), alpha.crop(box), frozenset())


def scene_crop(rng: Rng, scene: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A random part of ``scene``, mirrored half of the time, scaled to fill ``size``."""
    width, height = size
    scale = max(width / scene.width, height / scene.height)
    zoom = scale * rng.uniform(1.0, 1.4)
    part_width, part_height = width / zoom, height / zoom
    left = rng.uniform(0, scene.width - part_width)
    top = rng.uniform(0, scene.height - part_height)
    box = (left, top, left + part_width, top + part_height)
    part = scene.resize(size, Image.Resampling.BICUBIC, box=box)
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else part


def beside_people(photo: Image.Image, mask: Image.Image, boxes: Boxes) -> Image.Image | None:
    """The parts of a photo left and right of its people, joined; None if they are too narrow.

    A street photo becomes a narrow scene with all the clutter of a real place. Where the
    halves meet they blend over a few pixels. A photo is not used if ``boxes``, (N,4) xyxy, show
    people beside the mask.
    """
    box = mask.getbbox()
    if box is None:
        return None
    left, right = box[0], box[2]
    others = boxes[(boxes[:, 0] < left - _SLACK) | (boxes[:, 2] > right + _SLACK)]
    width = left + photo.width - right
    if len(others) or width < MIN_BESIDE:
        return None
    fade = min(_FADE, left)
    joined = Image.new("RGB", (width - fade, photo.height))
    joined.paste(photo.crop((right, 0, photo.width, photo.height)), (left - fade, 0))
    ramp = np.interp(np.arange(left), [left - fade - 0.5, left], [255, 0]).astype(np.uint8)
    over = Image.fromarray(ramp[None].repeat(photo.height, axis=0))
    joined.paste(photo.crop((0, 0, left, photo.height)), (0, 0), over)
    return joined


def backdrop(rng: Rng, size: tuple[int, int]) -> Image.Image:
    """A studio background: white, black or any colour, plain or shaded from top to bottom."""
    kinds = [np.full(3, 255.0), np.zeros(3), rng.uniform(0, 256, 3), rng.uniform(0, 256, 3)]
    top = kinds[rng.integers(len(kinds))]
    bottom = np.clip(top + rng.normal(0, 40, 3), 0, 255) if rng.random() < 0.5 else top
    ramp = np.linspace(top, bottom, size[1])[:, None].repeat(size[0], axis=1)
    return Image.fromarray(ramp.clip(0, 255).astype(np.uint8))


def random_canvas(
    rng: Rng, scene: Image.Image, longest_side: tuple[int, int] = LONGEST_SIDE
) -> tuple[int, int]:
    """A picture size (width, height) in pixels; the longer side is in ``longest_side``.

    A narrow scene gets a narrow picture, so that enough of it is left.
    """
    ratios = [ratio for ratio in ASPECT_RATIOS if ratio < 1 or scene.width > 0.7 * scene.height]
    ratio = ratios[rng.integers(len(ratios))]
    longest = int(rng.integers(longest_side[0], longest_side[1] + 1))
    return (longest, round(longest / ratio)) if ratio >= 1 else (round(longest * ratio), longest)


def draw_heights(
    rng: Rng, persons: int, bands: Sequence[tuple[float, float]] = HEIGHT_BANDS
) -> list[float]:
    """Heights of the figures as shares of the picture's, smallest (farthest) first.

    Small, half-length and frame-filling figures are equally frequent. Three groups in
    four hold figures of about one size; in the others some stand far behind.
    """
    low, high = bands[int(rng.integers(len(bands)))]
    common = rng.uniform(low, high)
    spread = (0.8, 1.2) if rng.random() < 0.75 else (0.3, 1.0)
    return sorted(common * rng.uniform(*spread) if persons > 1 else common for _ in range(persons))


def composite(
    rng: Rng,
    background: Image.Image,
    draw_person: Callable[[float], CutOut],
    heights: Sequence[float],
    *,
    base: tuple[Image.Image, Image.Image] | None = None,
    distractors: Sequence[CutOut] = (),
) -> Sample:
    """Paste people onto ``background``, far to near, and return the picture with its truth.

    Args:
        rng: the source of all random choices.
        background: the canvas, RGB.
        draw_person: height, as a share of the picture's → a person to paste at that size.
        heights: one height per person, as a share of the picture's, smallest first.
        base: alpha and weight of people who are already in ``background``.
        distractors: objects and animals, to paste in between at any size.
    """
    canvas = background.copy()
    if base is None:
        alpha, weight = Image.new("L", canvas.size, 0), Image.new("L", canvas.size, 255)
    else:
        alpha, weight = base[0].copy(), base[1].copy()
    queue: list[float | CutOut] = [*heights]
    for distractor in distractors:
        # Half of them stand behind everybody, as most of them do.
        place = 0 if rng.random() < 0.5 else int(rng.integers(len(queue) + 1))
        queue.insert(place, distractor)
    largest = 0.8 if heights else 1.3

    previous: float | None = None
    sizes: list[float] = []
    for entry in queue:
        if isinstance(entry, CutOut):
            marked = 0
            # Wide things, such as cars, are measured by their width.
            extent = rng.uniform(0.1, largest) * canvas.height / max(entry.image.size)
            height = extent * entry.image.height
            piece = _scaled(rng, entry, height, MAX_ENLARGEMENT_OF_DISTRACTORS)
        else:
            marked = 255
            piece = _scaled(rng, draw_person(entry), entry * canvas.height)
            sizes.append(piece.image.height / canvas.height)
        position, previous = _place(rng, piece, canvas.size, previous)
        canvas.paste(piece.image, position, piece.alpha)
        alpha.paste(marked, position, piece.alpha)
        weight.paste(255, position, piece.alpha)
    return Sample(canvas, alpha, weight, len(sizes), max(sizes, default=0.0))


def _scaled(rng: Rng, piece: CutOut, height: float, enlargement: float = MAX_ENLARGEMENT) -> CutOut:
    """Resize to ``height`` pixels (less if that enlarges), mirror and re-light at random."""
    scale = min(height / piece.image.height, enlargement)
    size = (max(2, round(piece.image.width * scale)), max(4, round(piece.image.height * scale)))
    image = piece.image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    alpha = piece.alpha.resize(
        size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    )
    cut = piece.cut
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        alpha = alpha.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mirrored = {"left": "right", "right": "left"}
        cut = frozenset(mirrored.get(side, side) for side in cut)
    gain, lift = rng.uniform(0.5, 1.3), rng.uniform(-15, 15)
    image = image.point([max(0, min(255, round(v * gain + lift))) for v in range(256)] * 3)
    if not cut and rng.random() < 0.3:
        # One in five is lying, or nearly so.
        lies = rng.random() < 0.2
        angle = rng.choice([-1, 1]) * rng.uniform(60, 110) if lies else rng.uniform(-25, 25)
        image = image.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        alpha = alpha.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    return CutOut(image, alpha, cut)


def _place(
    rng: Rng, piece: CutOut, canvas: tuple[int, int], previous: float | None
) -> tuple[tuple[int, int], float]:
    """Choose the top left corner; also return the piece's centre for its neighbour.

    Sides that were cut by the original frame go to (or beyond) the canvas edge. The
    rest stands on the ground, partly out of the picture at times, and every other
    person stands close to the one before, so that people overlap.
    """
    width, height = piece.image.size
    if previous is not None and rng.random() < 0.5:
        centre = previous + rng.choice([-1, 1]) * width * rng.uniform(0.4, 1.1)
    else:
        # Half of a small figure out of the picture would leave next to nothing of it.
        beyond = 0.1 if width > 0.2 * canvas[0] else 0.0
        centre = rng.uniform(-beyond, 1 + beyond) * canvas[0]
    centre = float(np.clip(centre, 0, canvas[0]))
    left = centre - width / 2
    if "left" in piece.cut and "right" not in piece.cut:
        left = -rng.uniform(0, 0.05) * width
    elif "right" in piece.cut and "left" not in piece.cut:
        left = canvas[0] - width * rng.uniform(0.95, 1)

    if "bottom" in piece.cut:
        top = canvas[1] - height * rng.uniform(0.85, 1.0)
    else:
        ground = rng.uniform(0.5, 1.1) if height < 0.4 * canvas[1] else rng.uniform(0.9, 1.25)
        top = ground * canvas[1] - height
        if height > 0.6 * canvas[1]:
            top = max(top, -0.15 * height) if rng.random() < 0.8 else top
    # At least a third of the height stays in the picture.
    top = float(np.clip(top, -0.6 * height, canvas[1] - 0.35 * height))
    return (round(left), round(top)), left + width / 2
