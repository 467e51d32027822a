"""After a half-decoder run: fit the full-resolution parts that it left out."""

from __future__ import annotations

import math

import torch

from u2net_human_plugin.u2net import FULL_RESOLUTION_PARTS, U2Net, fold_batch_norm

from .dataset import PeopleDataset
from .losses import deep_supervision
from .run import Run, StopRequest, batches, progress_bar, rate_at


def fit_full_resolution(
    run: Run, model: U2Net, dataset: PeopleDataset, stop_request: StopRequest
) -> None:
    """Train only what the half decoder left out, so that d0 and d1 fit the rest again."""
    model.decoder = "full"
    model = run.config.laid_out(fold_batch_norm(model)).to(run.accelerator.device)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.split(".")[0] in FULL_RESOLUTION_PARTS)
    optimizer = torch.optim.Adam(
        [parameter for parameter in model.parameters() if parameter.requires_grad], run.config.rate
    )
    steps = run.config.full_decoder_steps
    prepared, optimizer = run.accelerator.prepare(model, optimizer)
    with progress_bar(run.accelerator) as progress:
        task = progress.add_task("full decoder", total=steps, loss=math.nan)
        for step, batch in enumerate(batches(run, dataset, run.total, run.total + steps)):
            for group in optimizer.param_groups:
                group["lr"] = rate_at(step, steps, run.config.rate, steps // 10)
            outputs = prepared(batch["image"])[:2]
            loss = deep_supervision(
                outputs,
                batch["alpha"],
                batch["weight"],
                edge=run.config.edge,
                iou=run.config.iou,
            )
            optimizer.zero_grad()
            run.accelerator.backward(loss)
            optimizer.step()
            progress.update(task, completed=step + 1, loss=float(loss.detach()))
            stop_request.check(run.accelerator)
    model.cpu().eval()
