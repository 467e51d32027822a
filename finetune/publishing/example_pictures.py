"""The pictures of model card and README: permitted ones, which come with scikit-image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ..evaluation.contact_sheet import Example
from ..evaluation.metrics import binary
from ..predictors import load_predictor

#: A figure: its height as a share of the picture's, its centre as a share of the width.
Figure = tuple[float, float]

#: What `options_shown` shows: a caption, and the options of the pipeline that it stands for.
_OPTIONS = {
    'crop "off"': "crop=off",
    'crop "self" (default)': "crop=self",
    'persons "largest"': "persons=largest",
    'persons "center"': "persons=center",
    "max_persons 2": "max_persons=2",
}


def hard_cases(before: str) -> list[Example]:
    """Twelve pictures that a network finds hard, beside the cut-outs of ``before`` and ours."""
    models = {"before": load_predictor(before), "after": load_predictor("bundled")}
    examples = []
    for name, picture in _twelve().items():
        masks = [model.segment(picture) for model in models.values()]
        shares = [
            f"{title}: {100 * float(np.mean(binary(mask))):.1f} %"
            for title, mask in zip(models, masks, strict=True)
        ]
        examples.append(Example(picture, masks, [name, *shares]))
    return examples


def options_shown() -> list[Example]:
    """One picture of three people, and what the options that choose among them leave of it."""
    picture = _with_figures(_data().brick(), [(0.14, 0.86), (0.33, 0.55), (0.37, 0.18)])
    masks = [load_predictor(f"bundled?{options}").segment(picture) for options in _OPTIONS.values()]
    return [Example(picture, masks, ["photo", *_OPTIONS])]


def _twelve() -> dict[str, Image.Image]:
    data = _data()
    astronaut = Image.fromarray(data.astronaut())
    grey = astronaut.convert("L")
    return {
        "astronaut": astronaut,
        "turned": astronaut.transpose(Image.Transpose.ROTATE_90),
        "upside down": ImageOps.flip(astronaut),
        "in the dark": ImageEnhance.Brightness(astronaut).enhance(0.2),
        "grey, low contrast": ImageEnhance.Contrast(grey).enhance(0.3).convert("RGB"),
        "small": _with_figures(data.rocket(), [(0.15, 0.3)]),
        "a group": _with_figures(data.brick(), [(0.45, 0.5), (0.6, 0.25), (0.7, 0.7)]),
        "camera": Image.fromarray(data.camera()).convert("RGB"),
        "chelsea, nobody": Image.fromarray(data.chelsea()),
        "coffee, nobody": Image.fromarray(data.coffee()),
        "rocket, nobody": Image.fromarray(data.rocket()),
        "hubble_deep_field, nobody": Image.fromarray(data.hubble_deep_field()),
    }


def _with_figures(scene: Any, figures: Sequence[Figure]) -> Image.Image:
    """``scene`` with the astronaut, cut out by the bundled network, standing in it."""
    canvas = Image.fromarray(scene).convert("RGB")
    astronaut = Image.fromarray(_data().astronaut())
    outline = Image.fromarray(load_predictor("bundled?crop=off").segment(astronaut))
    for height, centre in figures:
        side = round(height * canvas.height)
        place = (round(centre * canvas.width - side / 2), canvas.height - side)
        shrunk = [
            part.resize((side, side), Image.Resampling.LANCZOS) for part in (astronaut, outline)
        ]
        canvas.paste(shrunk[0], place, shrunk[1])
    return canvas


def _data() -> Any:
    from skimage import data

    return data
