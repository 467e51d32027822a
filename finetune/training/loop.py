r"""python -m finetune train: fine-tune U²-Net on people.

A trial that takes a minute on a laptop:

    python -m finetune train --manifest data/manifest.jsonl --out runs/try \
        --init u2netp.onnx --epochs 1 --epoch-size 32 --size 128 --batch-size 4

A real run, on the CPU, on one GPU, or with `accelerate launch -m finetune train …` on many:

    python -m finetune train --manifest data/manifest.jsonl --out runs/people --init u2netp.onnx
"""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path

import torch
from accelerate import Accelerator

from u2net_human_plugin.checkpoint import load_checkpoint
from u2net_human_plugin.u2net import U2Net

from ..data.manifest import read_manifest
from ..data.splits import in_split
from ..evaluation.run_report import REPORT, best_validation, run_html
from ..files import write_text
from . import checkpoints
from .batch import Batches
from .batch_norm import calibrate
from .checkpoints import LAST
from .config import TrainConfig
from .config_file import RUN_FILE, write_config
from .dataset import Material
from .forgetting import memory_loss
from .full_decoder import fit_full_resolution
from .losses import deep_supervision
from .progress import progress
from .run import BEST, Run, Supply, finite, lr_at, share_of
from .start import (
    bank_of,
    describe,
    groups,
    has_batch_norm,
    initial_network,
    saved_state,
    with_memory,
)
from .stop import Stop, StopRequest
from .training_rows import training_rows
from .validation import ValidationSet, predict, validate, validation_sets

FINAL = "u2net_finetuned.pth"


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    finish: bool = False,
    minutes: float | None = None,
) -> Path | None:
    """Run or resume a training; return the final checkpoint, or None if it ended early.

    With ``finish`` a stopped run trains no further: its best weights become the final
    checkpoint. Ending early (``minutes`` over, Ctrl-C, SIGTERM) writes ``last.pt``, from
    which ``resume=True`` goes on with the same pictures and losses as an uninterrupted run.

    Raises:
        DataError: the manifest, or the run to resume, cannot be used.
        WeightsError: ``config.init`` is no U²-Net checkpoint.
    """
    # ---- data
    rows = [row for path in config.manifests for row in read_manifest(path)]
    training = [row for row in rows if in_split(row, "train")]
    held = [row for row in rows if in_split(row, "val")]
    chosen = training_rows(training, config.coarse, config.recipe.sources)
    data = describe(training, held)
    saved = saved_state(config, data, resume or finish, finish)
    accelerator = Accelerator(
        cpu=config.device == "cpu",
        mixed_precision="bf16" if config.precision == "bf16" else "no",
        log_with="tensorboard",
        project_dir=str(config.out),
    )

    # ---- model, optimizer
    torch.manual_seed(config.seed)
    torch.backends.cudnn.benchmark = True  # all steps have the same shapes: one search serves all
    network = initial_network(config)
    bank = bank_of(chosen, config, accelerator)
    batches = Batches(bank.on(accelerator.device), config.recipe, config.seed)
    if config.batch_norm == "live" and not has_batch_norm(network):
        pictures = batches.draw(0, 32, config.size).image.cpu()
        calibrate(network, torch.split(pictures, config.batch_size))
    model = with_memory(network, config)
    optimizer = torch.optim.Adam(groups(model, config), lr=config.lr)
    epoch = config.epoch_size or sum(row.kind in ("photo", "cutout") for row in chosen)
    total = config.epochs * math.ceil(epoch / config.batch_size)
    run = Run(
        *(config, accelerator, model, checkpoints.weight_average(network, config.ema), optimizer),
        *(total, data),
    )
    if saved is not None:
        run.restore(saved)
        if run.step == run.total and (config.out / FINAL).is_file():
            accelerator.print(
                f"the run is complete, with all its {total} steps; "
                f"--resume with more than --epochs {config.epochs} makes it longer"
            )
    run.model, run.optimizer = accelerator.prepare(config.laid_out(model), optimizer)
    run.average.module.to(accelerator.device)
    supply = share_of(batches, config, accelerator)

    # ---- loop
    if accelerator.is_main_process:
        write_config(config, config.out / RUN_FILE)
    # What a killed run logged after its last state would be shown beside what comes now.
    purge = {"tensorboard": {"purge_step": run.step + 1}} if saved is not None else {}
    accelerator.init_trackers("tensorboard", init_kwargs=purge)
    stop_request = StopRequest(minutes)
    try:
        with stop_request:
            if not finish:
                people = any(row.mask is not None for row in held)
                kept = Material(held, config.coarse) if people else None
                _loop(run, supply, _validation(accelerator, kept, config), stop_request)
            final = _finish(run, supply, stop_request)
    except Stop as stop:
        run.save(LAST)
        accelerator.wait_for_everyone()  # a process that ends would end the others while they write
        why = f"at step {run.step} of {total} ({stop})"
        accelerator.print(f"stopped {why}; go on with --resume")
        return None
    finally:
        accelerator.end_training()
    if accelerator.is_main_process and config.cache is None:
        shutil.rmtree(config.pictures, ignore_errors=True)
    return final


