"""Which rows of a manifest are trained on, held back for validation, or kept for tests."""

from __future__ import annotations

import hashlib

from .manifest import Row

#: The share of the training rows that is held back, besides the rows of the validation split.
SHARE = 0.08


def held_back(row: Row, share: float = SHARE) -> bool:
    """Whether ``row`` belongs to validation, by its split or by a hash of its name.

    The hash is the same for all crops of a photo and for all pictures that look alike.
    """
    if row.split == "val":
        return True
    alike, origin = row.extra.get("group"), row.extra.get("origin")
    if alike:
        name = f"group-{alike}"
    elif row.extra.get("is_crop") and isinstance(origin, dict) and "sha256" in origin:
        # Crops get other names when they are prepared again, their origin stays.
        name = f"crop-of-{origin['sha256']}"
    else:
        name = f"{row.source}/{row.image.name}"
    digest = hashlib.sha256(name.encode(errors="backslashreplace")).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


def in_split(row: Row, split: str) -> bool:
    """Whether ``row`` is in "train" (what is trained on), "val" (held back), "test" or "all"."""
    if split == "val":
        return row.split in ("train", "val") and held_back(row)
    if split == "train":
        return row.split == "train" and not held_back(row)
    return split in ("all", row.split)
