"""python -m finetune prepare: from raw material to a training set.

    python -m finetune prepare --images photos --masks masks --out data
    python -m finetune prepare --manifest raw/manifest.jsonl --whole --out data
    python -m finetune prepare --photos new --label-with birefnet-portrait --out data

Everything named in one call becomes ``--out``: ``images/``, ``masks/`` (white = person; 8-bit
if soft, else 1-bit), ``cutouts/`` (RGBA), ``bystanders/`` (what of a mask does not count),
``manifest.jsonl`` and a report. The same call again does only what is new. Inputs with different
sources or terms are prepared on their own first and joined with several ``--manifest --whole``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Literal

import typer
from PIL import Image

from u2net_human_plugin.errors import DataError, MissingExtraError, OptionError, WeightsError
from u2net_human_plugin.yolo import find_people, weights_file

from ..files import file_sha256
from . import sources
from .collection import MANIFEST, collect
from .cutouts import load_foreground_estimation
from .masks import BRIGHT, Reading, parse_classes
from .near_duplicates import NEAR
from .photo import Origin, Photo
from .pictures import check_classes
from .plan import Plan
from .pseudo_labels import load_labeler
from .report import doubtful_sources, write_report
from .writer import WriteOptions

#: Longer side, in pixels, of the picture that YOLO gets: its training size. In larger ones it finds
#: smaller figures, but loses the feet of people who fill the picture.
_YOLO_SIZE = 640

_Folders = list[Path] | None


def prepare(
    out: Annotated[Path, typer.Option(help="Folder for the training set; made if missing.")],
    images: Annotated[
        _Folders, typer.Option(help="Folder of pictures with masks; repeatable, as --masks.")
    ] = None,
    masks: Annotated[
        _Folders,
        typer.Option(help="Their masks: same names, name_mask, name_alpha …; in the same order."),
    ] = None,
    mask_name: Annotated[
        str, typer.Option(help="The masks' names, if they are others, e.g. '{stem}_foo'.")
    ] = "",
    person_value: Annotated[
        list[str] | None,
        typer.Option(
            help="Masks of classes: the value of people, e.g. 15 (PASCAL VOC) or 1-19; 255 then "
            "does not count; repeatable."
        ),
    ] = None,
    invert: Annotated[bool, typer.Option("--invert", help="In --masks, dark is person.")] = False,
    cutouts: Annotated[_Folders, typer.Option(help="Folder of RGBA cut-outs; repeatable.")] = None,
    scenes: Annotated[
        _Folders, typer.Option(help="Folder of photos with nobody in them; repeatable.")
    ] = None,
    distractors: Annotated[
        _Folders,
        typer.Option(help="Folder of RGBA cut-outs of objects and animals, to paste; repeatable."),
    ] = None,
    things: Annotated[_Folders, typer.Option(hidden=True, help="--distractors.")] = None,
    coco: Annotated[_Folders, typer.Option(help="COCO-style JSON; repeatable.")] = None,
    coco_images: Annotated[
        _Folders, typer.Option(help="Its pictures; in the same order. [default: its folder]")
    ] = None,
    coco_category: Annotated[str, typer.Option(help="What the JSON calls people.")] = "person",
    manifest: Annotated[
        _Folders, typer.Option(help="manifest.jsonl; keeps source, split, licence; repeatable.")
    ] = None,
    photos: Annotated[
        _Folders, typer.Option(help="Folder of photos without masks; repeatable.")
    ] = None,
    label_with: Annotated[
        str | None,
        typer.Option(help="What masks --photos: a rembg session, or a YOLO …-seg.pt."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Source of all but manifests. [default: folder's name]")
    ] = None,
    terms: Annotated[str, typer.Option(help="Licence of all that states none.")] = "",
    licence: Annotated[
        list[str] | None,
        typer.Option(help="Only these licences, e.g. 'CC0*' (* ? [ ], any case); repeatable."),
    ] = None,
    find: Annotated[
        Literal["yolo", "masks"],
        typer.Option(help="Who finds people: YOLOv8 (extra yolo), or the masks' own regions."),
    ] = "yolo",
    crop: Annotated[
        bool, typer.Option("--crop/--whole", help="Crop around people, or keep photos whole.")
    ] = True,
    margin: Annotated[
        float, typer.Option(min=0, help="Room around a person, share of the box's longer side.")
    ] = WriteOptions.margin,
    min_side: Annotated[
        int, typer.Option(min=1, help="No crop with a shorter side, in pixels.")
    ] = WriteOptions.min_side,
    cutout_colours: Annotated[
        Literal["estimated", "straight", "none"],
        typer.Option(help="Cut-outs: freed of background at the edges, as they are, or none."),
    ] = WriteOptions.cutouts,
    without_person: Annotated[
        Literal["negative", "reject"],
        typer.Option(help="Photos in which nobody is found: empty scenes, or set aside."),
    ] = Plan.without_person,
    unlabelled_person: Annotated[
        Literal["flag", "aside"],
        typer.Option(help="Rows with a clear person outside the mask."),
    ] = Plan.unlabelled_person,
    val: Annotated[float, typer.Option(min=0, max=1, help="Share drawn for val.")] = Plan.val,
    test: Annotated[float, typer.Option(min=0, max=1, help="Share drawn for test.")] = Plan.test,
    near: Annotated[
        int, typer.Option(min=0, max=256, help="Bits of 256 that near-duplicates differ in.")
    ] = NEAR,
    workers: Annotated[int, typer.Option(min=1, help="Threads.")] = min(os.cpu_count() or 1, 8),
    strict: Annotated[
        bool, typer.Option("--strict", help="End with 1 if anything was set aside.")
    ] = False,
) -> None:
    """Build a training set from photos and masks: find people, crop, check, split, report.

    Ends with 0 when the set is written, even if pictures were set aside (the report says which
    and why); with 1 when some pictures failed that may succeed the next time; with 2 when the
    command cannot be carried out.
    """
    try:
        origin = Origin(source, terms)
        reading = Reading(parse_classes(person_value or []), invert)
        if not images and (reading != BRIGHT or mask_name):
            raise OptionError("--invert, --person-value and --mask-name are for --masks.")
        if val + test > 1:
            raise OptionError(f"--val {val} and --test {test} are more than all; lower one.")
        given = [
            *_pairs(images or [], masks or [], origin, reading, mask_name),
            *_folders(cutouts or [], "alpha", origin),
            *_folders(scenes or [], None, origin),
            *_folders([*(distractors or []), *(things or [])], "distractor", origin),
            *_coco(coco or [], coco_images or [], origin, coco_category),
            *(photo for path in manifest or [] for photo in _manifest(path, out, origin)),
            *_folders(photos or [], "label", origin),
        ]
        if not given:
            raise OptionError(
                "no input: give --images and --masks, --cutouts, --scenes, --distractors, "
                "--coco, --manifest, or --photos with --label-with."
            )
        if reading.classes:
            drawn = (photo.mask for photo in given if photo.reading == reading)
            files = (mask for mask in drawn if isinstance(mask, Path))
            check_classes(reading.classes, files, masks or [])
        plan = Plan(
            write_options=WriteOptions(crop, margin, min_side, cutout_colours),
            without_person=without_person,
            unlabelled_person=unlabelled_person,
            licences=tuple(licence or ()),
            val=val,
            test=test,
            near=near,
            workers=workers,
        )
        plan = _with_models(plan, find, label_with, bool(photos))
        outcome = collect(given, out, plan)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on from here", err=True)
        raise typer.Exit(130) from None
    except OSError as error:
        typer.echo(
            f"error: {error}; nothing half-written is left, the same command goes on from here",
            err=True,
        )
        raise typer.Exit(1) from None
    for line in doubtful_sources(outcome, invert):
        typer.echo(f"warning: {line}", err=True)
    typer.echo(write_report(outcome, plan, out))
    for failure in outcome.failed:
        typer.echo(f"failed: {failure.name}: {failure.detail}", err=True)
    if not outcome.rows:
        why = f"; the first: {outcome.aside[0].detail.rstrip('.')}" if outcome.aside else ""
        typer.echo(f"error: no picture could be used{why}; see {out / 'report.md'}", err=True)
    if outcome.failed or not outcome.rows or (strict and outcome.aside):
        raise typer.Exit(1)


def _pairs(
    images: list[Path], masks: list[Path], origin: Origin, reading: Reading, template: str
) -> Iterator[Photo]:
    for pictures, drawn in zip_longest(images, masks):
        if pictures is None or drawn is None:
            raise OptionError(
                f"--images is given {len(images)} times and --masks {len(masks)} times; each "
                "folder of pictures needs its folder of masks (photos without: --photos)."
            )
        yield from sources.pairs(pictures, drawn, origin, reading, template)


def _folders(paths: list[Path], mask: sources.Folder, origin: Origin) -> Iterator[Photo]:
    for path in paths:
        yield from sources.folder(path, mask, origin)


def _coco(files: list[Path], folders: list[Path], origin: Origin, category: str) -> Iterator[Photo]:
    if folders and len(folders) != len(files):
        raise OptionError(
            f"--coco is given {len(files)} times and --coco-images {len(folders)} times; give "
            "one folder for each JSON, or none at all."
        )
    for file, folder in zip(files, folders or [file.parent for file in files], strict=True):
        yield from sources.coco(file, folder, origin, category)


def _manifest(path: Path, out: Path, origin: Origin) -> Iterator[Photo]:
    file = path / MANIFEST if path.is_dir() else path
    if file.resolve() == (out / MANIFEST).resolve():
        raise DataError(f"{file}: is the manifest that would be written; choose another --out.")
    return sources.manifest(file, origin)


def _with_models(plan: Plan, find: str, label_with: str | None, photos: bool) -> Plan:
    """Load what the plan needs, so that an error comes before the work starts."""
    if photos and label_with is None:
        raise OptionError(
            "--photos have no masks: name what makes them, for example --label-with "
            "birefnet-portrait (a rembg session) or --label-with yolov8n-seg.pt."
        )
    if plan.write_options.cutouts == "estimated":
        load_foreground_estimation()
    if photos and label_with is not None:
        labeler = load_labeler(label_with)
        if not labeler.is_local:
            typer.echo(f"note: {label_with} sends the photos to a service elsewhere", err=True)
        plan = replace(plan, labeler=labeler)
    if find == "yolo":
        try:
            find_people(Image.new("RGB", (64, 64)))
        except (MissingExtraError, WeightsError) as error:
            remedy = "or let the masks' own regions say where people are: --find masks"
            raise type(error)(f"{error} In `prepare`: this, {remedy}.") from None
        known = f"yolo {file_sha256(weights_file())} at {_YOLO_SIZE}"
        plan = replace(plan, detector=partial(find_people, size=_YOLO_SIZE), detector_id=known)
    return plan
