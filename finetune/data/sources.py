"""The kinds of raw material that `python -m finetune prepare` takes, listed as photos.

No picture is opened here. What is wrong already (a picture without a mask, a mask without a
picture) becomes a photo with a ``problem``.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from PIL import Image

from u2net_human_plugin.errors import DataError

from .manifest import read_manifest
from .masks import BRIGHT, Reading
from .pairing import Pairing, masks_among
from .photo import CocoMask, Origin, Photo, printable

#: What all pictures of a folder are: RGBA cut-outs of people or of distractors, photos to label,
#: or scenes.
Folder = Literal["alpha", "distractor", "label"] | None
#: Keys of a manifest's row that `prepare` works out anew.
_OWN_KEYS = frozenset(
    (
        *("sha256", "boxes", "detector", "persons", "person_height"),
        *("group", "flags", "cutout", "thing"),
    )
)
#: The nearest name is looked for only for the first so many pictures without a mask: it is slow.
_HINTED = 20


def pairs(
    images: Path, masks: Path, origin: Origin, reading: Reading = BRIGHT, template: str = ""
) -> Iterator[Photo]:
    """Pictures of one folder with their masks of another (or of the same), paired by name.

    Args:
        images: folder of pictures; subfolders of it match subfolders of ``masks``.
        masks: folder of masks, named as :class:`.pairing.Pairing` says.
        origin: their source and licence.
        reading: how the masks' values are read.
        template: the masks' name for a picture ``{stem}``.

    Raises:
        DataError: there is no such folder, or no picture has a mask.
        OptionError: the template has no ``{stem}``.
    """
    source = origin.name(images)
    pictures = _files(images)
    drawn = _files(masks)
    if images.absolute() == masks.absolute():
        drawn = sorted(masks_among(_by_stem(pictures, images)))
        pictures = [file for file in pictures if file not in set(drawn)]
    stems = [_stem(file, images) for file in pictures]
    pairing = Pairing(stems, _by_stem(drawn, masks), template)
    used: dict[Path, Path] = {}
    photos, lonely = [], 0
    for file, stem in zip(pictures, stems, strict=True):
        found = pairing.masks_of(stem)
        problem = _not_a_picture(file)
        if not problem and not found:
            lonely += 1
            near = pairing.nearest(stem) if lonely <= _HINTED else ""
            problem = f"no mask of this name in {masks}{near}"
        elif not problem and len(found) > 1:
            names = ", ".join(sorted(mask.name for mask in found))
            problem = f"several masks fit: {names}; --mask-name '{{stem}}_…' names one"
        elif not problem and found[0] in used:
            problem = f"its mask {found[0].name} also fits {used[found[0]].name}"
        used.update(dict.fromkeys(found, file))
        mask = found[0] if len(found) == 1 else None
        name = _name(source, file, images)
        photos.append(
            Photo(file, mask, source, name, origin.licence, problem=problem, reading=reading)
        )
    if lonely and not used:
        first = next(photo for photo in photos if photo.problem.startswith("no mask"))
        by = f" by --mask-name {template!r}; correct it" if template else ""
        raise DataError(
            f"{first.image}: {first.problem}. No picture of {images} has a mask there{by}."
        )
    yield from photos
    for file in drawn:
        if file not in used:
            problem = _not_a_picture(file) or f"a mask without a picture in {images}"
            yield Photo(file, None, source, _name(source, file, masks), problem=problem)


def folder(path: Path, mask: Folder, origin: Origin) -> Iterator[Photo]:
    """All pictures of a folder, whose ``mask`` says what they are."""
    source = origin.name(path)
    for file in _files(path):
        yield Photo(
            file,
            mask,
            source,
            _name(source, file, path),
            origin.licence,
            problem=_not_a_picture(file),
        )


def coco(path: Path, images: Path, origin: Origin, category: str = "person") -> Iterator[Photo]:
    """The images of a COCO-style JSON; those without an annotation of ``category`` show nobody.

    Raises:
        DataError: the file is not such a JSON, or has no such category.
    """
    content = _json(path)
    try:
        wanted = {
            item["id"]
            for item in content["categories"]
            if str(item["name"]).casefold() == category.casefold()
        }
        listed = [(item["id"], str(item["file_name"]), item) for item in content["images"]]
        annotations: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            if annotation["category_id"] in wanted:
                annotations[annotation["image_id"]].append(annotation)
        licences = {
            item.get("id"): str(item.get("name", "")) for item in content.get("licenses") or ()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not a COCO-style JSON ({type(error).__name__}: {error}); expected objects "
            'under "images" (id, file_name), "annotations" (image_id, category_id, '
            'segmentation) and "categories" (id, name).'
        ) from None
    if not wanted:
        names = ", ".join(sorted(str(item["name"]) for item in content["categories"])) or "none"
        raise DataError(f"{path}: has no category {category!r} (it has: {names}).")
    source = origin.source or path.stem
    for key, file_name, item in listed:
        inside = PurePosixPath(file_name.replace("\\", "/"))
        problem = ""
        if inside.is_absolute() or ".." in inside.parts:
            problem = f"the JSON's file_name {file_name!r} leaves the images folder"
        size = (item.get("width"), item.get("height"))
        yield Photo(
            images / inside,
            _coco_mask(annotations[key], size),
            source,
            f"{source}/{inside}",
            origin.licence or licences.get(item.get("license"), ""),
            problem=problem,
        )


def manifest(path: Path, origin: Origin) -> Iterator[Photo]:
    """The rows of a manifest, which keep their source, split and licence."""
    rows = read_manifest(path, check_files=False)
    root = (path if path.is_dir() else path.parent).absolute()
    for row in rows:
        source = row.source or origin.name(root)
        try:
            inside = row.image.relative_to(root).as_posix()
        except ValueError:
            inside = row.image.name
        yield Photo(
            row.image,
            "distractor" if row.is_distractor else row.mask,
            source,
            inside if inside.startswith(f"{source}/") else f"{source}/{inside}",
            row.licence or origin.licence,
            row.split,
            extra={key: value for key, value in row.extra.items() if key not in _OWN_KEYS},
            bystanders=row.bystanders,
        )


def _coco_mask(annotations: Sequence[Mapping[str, Any]], size: tuple[Any, Any]) -> CocoMask:
    known = all(isinstance(side, int) and side > 0 for side in size)
    return CocoMask(tuple(annotations), size if known else None)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); check the path.") from None


def _files(folder: Path) -> list[Path]:
    """All files below ``folder``, sorted, without hidden files and hidden folders.

    Raises:
        DataError: there is no such folder, or it holds no files.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; check the path.")
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
    if not files:
        raise DataError(f"{folder}: holds no files; check the path.")
    return files


def _stem(file: Path, root: Path) -> str:
    return file.relative_to(root).with_suffix("").as_posix()


def _by_stem(files: Iterable[Path], root: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        found[_stem(file, root)].append(file)
    return found


def _name(source: str, file: Path, root: Path) -> str:
    return f"{source}/{printable(file.relative_to(root).as_posix())}"


def _not_a_picture(file: Path) -> str:
    known = file.suffix.lower() in _picture_suffixes()
    return "" if known else f"not a picture file ({file.suffix or 'no ending'})"


@lru_cache(maxsize=1)
def _picture_suffixes() -> frozenset[str]:
    kinds = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in kinds.items() if kind in Image.OPEN)
