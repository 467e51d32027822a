"""Which mask belongs to which picture, by their names."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from u2net_human_plugin.errors import OptionError

#: Words that a mask's name has before or after its picture's: photo_mask, mask-photo.
MASK_WORDS = (
    *("mask", "masks", "gt", "matte", "matting", "alpha", "pha"),
    *("label", "labels", "seg", "segmentation"),
)
#: Words that a picture's name may have: photo_image.
PICTURE_WORDS = ("image", "img", "photo", "rgb")
#: The ending of the picture's file, which a mask's name may still have: photo.jpg.png.
_PICTURE_ENDING = re.compile(r"\.(jpe?g|png|webp|bmp|tiff?)$", re.IGNORECASE)


class Pairing:
    """Finds the masks of pictures by name.

    A mask belongs to the picture of the same name. If there is none, words of :data:`MASK_WORDS`
    and the picture's ending are left out of the mask's name, and words of :data:`PICTURE_WORDS`
    out of the picture's. Upper and lower case differ only if both occur.

    Args:
        pictures: names of pictures without their endings, "folder/photo".
        masks: names of masks without their endings, and their files.
        template: the mask's name for a picture ``{stem}``, if none of these rules fits.

    Raises:
        OptionError: the template has no ``{stem}``.
    """

    def __init__(
        self, pictures: Sequence[str], masks: Mapping[str, Sequence[Path]], template: str = ""
    ) -> None:
        if template and "{stem}" not in template:
            raise OptionError(f"--mask-name {template!r}: has no {{stem}}, as in '{{stem}}_foo'.")
        self._template = _PICTURE_ENDING.sub("", template)
        self._pictures = pictures
        self._masks = masks
        self._by_core: dict[str, list[Path]] = defaultdict(list)
        self._by_folded: dict[str, list[Path]] = defaultdict(list)
        own = {stem.casefold() for stem in pictures}
        for stem, files in masks.items():
            if self._template:
                cores = [stem]
            else:
                cores = [stem] if stem.casefold() in own else list(_without(stem, MASK_WORDS))
            for core in cores:
                self._by_core[core] += files
            for core in {core.casefold() for core in cores}:
                self._by_folded[core] += files

    def masks_of(self, stem: str) -> list[Path]:
        """All masks that fit the picture's name; more than one is an error."""
        if self._template:
            folder, slash, name = stem.rpartition("/")
            wanted = [folder + slash + self._template.replace("{stem}", name)]
        else:
            wanted = list(_without(stem, PICTURE_WORDS))
        for found, fold in ((self._by_core, str), (self._by_folded, str.casefold)):
            for core in wanted:
                if files := found.get(fold(core)):
                    return list(dict.fromkeys(files))
        return []

    def nearest(self, stem: str) -> str:
        """The mask of no picture with the nearest name, and how to ask for it; for messages."""
        (closest,) = difflib.get_close_matches(stem, self._left, n=1, cutoff=0) or [""]
        if not closest:
            return ""
        file, name = self._masks[closest][0].name, stem.rpartition("/")[2]
        hint = f"; the nearest name is {file}"
        if name in closest and not self._template:
            hint += (
                f": if that is it, add --mask-name '{Path(closest).name.replace(name, '{stem}')}'"
            )
        return hint

    @cached_property
    def _left(self) -> list[str]:
        """The names of masks that belong to no picture."""
        taken = {file for stem in self._pictures for file in self.masks_of(stem)}
        return [stem for stem, files in self._masks.items() if taken.isdisjoint(files)]


def masks_among(files: Mapping[str, Sequence[Path]]) -> set[Path]:
    """The files of a folder (given by their names without endings) that are masks of others."""
    pictures: dict[str, set[str]] = defaultdict(set)
    for stem in files:
        for core in _without(stem, PICTURE_WORDS):
            pictures[core.casefold()].add(stem)
    found: set[Path] = set()
    for stem, same in files.items():
        others = (core for core in list(_without(stem, MASK_WORDS))[1:])
        if any(pictures[core.casefold()] - {stem} for core in others):
            found.update(same)
        elif len(same) == 2:  # photo.jpg and photo.png
            found.update(file for file in same if file.suffix.lower() == ".png")
    return found


def _without(stem: str, words: Sequence[str]) -> Iterator[str]:
    """``stem``, then ``stem`` without each of the words, and without an ending."""
    yield stem
    folder, slash, name = stem.rpartition("/")
    if words is MASK_WORDS and (short := _PICTURE_ENDING.sub("", name)) != name:
        yield folder + slash + short
    any_word = "|".join(words)
    for pattern in (rf"[ ._-]({any_word})$", rf"^({any_word})[ ._-]"):
        short = re.sub(pattern, "", name, flags=re.IGNORECASE)
        if short not in ("", name):
            yield folder + slash + short
