"""Checkpoints: they survive a kill, and each can be traced back to how it was made.

Every checkpoint has a JSON twin, its record, with all arguments, the data's hash, the git commit
and the metrics so far. Both are written whole or not at all.
"""

from __future__ import annotations

import copy
import errno
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from u2net_human_plugin.errors import DataError, WeightsError
from u2net_human_plugin.u2net import SaliencyNetwork, unfold_batch_norm

from ..data.manifest import Row
from ..files import FULL, written_atomically

#: The newest state of a run, from which it goes on.
LAST = "last.pt"
#: Bytes; a disk on which a write failed with less than that free is full.
_ROOM = 1 << 20


def weight_average(network: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of a network's weights; the average is what gets evaluated.

    The decay warms up as (1 + step) / (10 + step), so that a short run is not dominated by its
    starting point. The counter of steps stays on the CPU, where reading it does not wait for a GPU.
    """

    def update(averages: Any, weights: Any, step: Tensor | int) -> None:
        if averages[0].is_floating_point():
            count = int(step)
            torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + count) / (10 + count)))
        else:  # batch normalisation counts its batches
            torch._foreach_copy_(averages, weights)

    average = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
    average.update_parameters(network)  # the library only copies the first call's weights
    return average.eval().requires_grad_(False)


def official_state(model: SaliencyNetwork) -> dict[str, Tensor]:
    """A complete state dict with the official keys, on the CPU; ``model`` is left alone."""
    return unfold_batch_norm(copy.deepcopy(model).cpu()).state_dict()


def save(path: Path, content: dict[str, Any], record: dict[str, Any]) -> None:
    """Write a checkpoint and its JSON twin; if either cannot be written, both stay as they were.

    The twin is renamed first: a kill in between leaves the old checkpoint with a newer record of
    the same run, never a checkpoint without a record.

    Raises:
        DataError: the disk is full, or may not be written to.
    """
    twin = path.with_suffix(".json")
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_atomically(path) as checkpoint, written_atomically(twin) as description:
            _save(content, checkpoint)
            description.write_text(text, "utf-8", errors="backslashreplace")
    except (OSError, RuntimeError) as error:
        full = isinstance(error, OSError) and error.errno in FULL
        reason = "the disk is full" if full else " ".join(str(error).split())[:200]
        kept = "; what was there before is still there" if path.is_file() else ""
        again = "go on with --resume" if path.with_name(LAST).is_file() else "start again"
        raise DataError(
            f"{path}: cannot be written ({reason}){kept}. Make room, or see to the folder's "
            f"permissions, then {again}."
        ) from None


def _save(content: dict[str, Any], path: Path) -> None:
    """torch.save, with the error of a full disk, which torch hides in one of its own."""
    try:
        torch.save(content, path)
    except RuntimeError:
        # Now, while what was written still takes the room.
        if shutil.disk_usage(path.parent).free < _ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        raise


def record_of(checkpoint: Path) -> dict[str, Any] | None:
    """The record of how a checkpoint was made, without the loss curve; None if it has no twin.

    If the run began with the result of another run, "started_from" is the other's record. Weights
    that `average` mixed in have theirs under "training" in an entry of "averaged".

    Raises:
        WeightsError: a twin is not a JSON object.
    """
    twin = checkpoint.with_suffix(".json")
    if not twin.is_file():
        return None
    try:
        record: dict[str, Any] | None = json.loads(twin.read_text("utf-8"))
        if not isinstance(record, dict):
            raise ValueError
    except ValueError:
        raise WeightsError(f"{twin}: not JSON; it should describe {checkpoint.name}.") from None
    if "training" in record:  # what `export` writes
        record = record["training"]
    if record is None:
        return None
    kept = {key: value for key, value in record.items() if key != "losses"}
    init = record.get("arguments", {}).get("init")
    # A stored record is right even if another file has that name now.
    earlier = kept.get("started_from") or (record_of(Path(init)) if init else None)
    return {**kept, "started_from": earlier} if earlier else kept


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint written by :func:`save`; no pickled code is run.

    Raises:
        DataError: it is damaged or not such a checkpoint.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not {"model", "ema", "optimizer", "step", "arguments", "data_sha256"} <= content.keys():
            raise ValueError("it lacks the training state")
    except Exception as error:  # noqa: BLE001 - torch raises pickle, zip, EOF, Runtime and Value errors here
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: cannot be resumed from ({type(error).__name__}: {reason}); remove it to "
            "start anew, or give it to --init if it holds weights only."
        ) from None
    return dict(content)


def data_hash(training: Sequence[Row], held: Sequence[Row] = ()) -> str:
    """SHA-256, hexadecimal, of the rows that a run trains on and of those that it holds back.

    It covers each row's name, split, licence and, if known, content, and their order, on which the
    drawn samples depend.
    """
    digest = hashlib.sha256()
    for part in chain(_content(training), [b"\n"], _content(held)):
        digest.update(part)
    return digest.hexdigest()


def _content(rows: Iterable[Row]) -> Iterator[bytes]:
    for row in rows:
        fields = (row.source, row.image.name, row.split, row.licence, row.extra.get("sha256"))
        yield json.dumps(fields).encode()
        if row.bystanders is not None:
            yield row.bystanders.read_bytes()


def git_commit() -> str | None:
    """The checkout's commit, with "-dirty" if files differ from it; None outside of a checkout.

    An installed module may lie inside another project's checkout, whose commit means nothing.
    """
    folder = Path(__file__).parent
    if not (folder.parents[1] / "pyproject.toml").is_file():
        return None
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty"],  # noqa: S607 - user's git
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
