"""A training run's arguments and moving parts, and how it is saved, resumed and stopped."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor
from torch.utils.data import DataLoader

from u2net_human_plugin.errors import DataError
from u2net_human_plugin.preprocess import SIZE
from u2net_human_plugin.u2net import Decoder, U2Net, Variant

from . import checkpoints
from .dataset import Mix, PeopleDataset


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes, and (last) how it is carried out."""

    manifests: tuple[Path, ...]
    out: Path
    init: Path | None = None
    variant: Variant = "lite"
    decoder: Decoder = "half"
    size: int = SIZE
    batch: int = 8
    epochs: int = 50
    #: Pictures per epoch; 0, as many as there are photos with a mask.
    epoch_size: int = 0
    #: The paper trains from nothing with Adam at 1e-3; a start from good weights wants less.
    rate: float = 3e-4
    warmup: int = 100
    ema: float = 0.998
    edge: float = 2.0
    iou: float = 0.0
    batch_norm: Literal["frozen", "live"] = "frozen"
    #: Share of the run for which the encoder keeps its weights.
    freeze_encoder: float = 0.0
    coarse: dict[str, int] = field(default_factory=dict)
    #: How often each kind of picture is drawn, see :class:`.dataset.Mix`.
    mix: Mix = field(default_factory=Mix)
    seed: int = 0
    #: Steps that fit the full-resolution decoder stage after a half-decoder run.
    full_decoder_steps: int = 100
    validation_pictures: int = 48
    validate_every: int = 200
    save_every: int = 50
    workers: int = 1
    device: str = "auto"
    #: bf16: convolutions in bfloat16, weights and loss in float32.
    precision: Literal["fp32", "bf16"] = "fp32"

    #: A resumed run may differ from its start in these.
    FREE = ("out", "validate_every", "save_every", "workers", "device", "full_decoder_steps")

    def laid_out(self, model: U2Net) -> U2Net:
        """``model`` with its weights in the memory layout that suits the precision, in place."""
        if self.precision == "bf16":  # the convolutions are half as fast on the usual layout
            return model.to(memory_format=torch.channels_last)
        return model

    def record(self) -> dict[str, Any]:
        """As plain JSON values."""
        plain = dataclasses.asdict(self)
        plain["manifests"] = [str(path) for path in self.manifests]
        return {
            key: str(value) if isinstance(value, Path) else value for key, value in plain.items()
        }


@dataclass
class Run:
    """The moving parts of one run."""

    config: TrainConfig
    accelerator: Accelerator
    model: U2Net
    ema: checkpoints.Ema
    optimizer: torch.optim.Optimizer
    total: int
    data: dict[str, Any]
    step: int = 0
    best: float = -math.inf
    losses: list[float] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0

    def record(self) -> dict[str, Any]:
        """The JSON twin of a checkpoint."""
        return {
            "arguments": self.config.record(),
            "data": self.data,
            "commit": checkpoints.git_commit(),
            "torch": torch.__version__,
            "device": str(self.accelerator.device),
            "hardware": _hardware(),
            "processes": self.accelerator.num_processes,
            "step": self.step,
            "steps": self.total,
            "pictures": self.step * self.config.batch,
            "seconds": round(self.seconds, 1),
            "best": self.best if self.history else None,
            "history": self.history,
            "losses": [round(loss, 6) for loss in self.losses],
        }

    def save(self, name: str) -> None:
        """Write a checkpoint from which the run can go on."""
        if self.accelerator.is_main_process:
            content = {
                "model": checkpoints.official_state(self.ema.model),  # type: ignore[arg-type]
                "raw": self.accelerator.unwrap_model(self.model).state_dict(),
                "ema": self.ema.model.state_dict(),
                "ema_steps": self.ema.steps,
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "best": self.best,
                "losses": self.losses,
                "history": self.history,
                "seconds": self.seconds,
                "arguments": self.config.record(),
                "data_sha256": self.data["sha256"],
            }
            checkpoints.save(self.config.out / name, content, self.record())

    def restore(self, path: Path) -> None:
        """Take up where ``path`` left off."""
        content = checkpoints.load(path)
        mine, saved = self.config.record(), content["arguments"]
        for key, value in mine.items():
            if key not in TrainConfig.FREE and saved.get(key) != value:
                raise DataError(
                    f"{path}: was made with --{key.replace('_', '-')} {saved.get(key)!r}, not "
                    f"{value!r}; resume with the same arguments, or start anew in another --out."
                )
        # Earlier versions kept the second one, which knows nothing of order and held-back rows.
        known = (self.data["sha256"], self.data["unordered_sha256"])
        if content.get("data_sha256", known[0]) not in known:
            raise DataError(
                f"{path}: was trained on other pictures than {', '.join(mine['manifests'])} names "
                "now, or in another order; bring them back, or start anew in another --out "
                "(--init takes these weights)."
            )
        self.accelerator.unwrap_model(self.model).load_state_dict(content["raw"])
        self.ema.model.load_state_dict(content["ema"])
        self.ema.steps = content["ema_steps"]
        self.optimizer.load_state_dict(content["optimizer"])
        self.step, self.best = content["step"], content["best"]
        self.losses, self.history = content["losses"], content["history"]
        self.seconds = content["seconds"]


