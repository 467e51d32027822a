r"""python -m finetune hair: pictures of people with hair whose alpha and colours are known exactly.

    python -m finetune hair --manifest data/manifest.jsonl --out runs/hair
    python -m finetune hair --out runs/hair          # of the one person in scikit-image's pictures

The true alpha of photographed hair is not known. Here strands (:mod:`.strands`) are drawn on the
heads of people who were cut out, on a background that is plain, of the hair's own colour, or busy.
Only the part of a person well inside the mask is taken, so that it has no colours of the old
background. The manifest names for each picture its alpha ("mask"), the file of the foreground's
colours and the kind of background ("ground"). `compose`, in contrast, makes everyday pictures with
the masks' own edges.

Both :mod:`.mattes` and, for masks alone, `evaluate` measure on these pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
import typer
from PIL import Image, ImageDraw
from scipy import ndimage

from u2net_human_plugin.errors import DataError, importing, install_command

from ..data.manifest import Row, read_manifest, write_manifest
from ..data.pictures import load_alpha, load_image
from ..data.splits import in_split
from ..files import written_atomically
from .strands import Field, Head, Pixels, Strand, find_head, grow, render

#: Kinds of background, in turn.
GROUNDS = ("plain", "similar", "busy")
#: From this value on a mask's pixel is surely person.
_SURE = 250
#: How far the person's edge moves inwards, as a share of the picture's longer side.
_DRAWN_IN = 0.006
#: Background added on a side that the figure does not reach, as a share of its longer side.
_MARGIN = 0.2
#: A figure that covers more than this share of a side is cut off by it.
_CUT = 0.25
#: The factor of a scene's contrast in a background of the hair's colour.
_FAINT = 0.25
#: The person in skimage.data.astronaut(), well inside her outline, without the helmet: x, y.
_ASTRONAUT = (
    (227, 21), (257, 26), (283, 44), (294, 66), (297, 90), (290, 112), (276, 126), (268, 134),
    (258, 164), (260, 182), (278, 200), (298, 228), (302, 243), (320, 248), (344, 272), (357, 326),
    (358, 345), (326, 368), (302, 398), (284, 440), (279, 511), (36, 511), (29, 450), (24, 402),
    (31, 332), (42, 282), (62, 246), (102, 220), (117, 206), (122, 186), (128, 171), (146, 156),
    (172, 151), (184, 149), (182, 132), (172, 126), (164, 113), (157, 94), (156, 70), (166, 53),
    (190, 38), (206, 25),
)  # fmt: skip
#: Pictures of scikit-image with nobody in them.
_SCENES = ("brick", "coffee", "grass", "gravel", "chelsea")


class Person(NamedTuple):
    """A person who is cut out, at the size at which they are shown."""

    #: (H,W) float32: above one half inside.
    body: Field
    #: (H,W,3) uint8.
    rgb: Pixels
    head: Head


def hair(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    manifest: Annotated[
        Path | None,
        typer.Option(help="Where people and scenes come from; without, from skimage.data."),
    ] = None,
    split: Annotated[str, typer.Option(help="val, train, test or all.")] = "all",
    source: Annotated[
        list[str] | None, typer.Option(help="People from this source alone; repeatable.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Pictures.")] = 36,
    side: Annotated[int, typer.Option(min=128, help="Longer side in pixels, at most.")] = 640,
    seed: Annotated[int, typer.Option(help="Decides every random choice.")] = 0,
) -> None:
    """Make pictures of hair whose alpha and colours are known exactly."""
    rows = [] if manifest is None else read_manifest(manifest)
    rows = [row for row in rows if in_split(row, split)]
    people = [row for row in rows if row.mask and (not source or row.source in source)]
    if manifest is not None and not people:
        raise DataError(
            f"{manifest}: holds nobody with a mask in split {split!r}"
            + (f" and source {', '.join(source)}" if source else "")
            + "; name another --split or --source, or leave out --manifest."
        )
    scenes = [row for row in rows if row.is_scene and not row.has_unlabelled_person]
    folder = manifest if manifest is None or manifest.is_dir() else manifest.parent
    written = list(_written(people, scenes, folder, out, count, side, seed))
    write_manifest(out / "manifest.jsonl", written)
    typer.echo(f"{out / 'manifest.jsonl'}: {len(written)} pictures")


def _written(
    people: Sequence[Row],
    scenes: Sequence[Row],
    folder: Path | None,
    out: Path,
    count: int,
    side: int,
    seed: int,
) -> Iterator[Row]:
    for name in ("images", "masks", "foregrounds"):
        (out / name).mkdir(parents=True, exist_ok=True)
    licence = "; ".join(sorted({row.licence for row in (*people, *scenes)}))
    order = np.random.default_rng(seed).permutation(len(people))
    chosen = (people[index] for index in order)
    usable = ((row, one) for row in chosen if (one := _of_row(row, side)))
    kept: list[tuple[Row | None, Person]] = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        if people:
            kept.extend([found] if (found := next(usable, None)) else [])
            if not kept:
                raise DataError(
                    "nobody in these masks has a head that is large enough and not cut by the "
                    "picture's edge; name another --source, or a larger --side."
                )
            row, person = kept[number % len(kept)]
        else:
            row, person = None, _astronaut(side, rng)
        kind = GROUNDS[number % len(GROUNDS)]
        scene = _scene(scenes, rng)
        image, alpha, foreground, strands = picture(person, kind, scene, rng)
        files = {
            name: out / name / f"hair-{number:04}.png"
            for name in ("images", "masks", "foregrounds")
        }
        for file, array in zip(files.values(), (image, alpha, foreground), strict=True):
            with written_atomically(file) as temporary:
                Image.fromarray(array).save(temporary, "PNG")
        extra = {
            "foreground": files["foregrounds"].relative_to(out).as_posix(),
            "ground": kind,
            "strands": len(strands),
            "person": _shown(row, folder),
            "persons": 1,
            "seed": seed,
        }
        image_file, mask_file = files["images"].absolute(), files["masks"].absolute()
        yield Row(image_file, mask_file, "hair", "test", licence or _SKIMAGE, extra)


_SKIMAGE = "public domain and CC0: scikit-image's data"


def picture(
    person: Person, kind: str, scene: Image.Image, rng: np.random.Generator
) -> tuple[Pixels, Pixels, Pixels, list[Strand]]:
    """One picture, its alpha, its foreground's colours, and the strands it holds.

    The picture is composed of the other two as they are stored, in 8 bits, and of the background;
    it is rounded to whole values.

    Returns:
        (H,W,3), (H,W) and (H,W,3) uint8; colours are black where alpha is 0.
    """
    if rng.random() < 0.5:
        width = person.body.shape[1]
        head = person.head._replace(x=width - person.head.x)
        person = Person(person.body[:, ::-1].copy(), person.rgb[:, ::-1].copy(), head)
    strands = grow(person.body, person.rgb, person.head, rng)
    layer = render(person.body, person.rgb, strands)
    alpha = (layer.alpha * 255).round().astype(np.uint8)
    pure = layer.premultiplied / np.maximum(layer.alpha, 1e-9)[..., None]
    foreground = np.where(alpha[..., None] > 0, pure.round(), 0).astype(np.uint8)
    colours = np.array([strand.colour for strand in strands], np.float64).reshape(-1, 3)
    hair_colour = np.median(colours, axis=0) if strands else np.full(3, 128.0)
    ground = _ground(kind, scene, hair_colour, alpha.shape, rng)
    share = alpha[..., None] / 255
    image = (share * foreground + (1 - share) * ground).round().astype(np.uint8)
    return image, alpha, foreground, strands


def _ground(
    kind: str,
    scene: Image.Image,
    hair_colour: npt.NDArray[np.float64],
    shape: tuple[int, ...],
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """(H,W,3) in 0…255, whole values."""
    height, width = shape
    if kind == "plain":
        return np.broadcast_to(rng.integers(0, 256, 3).astype(np.float64), (height, width, 3))
    # The largest part of the scene with the picture's proportions.
    scale = max(width / scene.width, height / scene.height)
    # Divided and multiplied again, it may be a hair's breadth more than there is.
    size = min(width / scale, scene.width), min(height / scale, scene.height)
    left, top = rng.uniform(0, scene.width - size[0]), rng.uniform(0, scene.height - size[1])
    box = left, top, min(left + size[0], scene.width), min(top + size[1], scene.height)
    shown = scene.resize((width, height), Image.Resampling.LANCZOS, box=box)
    ground = np.asarray(shown, np.float64)
    if kind == "similar":
        ground = hair_colour + _FAINT * (ground - ground.mean(axis=(0, 1)))
    return ground.clip(0, 255).round()


def _of_row(row: Row, side: int) -> Person | None:
    """The person of a row's mask; None if no head is found that can have hair."""
    return _person(load_image(row), np.asarray(load_alpha(row)) >= _SURE, side)


