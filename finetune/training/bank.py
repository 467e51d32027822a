"""The bank: all training pictures, decoded once into a few arrays that batches are cut out of.

A picture is decoded, turned upright and reduced to a square of one size. Cropping, lighting and
pasting are tensor operations on these arrays, see :mod:`.batch`; so a use of a photo costs the same
whatever its size. The arrays are files that are mapped into memory: they may be larger than it, and
the next run with the same pictures decodes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from torch import Tensor

from u2net_human_plugin.errors import DataError

from ..files import TEMPORARY
from .training_rows import Kind, TrainingRow, decoded

#: The arrays of the bank and their channels, uint8. Where ``weight`` is 0, a pixel does not count.
PLANES: Mapping[str, int] = {"rgb": 3, "alpha": 1, "weight": 1}
#: The share of a GPU's free memory that pictures may take; the network needs the rest.
_GPU_SHARE = 0.5
_DESCRIPTION = "bank.json"


@dataclass(frozen=True)
class Bank:
    """Decoded pictures; ``planes`` are (N,C,R,R) uint8, of :data:`PLANES`, and of ``before``.

    ``before``, if it is there, is the answer of a network that must not be forgotten, see
    :mod:`.forgetting`. All other tensors are on the device on which batches are made; planes that
    are too large for it stay in main memory, or on disk.
    """

    folder: Path
    planes: Mapping[str, Tensor]
    #: (N,) float32: width divided by height of the file.
    aspect: Tensor
    #: (N,4) float32 xyxy in 0…1: the bounding box of the alpha matte; all zero if it is empty.
    box_xyxy: Tensor
    #: (N,) float32: pictures of a kind are drawn in proportion to it.
    share: Tensor
    kinds: Sequence[Kind]
    #: (K,) int64: indices of the pictures whose alpha matte is a distractor's.
    distractors: Tensor

    @property
    def side(self) -> int:
        """Side of the stored squares, in pixels."""
        return int(self.planes["rgb"].shape[-1])

    def pool(self, kind: Kind) -> Tensor:
        """Indices of the pictures of a kind: (K,) int64."""
        found = [number for number, name in enumerate(self.kinds) if name == kind]
        return torch.tensor(found, dtype=torch.long, device=self.share.device)

    def on(self, device: torch.device) -> Bank:
        """The same pictures for batches on ``device``."""
        planes = self.planes
        if device.type == "cuda":
            wanted = sum(plane.nbytes for plane in planes.values())
            if wanted < _GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
                planes = {name: plane.to(device) for name, plane in planes.items()}
        moved = {name: getattr(self, name).to(device) for name in _SMALL}
        return replace(self, planes=planes, **moved)


_SMALL = ("aspect", "box_xyxy", "share", "distractors")


def decode(
    rows: Sequence[TrainingRow],
    side: int,
    folder: Path,
    *,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Bank:
    """Decode ``rows`` into a folder in ``folder``, or use what an earlier call left there.

    Several processes may call it at once: one decodes, the others wait. The folder's name depends
    on the files, as they are now, and on ``side``; folders that are not in use may be removed.

    Args:
        rows: the pictures, in the order of the bank.
        side: of the stored squares, in pixels; should be a little above the network's input.
        folder: for the arrays, 5 bytes a stored pixel; made if missing.
        threads: at most as many pictures are decoded at a time.
        progress: called with the number of decoded pictures, now and then.

    Raises:
        DataError: pictures or masks cannot be used (it names all of them), or the disk is full.
            Half-written arrays are never used.
    """
    key = _key(rows, side)
    place = folder / key[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not (place / _DESCRIPTION).is_file():
            for stale in folder.glob(f"*{TEMPORARY}"):  # of a run that was killed
                shutil.rmtree(stale)
            staging = folder / f"{place.name}{TEMPORARY}"
            staging.mkdir()
            try:
                description = _decode_all(rows, side, staging, threads, progress)
                (staging / _DESCRIPTION).write_text(json.dumps(description), "utf-8")
                os.replace(staging, place)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    known = json.loads((place / _DESCRIPTION).read_text("utf-8"))
    pasted = [number for number, row in enumerate(rows) if row.has_distractor]
    return Bank(
        folder=place,
        planes={name: mapped(place / f"{name}.npy") for name in PLANES},
        aspect=torch.tensor(known["aspect"]),
        box_xyxy=torch.tensor(known["boxes"]),
        share=torch.tensor([row.share for row in rows]),
        kinds=[row.kind for row in rows],
        distractors=torch.tensor(pasted, dtype=torch.long),
    )


def mapped(path: Path) -> Tensor:
    """An array of a file, mapped into memory; writing to it does not change the file."""
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def _decode_all(
    rows: Sequence[TrainingRow],
    side: int,
    folder: Path,
    threads: int | None,
    progress: Callable[[int], None] | None,
) -> dict[str, Any]:
    room, wanted = shutil.disk_usage(folder).free, len(rows) * side**2 * sum(PLANES.values())
    if wanted > room:
        # Writing to a mapped file on a full disk would kill the process without a message.
        raise DataError(
            f"{folder.parent}: {len(rows)} pictures of {side}x{side} take "
            f"{wanted / 1e9:.1f} GB, and {room / 1e9:.1f} GB are free; make room, choose another "
            "--cache, or a smaller --side."
        )
    arrays = {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", "w+", np.uint8, (len(rows), channels, side, side)
        )
        for name, channels in PLANES.items()
    }
    aspects, boxes = [1.0] * len(rows), [[0.0] * 4] * len(rows)
    failures: dict[int, str] = {}

    def fill(number: int) -> None:
        try:
            picture = decoded(rows[number], side)
        except DataError as error:
            failures[number] = str(error)
            return
        for name, array in arrays.items():
            array[number] = getattr(picture, name)
        aspects[number], boxes[number] = picture.aspect, _hull(picture.alpha)

    pool = ThreadPoolExecutor(threads or min(os.cpu_count() or 1, 16))
    try:
        waiting = [pool.submit(fill, number) for number in range(len(rows))]
        for done, future in enumerate(as_completed(waiting), start=1):
            future.result()
            if progress is not None:
                progress(done)
    finally:
        pool.shutdown(cancel_futures=True)
    if failures:
        raise DataError("\n".join(failures[number] for number in sorted(failures)))
    for array in arrays.values():
        array.flush()
    return {"aspect": aspects, "boxes": boxes}


def _hull(alpha: npt.NDArray[np.uint8]) -> list[float]:
    """Left, top, right and bottom, in 0…1, of the pixels that are more than a haze."""
    seen = alpha > 100
    if not seen.any():
        return [0.0, 0.0, 0.0, 0.0]
    (top, bottom), (left, right) = (np.nonzero(seen.any(axis))[0][[0, -1]] for axis in (1, 0))
    return [float(value) / len(alpha) for value in (left, top, right + 1, bottom + 1)]


def _key(rows: Sequence[TrainingRow], side: int) -> str:
    """A hash of everything that the arrays depend on."""
    digest = hashlib.sha256(f"{side}".encode())
    for part in _parts(rows):
        digest.update(part.encode(errors="backslashreplace"))
    return digest.hexdigest()


def _parts(rows: Sequence[TrainingRow]) -> Iterator[str]:
    for row in rows:
        yield f"\n{row.kind} {row.band} {row.extra.get('boxes')}"
        for file in row.files:
            about = file.stat()
            yield f"\t{file} {about.st_size} {about.st_mtime_ns}"
