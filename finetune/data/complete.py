r"""python -m finetune complete: draw the people who are missing in a set's masks.

    python -m finetune complete --manifest data/manifest.jsonl --out data/completed

Masks of street photos often show one person and leave out passers-by. `prepare` keeps the boxes in
which its detector saw somebody, and `train` ignores them where the mask is bare. This command has
a model look at each such box closely and draw what it is sure of, as a trimap. Training then learns
from bystanders what no composite has: small figures in their own place, light and blur. The photos
stay where they are; the new manifest refers to them, and `train` takes it instead of the old one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import track

from u2net_human_plugin.errors import DataError
from u2net_human_plugin.options import Options

from ..files import write_png
from ..predictors import Segment, load_predictor
from .manifest import Row, read_manifest, write_manifest
from .pictures import load_image, load_mask, open_image
from .unlabelled import Box, left_out, trimap


def complete(
    manifest: Annotated[Path, typer.Option(help="The set, as prepare wrote it with a detector.")],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    model: Annotated[
        str,
        typer.Option("--with", help="The model that draws: as evaluate's --after, e.g. MY.pth."),
    ] = "bundled?crop=off",
) -> None:
    """Draw the people who are missing in a set's masks, for train to learn from."""
    # Masks are made once: the mirrored look is worth its time.
    segment = load_predictor(model, Options(flip="on")).segment
    rows = read_manifest(manifest)
    (out / "bystanders").mkdir(parents=True, exist_ok=True)
    completed, failed = [], []
    for number, row in enumerate(track(rows, "drawing", console=Console(stderr=True))):
        try:
            drawn = _drawn(row, segment)
        except DataError as error:
            failed.append(str(error))
            drawn = None
        # Numbered, because pictures of two folders may have the same name.
        path = out / "bystanders" / f"{number:05}-{row.image.stem}.png"
        completed.append(_with_trimap(row, drawn, path, model) if drawn else row)
    write_manifest(out / "manifest.jsonl", completed)
    found = sum(row.bystanders is not None for row in completed)
    typer.echo(f"{out / 'manifest.jsonl'}: {len(rows)} pictures, {found} of them with bystanders")
    for reason in failed:
        typer.echo(f"error: {reason}", err=True)
    if failed:
        typer.echo(f"{len(failed)} pictures stay as they were.", err=True)
        raise typer.Exit(1)


def _drawn(row: Row, segment: Segment) -> Image.Image | None:
    """The trimap of a photo for training or validation; None if nobody is missing in its mask."""
    if not isinstance(row.mask, Path) or row.split == "test":
        return None
    mask = load_mask(row)
    boxes = left_out(row, mask)
    if not boxes:
        return None
    drawn = trimap(load_image(row), mask, boxes, segment)
    return Image.fromarray(np.maximum(drawn, open_elsewhere(row, boxes)))


def open_elsewhere(row: Row, boxes: list[Box]) -> npt.NDArray[np.uint8]:
    """What the mask itself leaves open: the row's trimap so far without ``boxes``, or zero."""
    if row.bystanders is None:
        return np.zeros((), np.uint8)
    before = open_image(row.bystanders, row.where).convert("L")
    for box in boxes:
        ImageDraw.Draw(before).rectangle([round(side) for side in box], fill=0)
    return np.asarray(before)


def _with_trimap(row: Row, drawn: Image.Image, path: Path, model: str) -> Row:
    write_png(path, drawn)
    extra = {**row.extra, "bystanders_by": model}
    return replace(row, bystanders=path.absolute(), extra=extra)
