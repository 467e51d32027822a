"""The pictures of model card and README, made of photos that may be shown.

``people.jpg`` and ``options.jpg`` show the photos that ``front_photos.json`` lists, which come with
a package that is not installed here; ``examples.jpg`` shows pictures of scikit-image.
``drawn.json`` states which weights drew each sheet, and how much of each photo they mark.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from u2net_human_plugin import weights
from u2net_human_plugin.errors import DataError

from ..evaluation.contact_sheet import Example, save_sheet
from ..evaluation.metrics import binary
from ..files import file_sha256, write_text
from ..predictors import load_predictor

#: In the model card's folder: the front picture's photos, and the record of what was drawn.
FRONT_PHOTOS = "front_photos.json"
DRAWN = "drawn.json"

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


def draw(folder: Path, before: str, photos: Path | None = None) -> None:
    """Draw the sheets into the model card's ``folder``; ``drawn.json`` notes the weights.

    Args:
        folder: where the sheets and ``front_photos.json`` lie.
        before: the model that stands beside ours.
        photos: the unpacked package of the listed photos; None leaves their sheets alone.

    Raises:
        DataError: a listed photo is missing, or is another one.
    """
    sheets = {"examples.jpg": hard_cases(before)}
    if photos:
        sheets["people.jpg"] = people(before, photos, front_photos(folder, "people.jpg"))
        sheets["options.jpg"] = options_shown(photos, front_photos(folder, "options.jpg"))
    record = drawn(folder)
    for name, examples in sheets.items():
        save_sheet(examples, folder / name)
        record[name] = {"weights": weights.bundled().sha256}
    record["examples.jpg"]["marked"] = _marked(sheets["examples.jpg"])
    write_text(folder / DRAWN, json.dumps(record, indent=1) + "\n")


def drawn(folder: Path) -> dict[str, Any]:
    """The weights that drew each sheet; for ``examples.jpg``, the shares that both models mark."""
    path = folder / DRAWN
    record: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return record


def outdated_sheets(folder: Path) -> list[str]:
    """Names of the sheets that other weights than the bundled ones drew."""
    ours = weights.bundled().sha256
    return [name for name, sheet in drawn(folder).items() if sheet["weights"] != ours]


def front_photos(folder: Path, sheet: str | None = None) -> list[dict[str, str]]:
    """The photos of a sheet, or of all: file in the package, SHA-256, package and terms."""
    path = folder / FRONT_PHOTOS
    listed: list[dict[str, str]] = json.loads(path.read_text("utf-8")) if path.is_file() else []
    return [photo for photo in listed if sheet in (None, photo["sheet"])]


def people(before: str, photos: Path, listed: Sequence[Mapping[str, str]]) -> list[Example]:
    """The ``listed`` photos of people, beside the cut-outs of ``before`` and ours.

    Raises:
        DataError: a photo is not below ``photos``, or is another one.
    """
    return [
        example._replace(captions=["photo", f"rembg's {_title(before)}", weights.MODEL_NAME])
        for example in _compared(before, _opened(photos, listed))
    ]


def _opened(photos: Path, listed: Sequence[Mapping[str, str]]) -> dict[str, Image.Image]:
    pictures = {}
    for photo in listed:
        path = photos / photo["file"]
        if not path.is_file():
            raise DataError(f"{path}: no such file; --photos is the unpacked {photo['package']}.")
        if file_sha256(path) != photo["sha256"]:
            raise DataError(f"{path}: not the photo of {photo['package']}: its SHA-256 differs.")
        with Image.open(path) as image:
            pictures[photo["file"]] = image.convert("RGB")
    return pictures


def hard_cases(before: str) -> list[Example]:
    """Twelve pictures that a network finds hard, beside the cut-outs of ``before`` and ours."""
    return _compared(before, _twelve())


def options_shown(photos: Path, listed: Sequence[Mapping[str, str]]) -> list[Example]:
    """A group, and what the options that choose among people leave of it.

    Raises:
        DataError: a photo is not below ``photos``, or is another one.
    """
    models = [load_predictor(f"bundled?{options}") for options in _OPTIONS.values()]
    return [
        Example(picture, [model.segment(picture) for model in models], ["photo", *_OPTIONS])
        for picture in _opened(photos, listed).values()
    ]


def _compared(before: str, pictures: Mapping[str, Image.Image]) -> list[Example]:
    """Each picture, its cut-out by ``before`` and by ours, with the share that each marks."""
    models = {_title(before): load_predictor(before), weights.MODEL_NAME: load_predictor("bundled")}
    examples = []
    for name, picture in pictures.items():
        masks = [model.segment(picture) for model in models.values()]
        shares = [
            f"{title}: {100 * _share(mask):.1f} %"
            for title, mask in zip(models, masks, strict=True)
        ]
        examples.append(Example(picture, masks, [name, *shares]))
    return examples


def _title(model: str) -> str:
    return Path(model.rpartition(":")[2]).stem


def _share(mask: Any) -> float:
    return float(np.mean(binary(mask)))


def _marked(examples: Sequence[Example]) -> dict[str, list[float]]:
    """The share of each picture that each of its masks marks, by the picture's caption."""
    return {
        example.captions[0]: [round(_share(mask), 4) for mask in example.masks]
        for example in examples
    }


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
