"""Fitting the full-resolution decoder after a run that trained the half decoder."""

from __future__ import annotations

import torch

from u2net_human_plugin.u2net import FULL_RESOLUTION_PARTS, U2Net, fold_batch_norm

from .losses import deep_supervision
from .progress import progress
from .run import Run, Supply, finite, lr_at
from .stop import StopRequest


def fit_full_resolution(run: Run, model: U2Net, supply: Supply, stop_request: StopRequest) -> None:
    """Train only the parts that the half decoder lacks, so that d0 and d1 fit the rest again."""
    model.decoder = "full"
    run.config.laid_out(fold_batch_norm(model)).to(run.accelerator.device)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.split(".")[0] in FULL_RESOLUTION_PARTS)
    optimizer = torch.optim.Adam(
        [parameter for parameter in model.parameters() if parameter.requires_grad], run.config.lr
    )
    steps = run.config.full_decoder_steps
    prepared, optimizer = run.accelerator.prepare(model, optimizer)
    main = run.accelerator.is_main_process
    with progress("full decoder", steps, shown=main) as advance:
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = lr_at(step, steps, run.config.lr, steps // 10)
            batch = supply(run.total + step)
            outputs = prepared(batch.image)[:2]
            loss = deep_supervision(outputs, batch.alpha, batch.weight, **run.config.loss_weights)
            value = finite(run, loss, optimizer.param_groups[0]["lr"])
            optimizer.zero_grad()
            run.accelerator.backward(loss)
            optimizer.step()
            advance(step + 1, f"loss {value:.4f}")
            stop_request.check(run.accelerator)
    model.cpu().eval()