def _astronaut(side: int, rng: np.random.Generator) -> Person:
    """Eileen Collins at a random size: NASA's portrait, public domain."""
    image = _from_skimage("astronaut")
    drawn = Image.new("1", image.size)
    ImageDraw.Draw(drawn).polygon(_ASTRONAUT, fill=1)
    person = _person(image, np.asarray(drawn), round(side * rng.uniform(0.6, 1)))
    if person is None:
        raise DataError(f"--side {side}: too small for a head with hair; give a larger one.")
    return person


def _person(image: Image.Image, mask: npt.NDArray[np.bool_], side: int) -> Person | None:
    labels, found = ndimage.label(mask)
    if not found:
        return None
    largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    figure = ndimage.binary_fill_holes(largest)
    # Room for the hair, but not where the frame cuts the figure.
    margin = round(_MARGIN * max(figure.shape))
    edges = ((figure[0], figure[-1]), (figure[:, 0], figure[:, -1]))
    room = [[0 if edge.mean() > _CUT else margin for edge in pair] for pair in edges]
    colours = np.pad(np.asarray(image), [*room, (0, 0)], mode="edge")
    figure = np.pad(figure, room)
    scale = min(1.0, side / max(figure.shape))
    size = max(1, round(figure.shape[1] * scale)), max(1, round(figure.shape[0] * scale))
    rgb = np.asarray(Image.fromarray(colours).resize(size, Image.Resampling.LANCZOS))
    smaller = Image.fromarray(figure.astype(np.float32)).resize(size, Image.Resampling.BOX)
    reach = max(1.0, _DRAWN_IN * max(size))
    inner = ndimage.distance_transform_edt(np.asarray(smaller) > 0.99) > reach + 1
    # Smooth, and even in a corner within what was there before it was drawn in.
    body = ndimage.gaussian_filter(inner.astype(np.float32), reach / 2, mode="nearest")
    head = find_head(body)
    return None if head is None else Person(body, rgb, head)


def _scene(scenes: Sequence[Row], rng: np.random.Generator) -> Image.Image:
    if scenes:
        return load_image(scenes[int(rng.integers(len(scenes)))])
    return _from_skimage(_SCENES[int(rng.integers(len(_SCENES)))])


def _from_skimage(name: str) -> Image.Image:
    with importing("skimage", f"scikit-image comes with rembg: {install_command('rembg')}."):
        from skimage import data
    return Image.fromarray(getattr(data, name)()).convert("RGB")


def _shown(row: Row | None, folder: Path | None) -> str:
    if row is None or folder is None:
        return "skimage.data.astronaut"
    inside = row.image.is_relative_to(folder.absolute())
    return (row.image.relative_to(folder.absolute()) if inside else row.image).as_posix()
