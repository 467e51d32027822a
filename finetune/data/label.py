r"""python -m finetune label: soft masks of any photos, from the average of several teachers.

    python -m finetune label --manifest data --out labelled \
        --with "bundled?people=on" --with u2netp.onnx \
        --with "isnet.onnx?mean=128&scale=256&weight=2"

For each training photo of a manifest (with a true mask or without one) it writes an 8-bit matte,
``teachers/NAME.png``, and the teachers' agreement, ``teachers/NAME.agreement.png``. The rows of a
new manifest name both and the teachers. `train` learns the edge from the matte where the mask's
cannot be trusted, and all of it where there is no mask. The photos stay where they are. Given
again, the command labels only what is new.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from PIL import Image
from rich.console import Console
from rich.progress import track

from u2net_human_plugin.errors import DataError

from ..files import write_png
from .manifest import Row, read_manifest, write_manifest
from .pictures import load_image, load_mask
from .teachers import SoftLabel, Teacher, load_teacher, soft_label


def label(
    manifest: Annotated[Path, typer.Option(help="The set, as prepare wrote it.")],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    specs: Annotated[
        list[str], typer.Option("--with", help="A teacher; once for each, with settings after ?.")
    ],
    size: Annotated[int, typer.Option(min=32, help="Side of the square mattes, in pixels.")] = 384,
) -> None:
    """Write soft masks, averaged from several networks, for train to learn from."""
    rows = read_manifest(manifest)
    teachers = [load_teacher(spec) for spec in specs]
    folder = out / "teachers"
    folder.mkdir(parents=True, exist_ok=True)
    labelled, failed, written = [], [], 0
    for row in track(rows, "labelling", console=Console(stderr=True)):
        if row.split == "test" or row.is_distractor or row.mask == "alpha":
            labelled.append(row)
            continue
        name = _name(row, teachers, size)
        paths = folder / f"{name}.png", folder / f"{name}.agreement.png"
        try:
            if not all(path.is_file() for path in paths):
                _write(_labelled(row, teachers, size), paths)
                written += 1
        except DataError as error:
            failed.append(str(error))
            labelled.append(row)
            continue
        by = [f"{teacher.spec} {teacher.sha256[:12]}".rstrip() for teacher in teachers]
        matte, agreement = (path.absolute() for path in paths)
        extra = {**row.extra, "taught_by": by}
        labelled.append(replace(row, teacher=matte, teacher_weight=agreement, extra=extra))
    write_manifest(out / "manifest.jsonl", labelled)
    count = sum(row.teacher is not None for row in labelled)
    typer.echo(
        f"{out / 'manifest.jsonl'}: {len(rows)} pictures, {count} of them labelled ({written} anew)"
    )
    for reason in failed:
        typer.echo(f"error: {reason}", err=True)
    if failed:
        typer.echo(f"{len(failed)} pictures stay without a label.", err=True)
        raise typer.Exit(1)


def _labelled(row: Row, teachers: list[Teacher], size: int) -> SoftLabel:
    picture = load_image(row)
    return soft_label(picture, teachers, size, somebody=_somebody(row, picture.size))


def _somebody(row: Row, size_wh: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    """Where the mask or a detector's boxes have somebody; None if there is neither."""
    width, height = size_wh
    if row.mask is None and not row.was_searched:
        return None
    where = np.zeros((height, width), bool)
    if row.mask is not None:
        where |= np.asarray(load_mask(row)) > 0
    for left, top, right, bottom in row.boxes_xyxy.round().astype(int).clip(min=0):
        where[top:bottom, left:right] = True
    return where


def _name(row: Row, teachers: list[Teacher], size: int) -> str:
    """A file name that is different for every picture, teacher and size."""
    about = [
        str(row.image),
        row.image.stat().st_mtime_ns,
        [(teacher.spec, teacher.sha256) for teacher in teachers],
        size,
    ]
    digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    return f"{row.image.stem[:60]}-{digest[:12]}"


def _write(made: SoftLabel, paths: tuple[Path, Path]) -> None:
    for values, path in zip(made, paths, strict=True):
        write_png(path, Image.fromarray(values))
