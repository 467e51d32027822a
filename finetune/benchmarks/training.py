"""python -m finetune benchmark training: training speed against a plain loop, measured in turn.

The plain loop is what one would write first: the lite network with live batch
normalisation, glibc's default allocator, a sigmoid and a `BCELoss` for each of the seven
outputs. Every measurement runs in a process of its own, because what the allocator is told
holds for all of a process; the contestants alternate, so that a machine whose speed drifts
slows all of them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Annotated, Literal

import typer

Loop = Literal["plain", "full", "half", "bf16"]
_LOOPS: tuple[Loop, ...] = ("plain", "full", "half", "bf16")


def training(
    size: Annotated[int, typer.Option(help="Input side in pixels.")] = 256,
    batch: Annotated[int, typer.Option(help="Pictures a step.")] = 8,
    steps: Annotated[int, typer.Option(help="Timed steps per measurement.")] = 4,
    rounds: Annotated[int, typer.Option(help="Measurements of each loop, in turn.")] = 3,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    loop: Annotated[str, typer.Option(hidden=True, help="Measure this one, here and now.")] = "",
) -> None:
    """Compare images per second: a plain loop, our full and our half decoder, that in bfloat16."""
    if loop:
        typer.echo(json.dumps(_measure(loop, size, batch, steps)))
        return
    speeds: dict[Loop, list[float]] = {name: [] for name in _LOOPS}
    for _ in range(rounds):
        for name in _LOOPS:
            speeds[name].append(_in_own_process(name, size, batch, steps))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    result = {
        "size": size,
        "batch": batch,
        "images_per_second": {name: round(value, 3) for name, value in medians.items()},
        "times_plain": {
            name: round(statistics.median(a / b for a, b in zip(values, speeds["plain"])), 2)  # noqa: B905
            for name, values in speeds.items()
        },
    }
    if json_output:
        typer.echo(json.dumps(result, indent=2))
        return
    for name in _LOOPS:
        speed, ratio = medians[name], result["times_plain"][name]  # type: ignore[index]
        typer.echo(f"{name:6} {speed:7.3f} images/s  {ratio:5.2f} x plain")


def _in_own_process(name: Loop, size: int, batch: int, steps: int) -> float:
    environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    program = __package__.rpartition(".")[0]
    command = [sys.executable, "-m", program, "benchmark", "training", "--loop", name]
    for option, value in (("--size", size), ("--batch", batch), ("--steps", steps)):
        command += [option, str(value)]
    done = subprocess.run(  # noqa: S603 - this very program
        command,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout))


def _measure(loop: str, size: int, batch: int, steps: int) -> float:
    """Images per second over ``steps`` training steps, after two that do not count."""
    import torch
    from torch import Tensor, nn

    from u2net_human_plugin.u2net import U2Net, fold_batch_norm

    from ..training.losses import deep_supervision
    from ..training.memory import keep_freed_memory

    if loop != "plain":
        keep_freed_memory()
    torch.manual_seed(0)
    in_bfloat16 = loop == "bf16"
    model = U2Net("lite", "half" if loop in ("half", "bf16") else "full").train()
    if loop != "plain":
        fold_batch_norm(model)
    if in_bfloat16:
        model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    images = torch.rand(batch, 3, size, size)
    alpha = (torch.rand(batch, 1, size, size) > 0.5).float()
    weight = torch.ones_like(alpha)
    criterion = nn.BCELoss()

    def plain_loss(outputs: list[Tensor]) -> Tensor:
        total: Tensor = sum(criterion(torch.sigmoid(output), alpha) for output in outputs)
        return total

    began = 0.0
    for step in range(steps + 2):
        if step == 2:
            began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
            outputs = model(images)
        if loop == "plain":
            loss = plain_loss(outputs)
        else:
            loss = deep_supervision(outputs, alpha, weight, edge=2.0)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return steps * batch / (time.perf_counter() - began)
