r"""python -m finetune compose: render composites to a folder, for evaluation.

    python -m finetune compose --manifest data/manifest.jsonl --out runs/composites

From the people and scenes that `train` holds back (or of another split) it makes pictures unlike
the training photos: one to five people, mostly 5 % to 130 % of the picture's height, overlapping
and cut by the frame; and empty scenes. The manifest states for each the number of people and the
height of the largest. Small figures in large pictures:

    python -m finetune compose --manifest data/manifest.jsonl --out runs/small \
        --heights 0.05-0.15 --side 1600 --empty 0
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..data.manifest import Row, read_manifest, write_manifest
from ..data.splits import in_split
from ..files import write_png
from .composition import HEIGHT_BANDS, LONGEST_SIDE
from .dataset import Material, Mix, PeopleDataset


def compose(
    manifest: Annotated[list[Path], typer.Option(help="Where people and scenes come from.")],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    count: Annotated[int, typer.Option(help="Pictures with people.")] = 200,
    empty: Annotated[int, typer.Option(help="Scenes without people.")] = 100,
    split: Annotated[
        str, typer.Option(help="val (what train holds back), train, test or all.")
    ] = "val",
    source: Annotated[
        list[str] | None, typer.Option(help="People from this source alone; repeatable.")
    ] = None,
    heights: Annotated[
        str, typer.Option(help="Heights of the people, shares of the picture's: 0.05-0.15.")
    ] = "",
    side: Annotated[
        int | None, typer.Option(min=64, help="Longer side in pixels.  [default: 400 to 640]")
    ] = None,
    beside: Annotated[
        float,
        typer.Option(min=0, max=1, help="How often a scene is what a photo shows beside people."),
    ] = 0.0,
    coarse: Annotated[list[str], typer.Option(help="SOURCE=PIXELS, as for train.")] = [],  # noqa: B006 - typer's way to say "none"
    seed: Annotated[int, typer.Option(help="Decides every random choice.")] = 0,
) -> None:
    """Render composites of people and scenes, with exact masks, to a folder."""
    from .train import parse_coarse

    rows = [row for path in manifest for row in read_manifest(path)]
    people = [row for row in rows if row.mask is not None and in_split(row, split)]
    people = [row for row in people if not source or row.source in source]
    distractors = [row for row in rows if row.is_distractor and in_split(row, split)]
    scenes = [row for row in rows if row.is_scene]
    # If the split has no scenes, held-back ones serve, which were not trained on either.
    scenes = [row for row in scenes if in_split(row, split)] or [
        row for row in scenes if in_split(row, "val")
    ]
    drawn = partial(
        PeopleDataset,
        Material([*people, *scenes, *distractors], parse_coarse(coarse)),
        seed=seed,
        height_bands=parse_heights(heights) if heights else HEIGHT_BANDS,
        longest_side=(side, side) if side else LONGEST_SIDE,
        beside=beside,
    )
    written = render(drawn(mix=Mix(0, 0, 1, 0)), out, "composite", count)
    written += render(drawn(mix=Mix(0, 0, 0, 1)), out, "empty", empty)
    write_manifest(out / "manifest.jsonl", written)
    typer.echo(f"{out / 'manifest.jsonl'}: {len(written)} pictures")


def parse_heights(text: str) -> list[tuple[float, float]]:
    """[(0.05, 0.15)] from "0.05-0.15"."""
    low, _, high = text.partition("-")
    try:
        band = float(low), float(high)
    except ValueError:
        band = 0.0, 0.0
    if not 0 < band[0] <= band[1]:
        raise typer.BadParameter(f"--heights {text!r}: expected LOW-HIGH, e.g. 0.05-0.15.")
    return [band]


def render(dataset: PeopleDataset, out: Path, name: str, count: int) -> list[Row]:
    """Write its first ``count`` pictures as ``name``-0000.png … and return their rows."""
    licence = "; ".join(sorted({row.licence for row in dataset.material.rows}))
    rows = []
    for folder in ("images", "masks"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        sample = dataset.sample(number)
        image = out / "images" / f"{name}-{number:04}.png"
        mask = out / "masks" / f"{name}-{number:04}.png" if sample.persons else None
        write_png(image, sample.image)
        if mask is not None:
            write_png(mask, sample.alpha)
        extra = {"persons": sample.persons, "person_height": round(sample.person_height, 4)}
        rows.append(Row(image.absolute(), mask and mask.absolute(), name, "val", licence, extra))
    return rows
