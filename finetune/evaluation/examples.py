"""The pictures that an evaluation shows: worst, best and random ones, and the worst of slices."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.manifest import Row
from ..data.pictures import load_image
from ..predictors import Predictor
from .contact_sheet import Example, save_sheet
from .measure import truth_of
from .report import slices_of

#: Pictures of each kind.
COUNT = 10
#: How many of the worst of every slice are shown as well.
OF_SLICE = 2
#: Kinds with a sheet of their own.
SHEETS = ("worst", "best", "random")
#: Their longer side, in pixels.
SIDE = 480


@dataclass(frozen=True)
class Shown:
    """One picture and its masks, reduced."""

    result: Mapping[str, Any]
    #: Why it is shown: of :data:`SHEETS`, or "worst of its slice".
    kinds: tuple[str, ...]
    image: Image.Image
    #: "truth" and each model's name → "L" of the image's size.
    masks: Mapping[str, Image.Image]


def choose_examples(results: Sequence[Mapping[str, Any]]) -> list[tuple[int, tuple[str, ...]]]:
    """Indices of ``results``, each once, and why the picture is shown.

    Best and worst are by the IoU of the model called "after".
    """
    scored = [place for place, result in enumerate(results) if "iou" in result.get("after", ())]
    ranked = sorted(scored, key=lambda place: float(results[place]["after"]["iou"]))
    drawn = random.Random(0).sample(scored, min(COUNT, len(scored)))  # noqa: S311 - no secret
    kinds: dict[int, list[str]] = defaultdict(list)
    for kind, places in zip(SHEETS, (ranked[:COUNT], ranked[::-1][:COUNT], drawn), strict=True):
        for place in places:
            kinds[place].append(kind)
    place_of = {id(results[place]): place for place in scored}
    for groups in slices_of([results[place] for place in ranked]).values():
        for group in groups.values():
            for result in group[:OF_SLICE]:
                place = place_of[id(result)]
                if "worst" not in kinds[place]:
                    kinds[place].append("worst of its slice")
    return [(place, tuple(dict.fromkeys(names))) for place, names in kinds.items()]


def draw_examples(
    chosen: Sequence[tuple[int, tuple[str, ...]]],
    results: Sequence[Mapping[str, Any]],
    rows: Sequence[Row],
    models: Mapping[str, Predictor],
) -> list[Shown]:
    """The chosen pictures with the truth and each model's mask."""
    shown = []
    for place, kinds in chosen:
        row = rows[results[place]["row"]]
        image = load_image(row)
        masks = {"truth": truth_of(row)}
        masks |= {name: model.segment(image) for name, model in models.items()}
        size = _fitted(image.size)
        small = {
            name: Image.fromarray(mask).resize(size, Image.Resampling.BOX)
            for name, mask in masks.items()
        }
        image = image.resize(size, Image.Resampling.LANCZOS)
        shown.append(Shown(results[place], kinds, image, small))
    return shown


def save_sheets(examples: Sequence[Shown], out: Path) -> None:
    """Write ``worst.jpg``, ``best.jpg`` and ``random.jpg``: photo, truth, and each model's."""
    ranked = sorted(examples, key=lambda shown: float(shown.result["after"]["iou"]))
    for kind in SHEETS:
        lines = [_line(shown) for shown in ranked if kind in shown.kinds]
        if lines:
            save_sheet(lines[::-1] if kind == "best" else lines, out / f"{kind}.jpg")


def _line(shown: Shown) -> Example:
    captions = [Path(shown.result["image"]).name]
    for name in shown.masks:
        scores = shown.result.get(name)
        captions.append(
            f"{name}: IoU {scores['iou']:.3f}, boundary {scores['boundary_iou']:.3f}"
            if scores
            else name
        )
    masks = [np.asarray(mask) for mask in shown.masks.values()]
    return Example(shown.image, masks, captions)


def _fitted(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