def _loop(run: Run, supply: Supply, sets: list[ValidationSet], stop_request: StopRequest) -> None:
    config, accelerator = run.config, run.accelerator
    encoder = list(run.network.encoder())
    thawing = round(config.freeze_encoder * run.total)
    if not run.history and sets:
        _validate(run, sets)  # the starting weights
    main = accelerator.is_main_process
    with progress("step", run.total, run.step, shown=main) as advance:
        began, before = time.monotonic(), run.seconds
        while run.step < run.total:
            run.model.train()
            lr = lr_at(run.step, run.total, config.lr, config.warmup)
            for group in run.optimizer.param_groups:
                group["lr"] = lr * group["factor"]
            batch = supply(run.step)
            outputs = run.model(batch.image)
            memory = torch.zeros((), device=batch.image.device)
            if batch.before is not None:
                outputs, remembered = outputs
                memory = memory_loss(remembered, batch.before, batch.before_weight)
            loss = deep_supervision(outputs, batch.alpha, batch.weight, **config.loss_weights)
            loss = loss + config.remember_weight * memory
            run.optimizer.zero_grad()
            accelerator.backward(loss)
            if run.step < thawing:
                for parameter in encoder:
                    parameter.grad = None
            norm = accelerator.clip_grad_norm_(run.model.parameters(), 5.0)
            run.optimizer.step()
            run.average.update_parameters(run.network)
            if run.step + 1 < run.total:
                supply.prepare(run.step + 1)
            # Only now, because reading a value waits for the GPU, which has all its work by now.
            # Nothing has been saved yet.
            value = finite(run, loss, lr)
            finite(run, torch.as_tensor(norm, device=loss.device), lr, "gradient's norm")

            run.step += 1
            run.losses.append(value)
            run.seconds = before + time.monotonic() - began
            recent = run.losses[-50:]
            advance(run.step, f"loss {sum(recent) / len(recent):.4f}")
            values = {"loss": value, "lr": lr}
            if batch.before is not None:
                values["memory"] = float(memory.detach())
            accelerator.log(values, run.step)
            if run.step % config.validate_every == 0 or run.step == run.total:
                _validate(run, sets)
            if run.step % config.save_every == 0 or run.step == run.total:
                run.save(LAST)
            stop_request.check(accelerator)


def _validate(run: Run, sets: list[ValidationSet]) -> None:
    """Measure the averaged weights; keep them if they are the best so far."""
    if not sets:
        return
    device = run.accelerator.device
    results = validate(run.average.module, sets, device)
    run.history.append({"step": run.step, **{key: round(v, 5) for key, v in results.items()}})
    shown = "  ".join(f"{key} {value:.4f}" for key, value in results.items())
    run.accelerator.print(f"step {run.step}  {shown}")
    run.accelerator.log({f"validation/{key}": value for key, value in results.items()}, run.step)
    _log_pictures(run, sets)
    # As it is recorded: the history alone says which weights were kept.
    score = run.history[-1]["score"]
    if score > run.best:
        run.best = score
        run.save(BEST)


def _log_pictures(run: Run, sets: list[ValidationSet]) -> None:
    """Send the first pictures of every validation set, with truth and answer, to TensorBoard."""
    if not run.accelerator.is_main_process:
        return
    writer = run.accelerator.get_tracker("tensorboard", unwrap=True)
    for validation_set in sets:
        rows = []
        for picture in validation_set.pictures[:4]:
            image = picture["image"]
            image = (image - image.min()) / (image.max() - image.min() + 1e-6)
            answer = predict(run.average.module, picture, run.accelerator.device)
            masks = [mask.expand_as(image) for mask in (picture["alpha"], answer)]
            rows.append(torch.cat([image, *masks], dim=2))
        writer.add_images(f"validation/{validation_set.name}", torch.stack(rows), run.step)


def _finish(run: Run, supply: Supply, stop_request: StopRequest) -> Path:
    """Write ``u2net_finetuned.pth`` from the best weights, complete with all decoder stages."""
    config = run.config
    run.accelerator.wait_for_everyone()  # the main process may still be writing it
    best = BEST if run.history else LAST  # without history nothing was ever measured
    model = load_checkpoint(config.out / best, config.decoder)
    if isinstance(model, U2Net) and config.decoder == "half" and config.full_decoder_steps:
        fit_full_resolution(run, model, supply, stop_request)
    final = config.out / FINAL
    if run.accelerator.is_main_process:
        checkpoints.save(final, checkpoints.official_state(model), run.record())
        write_text(config.out / REPORT, run_html(run.record(), config.out.name, True))
    run.accelerator.wait_for_everyone()
    chosen = best_validation(run.history)
    if chosen and chosen["step"] == 0:
        run.accelerator.print(
            "note: nothing was gained: no validation scored higher than the starting weights "
            f"({run.best:.4f}), which are the result"
        )
    return final


def _validation(
    accelerator: Accelerator, material: Material | None, config: TrainConfig
) -> list[ValidationSet]:
    if material is None or not config.validation_pictures:
        accelerator.print("nobody is held back for validation: the last weights will count as best")
        return []
    return validation_sets(material, config.validation_pictures, config.size)
