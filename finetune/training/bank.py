"""All training pictures, decoded once: a few arrays that a batch is cut out of.

A picture is decoded, turned upright and reduced to a square of one size, as the network sees
it too; what comes later (crop, light, layers) is tensor operations on these arrays, see
:mod:`.batch`. So a photo of 12 megapixels costs a use no more than a small one. The arrays
live in files that are mapped into memory: pictures that do not fit into it are read when
they are drawn, and the next run of the same pictures decodes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter
from torch import Tensor

#: What one picture holds, by name: channels of uint8. ``weight`` 0 does not count;
#: ``before`` is the answer of the network that must not be forgotten.
PLANES: Mapping[str, int] = {"rgb": 3, "alpha": 1, "weight": 1, "before": 1}


@dataclass(frozen=True)
class Item:
    """One picture for the bank, before it is decoded.

    ``band`` is the distance from the mask's contour, in pixels of the file, within which its
    maker is not to be trusted: there a teacher's matte has the word, if there is one, and
    else nobody. ``teacher`` and ``before`` are mattes (H,W) uint8 of any size, or None.
    """

    image: Path
    #: A mask file, "alpha" for the image's own alpha channel, None for nobody.
    mask: Path | str | None
    #: Sampled in proportion to it.
    share: float = 1.0
    #: "photo", "scene" (nobody in it) or "cutout" (only to be pasted).
    kind: str = "photo"
    #: Of something that is nobody and may be pasted; as ``mask``.
    thing: Path | None = None
    band: float = 0.0
    teacher: npt.NDArray[np.uint8] | None = None
    before: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Bank:
    """Decoded pictures. All tensors are on one device; ``planes`` are (N,C,R,R) uint8."""

    planes: Mapping[str, Tensor]
    #: (N,) float32: width divided by height of the file.
    aspect: Tensor
    #: (N,4) float32 xyxy in 0…1: the hull of the alpha matte; all zero where it is empty.
    box_xyxy: Tensor
    share: Tensor
    kinds: Sequence[str]
    things: Tensor
    #: (N,) bool: whether ``before`` is known.
    has_before: Tensor

    @property
    def side(self) -> int:
        """Side of the stored squares, in pixels."""
        return int(self.planes["rgb"].shape[-1])

    def pool(self, kind: str) -> Tensor:
        """Indices of the pictures of a kind: (K,) int64."""
        found = [number for number, name in enumerate(self.kinds) if name == kind]
        return torch.tensor(found, dtype=torch.long, device=self.share.device)


def decode(items: Sequence[Item], side: int, folder: Path, threads: int | None = None) -> Bank:
    """Decode ``items`` into files in ``folder``, or use those that an earlier call left there.

    Args:
        items: in the order of the bank.
        side: of the stored squares, in pixels; wants to be a little above the network's input.
        folder: for the arrays, 7 bytes a stored pixel; made if missing.
        threads: at most as many pictures are decoded at a time.

    Raises:
        OSError: a file cannot be read or written; nothing half-written is used later.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = _key(items, side)
    ready = folder / "bank.json"
    known = json.loads(ready.read_text("utf-8")) if ready.is_file() else {}
    if known.get("key") != key:
        ready.unlink(missing_ok=True)
        known = _decode_all(items, side, folder, threads) | {"key": key}
        temporary = folder / "bank.json.tmp"
        temporary.write_text(json.dumps(known), "utf-8")
        os.replace(temporary, ready)
    planes = {
        name: torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="r+")) for name in PLANES
    }
    return Bank(
        planes=planes,
        aspect=torch.tensor(known["aspect"]),
        box_xyxy=torch.tensor(known["boxes"]),
        share=torch.tensor([item.share for item in items]),
        kinds=[item.kind for item in items],
        things=torch.tensor([n for n, item in enumerate(items) if item.thing], dtype=torch.long),
        has_before=torch.tensor([item.before is not None for item in items]),
    )


def _decode_all(
    items: Sequence[Item], side: int, folder: Path, threads: int | None
) -> dict[str, Any]:
    arrays = {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", "w+", np.uint8, (len(items), channels, side, side)
        )
        for name, channels in PLANES.items()
    }

    def fill(number: int) -> tuple[float, list[float]]:
        aspect, content = _decoded(items[number], side)
        for name, plane in content.items():
            arrays[name][number] = plane
        return aspect, _hull(arrays["alpha"][number, 0] if content else None)

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        found = list(pool.map(fill, range(len(items))))
    for array in arrays.values():
        array.flush()
    return {"aspect": [aspect for aspect, _ in found], "boxes": [box for _, box in found]}


def _decoded(item: Item, side: int) -> tuple[float, dict[str, npt.NDArray[np.uint8]]]:
    with Image.open(item.image) as file:
        picture = file.convert("RGBA" if item.mask == "alpha" else "RGB")
    size = (side, side)
    rgb = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS))
    if item.mask == "alpha":
        mask = picture.getchannel("A")
    elif item.mask is not None:
        with Image.open(item.mask) as file:
            mask = file.convert("L")
    elif item.thing is not None:
        with Image.open(item.thing) as file:
            mask = file.convert("L")
    else:
        mask = Image.new("L", picture.size)
    alpha = np.asarray(mask.resize(size, Image.Resampling.BOX))
    weight = np.full((side, side), 255, np.uint8)
    if item.band and item.mask is not None:
        unsure = _band(mask, item.band, size)
        if item.teacher is not None:
            alpha = np.where(unsure, _resized(item.teacher, size), alpha)
        else:
            weight[unsure] = 0
    before = np.zeros((side, side), np.uint8)
    if item.before is not None:
        before = _resized(item.before, size)
    aspect = picture.width / picture.height
    planes = {"rgb": rgb.transpose(2, 0, 1), "alpha": alpha, "weight": weight, "before": before}
    return aspect, planes


def _resized(matte: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.fromarray(matte).resize(size, Image.Resampling.BILINEAR))


def _band(mask: Image.Image, pixels: float, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Within ``pixels`` of the contour of ``mask``, on a grid of ``size``."""
    reach = max(1, round(pixels))
    side = 2 * reach + 1
    grown, shrunk = (
        np.asarray(mask.filter(kind(side)).resize(size, Image.Resampling.BILINEAR), np.int16)
        for kind in (ImageFilter.MaxFilter, ImageFilter.MinFilter)
    )
    unsure: npt.NDArray[np.bool_] = grown - shrunk > 127
    return unsure


def _hull(alpha: npt.NDArray[np.uint8] | None) -> list[float]:
    if alpha is None or not (alpha > 100).any():
        return [0.0, 0.0, 0.0, 0.0]
    rows, columns = ((alpha > 100).any(axis) for axis in (1, 0))
    (top, bottom), (left, right) = (np.nonzero(line)[0][[0, -1]] for line in (rows, columns))
    side = alpha.shape[0]
    return [float(v) / side for v in (left, top, right + 1, bottom + 1)]


def _key(items: Sequence[Item], side: int) -> str:
    """A hash of everything that the arrays depend on."""
    digest = hashlib.sha256(f"{side}".encode())
    for part in _parts(items):
        digest.update(part)
    return digest.hexdigest()


def _parts(items: Sequence[Item]) -> Iterator[bytes]:
    for item in items:
        about = (item.image, item.image.stat().st_size, item.mask, item.thing, item.band)
        yield repr(tuple(map(str, about))).encode()
        for matte in (item.teacher, item.before):
            yield b"-" if matte is None else hashlib.sha256(matte.tobytes()).digest()
