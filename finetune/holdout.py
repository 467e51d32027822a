"""Which of a manifest's rows are trained on, held back for validation, or kept for tests."""

from __future__ import annotations

import hashlib
import re

from .manifest import Row

#: What of its own training rows a manifest without validation pictures holds back.
SHARE = 0.08
_CROP = re.compile(r"-p\d+(?=\.\w+$)")


def crop_name(stem: str, number: int) -> str:
    """The name, without its ending, of a photo's crop: the same photo to :func:`held_back`."""
    return f"{stem}-p{number}"


def held_back(row: Row, share: float = SHARE) -> bool:
    """Whether ``row`` belongs to validation: its split says so, or, by its name, chance does.

    Chance has one answer for all crops of a photo and for all pictures that look alike.
    """
    if row.split == "val":
        return True
    alike = row.extra.get("group")
    name = f"group-{alike}" if alike else f"{row.source}/{_CROP.sub('', row.image.name)}"
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


def in_split(row: Row, split: str) -> bool:
    """Whether ``row`` is in "train" (what is trained on), "val" (held back), "test" or "all".

    "held-back" is another name for "val".
    """
    if split in ("val", "held-back"):
        return row.split in ("train", "val") and held_back(row)
    if split == "train":
        return row.split == "train" and not held_back(row)
    return split in ("all", row.split)