def rate_at(step: int, total: int, peak: float, warmup: int) -> float:
    """Learning rate: linear warm-up to ``peak``, then a cosine down to a hundredth of it."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(total - warmup, 1)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1))))


def batches(run: Run, dataset: PeopleDataset, first: int, end: int) -> Iterator[dict[str, Tensor]]:
    """Batches number ``first`` up to ``end``, this process's share of each, on its device."""
    config = run.config
    if first >= end:
        return
    loader = DataLoader(
        dataset,
        batch_size=config.batch,
        sampler=range(first * config.batch, end * config.batch),
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        worker_init_fn=_leave_process_group,
        pin_memory=run.accelerator.device.type == "cuda",
    )
    try:
        yield from run.accelerator.prepare(loader)
    except DataError as error:
        # Out of another process it comes with that one's traceback before the message.
        message = str(error).rpartition(f"{type(error).__name__}: ")[2].strip()
        raise DataError(message) from None


def _leave_process_group(_worker: int) -> None:
    """Let a signal to the run's whole group, as from Ctrl-C, reach the run alone.

    A worker that died of it would break off the step the run is in, or the saving of its state.
    """
    if hasattr(os, "setpgrp"):  # not on Windows
        os.setpgrp()


def progress_bar(accelerator: Accelerator) -> Progress:
    """A bar with loss and time left, on the main process only."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        disable=not accelerator.is_main_process,
    )


def _hardware() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{os.cpu_count()} {platform.machine()} CPU cores, no GPU"


class Stop(Exception):  # noqa: N818 - not an error: the run ends early but in order
    """Raised in the loop when the run has to end early; ``last.pt`` is then written."""


class StopRequest:
    """Within it, Ctrl-C and SIGTERM, or a deadline, end the run between two steps.

    An exception out of a signal handler could strike in the middle of an optimizer step,
    and what is saved then would be no state the run ever had.
    """

    def __init__(self, minutes: float | None) -> None:
        self.deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self.reason = ""

    def __enter__(self) -> StopRequest:
        self.before = {
            number: signal.signal(number, self._request)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def check(self, accelerator: Accelerator) -> None:
        """Raise :class:`Stop` if any process of the run has been asked to end.

        All of them have to call it after the same steps: one that went on alone would wait
        for the others' gradients for ever.
        """
        if time.monotonic() > self.deadline:
            self.reason = "time is up"
        asked = bool(self.reason)
        if accelerator.num_processes > 1:
            answer = torch.tensor(float(asked), device=accelerator.device)
            asked = bool(accelerator.reduce(answer, "sum"))
        if asked:
            raise Stop(self.reason or "another process was asked to stop")

    def _request(self, number: int, _frame: object) -> None:
        if self.reason:  # asked twice: at once, whatever is lost
            raise KeyboardInterrupt
        self.reason = signal.Signals(number).name
