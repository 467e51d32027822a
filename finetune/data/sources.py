"""The kinds of raw material that `python -m finetune prepare` takes, read into one record.

Readers only list: no picture is opened here. What is visibly wrong already (a picture
without a mask, a mask without a picture) comes back as a candidate with a ``problem``.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from PIL import Image

from u2net_human_plugin.errors import DataError

from .manifest import Split, read_manifest

#: What a mask's file name may have after its picture's, as in photo.jpg and photo_mask.png.
MASK_ENDINGS = ("", "_mask", "-mask", ".mask", "_matte", "_alpha", "_seg")
#: Keys of a manifest row that are worked out anew.
_OWN_KEYS = frozenset(
    (
        *("sha256", "boxes", "detector", "persons", "person_height"),
        *("group", "flags", "cutout", "thing"),
    )
)


@dataclass(frozen=True)
class CocoMask:
    """The person annotations of one COCO image, drawn when the picture is read."""

    annotations: tuple[Mapping[str, Any], ...]
    #: Width and height that the JSON states, None where it does not.
    size_wh: tuple[int, int] | None


@dataclass(frozen=True)
class Candidate:
    """One picture that may become part of the training set."""

    image: Path
    #: A mask file, the picture's own "alpha", COCO annotations, None (an empty scene),
    #: "thing" (the cut-out of something that is nobody), or "label": there is none yet.
    mask: Path | Literal["alpha", "label", "thing"] | CocoMask | None
    source: str
    #: What reports call it: the source and the path inside the input.
    name: str
    licence: str = ""
    #: The split a manifest states; None leaves it to `prepare`.
    split: Split | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    #: Why it cannot be used, if that shows without opening it.
    problem: str = ""

    @property
    def shows_nobody(self) -> bool:
        """Whether it is given as an empty scene or as a thing."""
        return self.mask in (None, "thing")


@dataclass(frozen=True)
class Origin:
    """What to say of all pictures of an input: where they come from and on what terms."""

    #: None takes the folder's name.
    source: str | None = None
    licence: str = ""

    def name(self, folder: Path) -> str:
        """The source's name for pictures of ``folder``."""
        if self.source:
            return self.source
        folder = folder.absolute()
        generic = folder.name.lower() in ("images", "imgs", "image", "photos", "jpg", "jpegs")
        return _text(folder.parent.name if generic and folder.parent.name else folder.name)


def pairs(images: Path, masks: Path, origin: Origin) -> Iterator[Candidate]:
    """Pictures of one folder with the masks of another; same path apart from the ending.

    The two may be one folder if the masks' names end in one of :data:`MASK_ENDINGS`.
    """
    source = origin.name(images)
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for file in _files(masks):
        by_stem[_stem(file, masks)].append(file)
    used: dict[Path, Path] = {}
    pictures = _files(images)
    if images.absolute() == masks.absolute():
        stems = {_stem(file, images) for file in pictures}
        pictures = [file for file in pictures if not _is_mask_name(_stem(file, images), stems)]
    for file in pictures:
        stem, name = _stem(file, images), _name(source, file, images)
        found = [mask for end in MASK_ENDINGS for mask in by_stem[stem + end] if mask != file]
        problem = _not_a_picture(file)
        if not problem and not found:
            problem = f"no mask of this name in {masks}"
        elif not problem and len(found) > 1:
            problem = f"several masks fit: {', '.join(sorted(mask.name for mask in found))}"
        elif not problem and found[0] in used:
            problem = f"its mask {found[0].name} also fits {used[found[0]].name}"
        used.update(dict.fromkeys(found, file))
        mask = found[0] if len(found) == 1 else None
        yield Candidate(file, mask, source, name, origin.licence, problem=problem)
    if images.absolute() != masks.absolute():
        for file in sorted(file for files in by_stem.values() for file in files):
            if file not in used:
                problem = _not_a_picture(file) or f"a mask without a picture in {images}"
                yield Candidate(file, None, source, _name(source, file, masks), problem=problem)


def folder(
    path: Path, mask: Literal["alpha", "label", "thing"] | None, origin: Origin
) -> Iterator[Candidate]:
    """All pictures of a folder: RGBA cut-outs of people or things, photos to label, or scenes."""
    source = origin.name(path)
    for file in _files(path):
        yield Candidate(
            file,
            mask,
            source,
            _name(source, file, path),
            origin.licence,
            problem=_not_a_picture(file),
        )


def coco(path: Path, images: Path, origin: Origin, category: str = "person") -> Iterator[Candidate]:
    """The images of a COCO-style JSON; those without a ``category`` show nobody.

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
        yield Candidate(
            images / inside,
            _coco_mask(annotations[key], size),
            source,
            f"{source}/{inside}",
            origin.licence or licences.get(item.get("license"), ""),
            problem=problem,
        )


def manifest(path: Path, origin: Origin) -> Iterator[Candidate]:
    """The rows of a manifest, which keep their source, split and licence."""
    rows = read_manifest(path, check_files=False)
    root = (path if path.is_dir() else path.parent).absolute()
    for row in rows:
        source = row.source or origin.name(root)
        try:
            inside = row.image.relative_to(root).as_posix()
        except ValueError:
            inside = row.image.name
        yield Candidate(
            row.image,
            "thing" if row.is_thing else row.mask,
            source,
            inside if inside.startswith(f"{source}/") else f"{source}/{inside}",
            row.licence or origin.licence,
            row.split,
            {key: value for key, value in row.extra.items() if key not in _OWN_KEYS},
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
    """All files below ``folder`` in a fixed order, without hidden ones and hidden folders.

    Raises:
        DataError: it is not a folder, or holds no file.
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


def _is_mask_name(stem: str, stems: set[str]) -> bool:
    return any(stem.endswith(end) and stem[: -len(end)] in stems for end in MASK_ENDINGS if end)


def _name(source: str, file: Path, root: Path) -> str:
    return f"{source}/{_text(file.relative_to(root).as_posix())}"


def _text(name: str) -> str:
    """A file's name as it can be written anywhere: what is no UTF-8 becomes escapes."""
    return name.encode(errors="backslashreplace").decode()


def _not_a_picture(file: Path) -> str:
    known = file.suffix.lower() in _picture_suffixes()
    return "" if known else f"not a picture file ({file.suffix or 'no ending'})"


@lru_cache(maxsize=1)
def _picture_suffixes() -> frozenset[str]:
    kinds = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in kinds.items() if kind in Image.OPEN)
