"""python -m finetune benchmark training: the speed of a training step, against a plain loop.

The plain loop is what a first version would be: the network with live batch normalisation, glibc's
default allocator, and a sigmoid and a `BCELoss` for each of the seven outputs. All loops use one
batch again and again; "data" measures instead how fast `train` makes its batches. Every measurement
runs in its own process, because the allocator's settings hold for a whole process. The loops are
measured in turn, so that a machine that becomes slower slows all of them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    import torch

    from u2net_human_plugin.u2net import Variant

Loop = Literal["plain", "full", "half", "bf16", "data"]
_LOOPS: tuple[Loop, ...] = ("plain", "full", "half", "bf16", "data")
#: How many decoded pictures "data" makes its batches from.
_PICTURES = 64


def training(
    size: Annotated[int, typer.Option(help="Input side in pixels.")] = 256,
    batch: Annotated[int, typer.Option(help="Pictures in a step.")] = 8,
    steps: Annotated[int, typer.Option(help="Timed steps in a measurement.")] = 4,
    variant: Annotated[str, typer.Option(help="full, wide or lite.")] = "lite",
    device: Annotated[str, typer.Option(help="auto (a GPU if there is one) or cpu.")] = "auto",
    rounds: Annotated[int, typer.Option(help="How many times each loop is measured.")] = 3,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    loop: Annotated[
        str, typer.Option(hidden=True, help="Measure this loop alone, in this process.")
    ] = "",
) -> None:
    """Images per second: a plain loop, the full and the half decoder, bfloat16, making batches."""
    for name, value, valid in (
        ("variant", variant, ("full", "wide", "lite")),
        ("device", device, ("auto", "cpu")),
    ):
        if value not in valid:
            raise typer.BadParameter(f"--{name} is {value!r}; choose from {', '.join(valid)}.")
    settings = {"size": size, "batch": batch, "steps": steps, "variant": variant, "device": device}
    if loop:
        typer.echo(json.dumps(_measure(loop, **settings)))  # type: ignore[arg-type]
        return
    speeds: dict[Loop, list[float]] = {name: [] for name in _LOOPS}
    for _ in range(rounds):
        for name in _LOOPS:
            speeds[name].append(_in_own_process(name, settings))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    result = {
        **settings,
        "device": _device_name(device),
        "images_per_second": {name: round(value, 3) for name, value in medians.items()},
        "times_plain": {
            name: round(statistics.median(a / b for a, b in zip(values, speeds["plain"])), 2)  # noqa: B905
            for name, values in speeds.items()
        },
    }
    if json_output:
        typer.echo(json.dumps(result, indent=2))
        return
    typer.echo(f"{variant} at {size}x{size}, batches of {batch}, {result['device']}")
    for name in _LOOPS:
        speed, ratio = medians[name], result["times_plain"][name]  # type: ignore[index]
        typer.echo(f"{name:6} {speed:7.3f} images/s  {ratio:5.2f} x plain")


def _in_own_process(name: Loop, settings: Mapping[str, object]) -> float:
    """Images per second of a loop, in a process that starts with glibc's default allocator."""
    environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    program = __package__.rpartition(".")[0]
    command = [sys.executable, "-m", program, "benchmark", "training", "--loop", name]
    for option, value in settings.items():
        command += [f"--{option}", str(value)]
    done = subprocess.run(  # noqa: S603 - this very program
        command,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout))


def _device_name(device: str) -> str:
    import torch

    if device == "auto" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} CPU threads"


def _measure(loop: str, size: int, batch: int, steps: int, variant: Variant, device: str) -> float:
    """Images per second over ``steps`` steps of a loop, after two that do not count."""
    import torch

    from ..training.memory import keep_freed_memory

    if loop != "plain":
        keep_freed_memory()
    torch.manual_seed(0)
    place = torch.device("cuda" if device == "auto" and torch.cuda.is_available() else "cpu")
    work = (
        _making(size, batch, place) if loop == "data" else _step(loop, size, batch, variant, place)
    )
    began = 0.0
    for number in range(steps + 2):
        if number == 2:
            _wait_for(place)
            began = time.perf_counter()
        work(number)
    _wait_for(place)
    return steps * batch / (time.perf_counter() - began)


def _wait_for(device: torch.device) -> None:
    """Wait until a GPU has done all its work: torch's calls return before it has."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _making(size: int, batch: int, device: torch.device) -> Callable[[int], object]:
    """Return a function that makes the batch of a number from decoded pictures, as `train` does."""
    import torch

    from ..training.bank import Bank
    from ..training.batch import Batches
    from ..training.recipe import Recipe

    side = -(-size * 11 // 160) * 16
    kinds = ["photo", "scene", "cutout", "distractor"]
    alpha = torch.zeros(_PICTURES, 1, side, side, dtype=torch.uint8)
    alpha[:, :, side // 4 :, side // 4 : -side // 4] = 255
    planes = {
        "rgb": torch.randint(0, 256, (_PICTURES, 3, side, side), dtype=torch.uint8),
        "alpha": alpha,
        "weight": torch.full_like(alpha, 255),
    }
    bank = Bank(
        folder=Path(),
        planes=planes,
        aspect=torch.ones(_PICTURES),
        box_xyxy=torch.tensor([[0.25, 0.25, 0.75, 1.0]]).repeat(_PICTURES, 1),
        share=torch.ones(_PICTURES),
        kinds=[kinds[number % 4] for number in range(_PICTURES)],  # type: ignore[misc]
        distractors=torch.arange(3, _PICTURES, 4),
    )
    batches = Batches(bank.on(device), Recipe())
    return lambda number: batches.draw(number, batch, size)


def _step(
    loop: str, size: int, batch: int, variant: Variant, device: torch.device
) -> Callable[[int], None]:
    """Return a function that takes one training step; its argument, a number, is not used."""
    import torch
    from torch import Tensor, nn

    from u2net_human_plugin.u2net import U2Net, fold_batch_norm

    from ..training.losses import deep_supervision

    in_bfloat16 = loop == "bf16"
    model = U2Net(variant, "half" if loop in ("half", "bf16") else "full").train()
    if loop != "plain":
        fold_batch_norm(model)
    if in_bfloat16:
        model.to(memory_format=torch.channels_last)
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    images = torch.rand(batch, 3, size, size, device=device)
    alpha = (torch.rand(batch, 1, size, size, device=device) > 0.5).float()
    weight = torch.ones_like(alpha)
    criterion = nn.BCELoss()

    def plain_loss(outputs: list[Tensor]) -> Tensor:
        total: Tensor = sum(criterion(torch.sigmoid(output), alpha) for output in outputs)
        return total

    def step(_number: int) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=in_bfloat16):
            outputs = [output.float() for output in model(images)]
        if loop == "plain":
            loss = plain_loss(outputs)
        else:
            loss = deep_supervision(outputs, alpha, weight, edge=2.0)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    return step
