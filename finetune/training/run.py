"""The state of a training run, and how it is saved and resumed."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from u2net_human_plugin.errors import DataError, PluginError
from u2net_human_plugin.u2net import SaliencyNetwork

from . import checkpoints
from .batch import Batch, Batches
from .checkpoints import LAST
from .config import FREE, TrainConfig, options
from .config_file import RUN_FILE
from .forgetting import Remembering

BEST = "best.pt"


class Supply:
    """This process's part of every batch, by the batch's number.

    On a GPU the next batch is made on a stream of its own while a step is being computed.

    Args:
        draw: makes the batch of a number.
        device: on which it makes them.
    """

    def __init__(self, draw: Callable[[int], Batch], device: torch.device) -> None:
        self._draw = draw
        on_gpu = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call]
        self._waiting: tuple[int, Batch] | None = None

    def __call__(self, number: int) -> Batch:
        """The batch, made now unless it was prepared."""
        if self._stream is None or self._waiting is None or self._waiting[0] != number:
            return self._draw(number)
        _, batch = self._waiting
        self._waiting = None
        current = torch.cuda.current_stream()
        current.wait_stream(self._stream)
        for tensor in batch:
            if tensor is not None:
                tensor.record_stream(current)  # not to be reused before this stream is done
        return batch

    def prepare(self, number: int) -> None:
        """Start making that batch, if the device can do so beside the step that it computes."""
        if self._stream is not None:
            with torch.cuda.stream(self._stream):
                self._waiting = number, self._draw(number)


@dataclass
class Run:
    """The state of one run."""

    config: TrainConfig
    accelerator: Accelerator
    model: nn.Module
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    total: int
    data: dict[str, Any]
    step: int = 0
    best: float = -math.inf
    losses: list[float] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def network(self) -> SaliencyNetwork:
        """The network that is trained, without its wrappers."""
        model = self.accelerator.unwrap_model(self.model)
        network = model.network if isinstance(model, Remembering) else model
        assert isinstance(network, SaliencyNetwork)
        return network

    def record(self) -> dict[str, Any]:
        """The JSON twin of a checkpoint: the run's record."""
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
            "pictures": self.step * self.config.batch_size,
            "seconds": round(self.seconds, 1),
            "best": self.best if self.history else None,
            "history": self.history,
            "losses": [round(loss, 6) for loss in self.losses],
        }

    def save(self, name: str) -> None:
        """Write a checkpoint from which the run can go on."""
        if self.accelerator.is_main_process:
            content = {
                "model": checkpoints.official_state(self.average.module),  # type: ignore[arg-type]
                "raw": self.accelerator.unwrap_model(self.model).state_dict(),
                "ema": self.average.module.state_dict(),
                "ema_steps": int(self.average.n_averaged) - 1,  # less the starting point
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

    def restore(self, content: Mapping[str, Any]) -> None:
        """Restore the state that :func:`resumable` returned."""
        self.accelerator.unwrap_model(self.model).load_state_dict(content["raw"])
        self.average.module.load_state_dict(content["ema"])
        self.average.n_averaged.fill_(content["ema_steps"] + 1)
        self.optimizer.load_state_dict(content["optimizer"])
        self.step, self.best = content["step"], content["best"]
        self.losses, self.history = content["losses"], content["history"]
        self.seconds = content["seconds"]


def saved_config(out: Path) -> TrainConfig | None:
    """The arguments of the run in ``out``; None if there is no run.

    Raises:
        DataError: they cannot be read.
    """
    twin = (out / LAST).with_suffix(".json")
    if not twin.is_file() or not (out / LAST).is_file():
        return None
    try:
        return TrainConfig.of_record(json.loads(twin.read_text("utf-8"))["arguments"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{twin}: does not describe a run ({type(error).__name__}: {error}); it belongs to "
            f"{LAST}, without which --resume cannot go on."
        ) from None


def no_run(out: Path) -> DataError:
    """The error of a run to go on with that is not in ``out``, with what starts one there."""
    last, told = out / LAST, out / RUN_FILE
    missing = last if not last.is_file() else last.with_suffix(".json")
    remedy = "no run is there; see to --out, or start one with --manifest"
    if told.is_file():
        begin = shlex.join(["train", "--config", str(told), "--out", str(out)])
        remedy = f"start the run that {RUN_FILE} describes with `{begin}`"
    return DataError(f"no run to go on with in {out}: there is no {missing} yet; {remedy}.")


def resumable(path: Path, config: TrainConfig, data: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint that a run of ``config`` can go on from.

    Raises:
        DataError: it is damaged, or of a run with other arguments or pictures.
    """
    content = checkpoints.load(path)
    mine, saved = config.record(), content["arguments"]
    shown = {option.name: option.key for option in options()}
    for key, value in mine.items():
        if key == "epochs" and value > saved[key]:
            continue  # the schedule becomes longer; the learning rate is that of the new one
        if key == "epochs" and value < saved[key]:
            raise DataError(
                f"{path}: was made with --epochs {saved[key]}, not {value}; a run can be made "
                "longer, not shorter: give more epochs, or --finish to end it where it is."
            )
        if key not in FREE and saved.get(key) != value:
            raise DataError(
                f"{path}: was made with --{shown[key]} {saved.get(key)!r}, not {value!r}; resume "
                "with the same arguments, or start anew in another --out."
            )
    if content["data_sha256"] != data["sha256"]:
        raise DataError(
            f"{path}: was trained on other pictures than {', '.join(mine['manifests'])} names "
            "now, or in another order; bring them back, or start anew in another --out "
            "(--init takes these weights)."
        )
    return content


class DivergedError(PluginError):
    """A loss or a gradient is not finite; to go on would be of no use."""


def finite(run: Run, loss: Tensor, lr: float, what: str = "loss") -> float:
    """The value of ``loss``, averaged over all processes.

    Raises:
        DivergedError: it is not finite; the message says from which checkpoint to go on.
    """
    value = float(run.accelerator.reduce(loss.detach(), "mean"))
    if math.isfinite(value):
        return value
    # The best checkpoint was validated; the last one may already have begun to diverge.
    good = run.config.out / (BEST if run.history else LAST)
    state = checkpoints.record_of(good) if good.is_file() else None
    remedy = (
        f"the last good checkpoint is {good} of step {state['step']}: start from it with "
        f"--init {good}, another --out and a lower --lr"
        if state
        else "no checkpoint had been saved before; start again with a lower --lr"
    )
    raise DivergedError(
        f"the {what} is {value} at step {run.step}, at a learning rate of {lr:.2e}; {remedy}."
    )


def lr_at(step: int, total: int, peak: float, warmup: int) -> float:
    """Learning rate: linear warm-up to ``peak``, then a cosine down to a hundredth of it."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(total - warmup, 1)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1))))


def share_of(batches: Batches, config: TrainConfig, accelerator: Accelerator) -> Supply:
    """This process's part of every batch, which it draws by itself.

    Raises:
        DataError: a batch cannot be shared out evenly.
    """
    processes, index = accelerator.num_processes, accelerator.process_index
    count, rest = divmod(config.batch_size, processes)
    if rest:
        raise DataError(
            f"--batch-size {config.batch_size}: cannot be shared out among {processes} "
            f"processes; choose a multiple of {processes}."
        )
    return Supply(
        lambda number: batches.draw(number * processes + index, count, config.size),
        accelerator.device,
    )


def _hardware() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{os.cpu_count()} {platform.machine()} CPU cores, no GPU"
