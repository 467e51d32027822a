r"""python -m finetune train: fine-tune U²-Net on people.

A look at whether everything works, a minute on a laptop:

    python -m finetune train --manifest data/manifest.jsonl --out runs/try \
        --init u2netp.onnx --epochs 1 --epoch-size 32 --size 128 --batch 4

The real thing, on CPU, one GPU, or, by `accelerate launch -m finetune train …`, on many:

    python -m finetune train --manifest data/manifest.jsonl --out runs/people --init u2netp.onnx
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DataLoaderConfiguration

from u2net_human_plugin.checkpoint import load_checkpoint
from u2net_human_plugin.errors import DataError
from u2net_human_plugin.u2net import FULL_RESOLUTION_PARTS, U2Net, fold_batch_norm

from ..data.manifest import Row, read_manifest
from ..data.splits import in_split
from . import checkpoints
from .batch_norm import calibrate
from .dataset import Material, PeopleDataset
from .full_decoder import fit_full_resolution
from .losses import deep_supervision
from .run import Run, Stop, StopRequest, TrainConfig, batches, progress_bar, rate_at
from .validation import ValidationSet, predict, validate, validation_sets

FINAL = "u2net_finetuned.pth"
LAST = "last.pt"
BEST = "best.pt"


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    finish: bool = False,
    minutes: float | None = None,
) -> Path | None:
    """Run or resume a training; return the final checkpoint, or None if it ended early.

    With ``finish`` a run that was stopped trains no further: its best weights become the
    final checkpoint. Ending early (``minutes`` over, Ctrl-C, SIGTERM) writes ``last.pt``, from
    which ``resume=True`` goes on with the same pictures and losses as an uninterrupted run.

    Raises:
        DataError: the manifest, or what is to be resumed, cannot be used.
        WeightsError: ``config.init`` is no U²-Net checkpoint.
    """
    # ---- data
    rows = [row for path in config.manifests for row in read_manifest(path)]
    training = [row for row in rows if in_split(row, "train")]
    held = [row for row in rows if in_split(row, "val")]
    material = Material(training, config.coarse)
    epoch = config.epoch_size or len(material.photos) or len(material.people)
    total = config.epochs * math.ceil(epoch / config.batch)

    # ---- model, optimizer
    torch.manual_seed(config.seed)
    torch.backends.cudnn.benchmark = True  # all steps have the same shapes: one search serves all
    accelerator = Accelerator(
        cpu=config.device == "cpu",
        mixed_precision="bf16" if config.precision == "bf16" else "no",
        log_with="tensorboard",
        project_dir=str(config.out),
        # One batch is shared out among the processes: the same run on one or on many.
        dataloader_config=DataLoaderConfiguration(split_batches=True),
    )
    dataset = PeopleDataset(material, size=config.size, seed=config.seed, mix=config.mix)
    model = _initial_model(config, dataset)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=config.rate)
    run = Run(
        config,
        accelerator,
        model,
        checkpoints.Ema(model, config.ema),
        optimizer,
        total,
        _describe(training, held),
    )
    last = config.out / LAST
    if (resume or finish) and last.is_file():
        run.restore(last)
    elif finish:
        raise DataError(f"{last}: no such file; there is no stopped run to finish.")
    elif last.is_file():
        raise DataError(
            f"{last}: a run is there already; add --resume to go on with it, or choose "
            "another --out."
        )
    run.model, run.optimizer = accelerator.prepare(config.laid_out(model), optimizer)
    run.ema.model.to(accelerator.device)

    # ---- loop
    accelerator.init_trackers("tensorboard")
    stop_request = StopRequest(minutes)
    try:
        try:
            with stop_request:
                if not finish:
                    people = any(row.mask is not None for row in held)
                    kept = Material(held, config.coarse) if people else None
                    _loop(run, dataset, _validation(accelerator, kept, config), stop_request)
                final = _finish(run, dataset, stop_request)
        except Stop as stop:
            run.save(LAST)
            accelerator.wait_for_everyone()  # none may end the others while this is being written
            why = f"at step {run.step} of {total} ({stop})"
            accelerator.print(f"stopped {why}; go on with --resume")
            return None
    except RuntimeError as error:
        if not stop_request.reason or "DataLoader worker (pid" not in str(error):
            raise
        # The signal ended the processes that prepare pictures, too, as systemd's does. At what
        # point of a step or of saving that struck is unknown, so the state that counts is the
        # last one saved.
        accelerator.print(f"stopped ({stop_request.reason}); go on with --resume")
        return None
    finally:
        accelerator.end_training()
    return final


def _loop(
    run: Run, dataset: PeopleDataset, sets: list[ValidationSet], stop_request: StopRequest
) -> None:
    config, accelerator = run.config, run.accelerator
    encoder = [
        parameter
        for name, parameter in accelerator.unwrap_model(run.model).named_parameters()
        if name.startswith("stage") and not name.split(".")[0].endswith("d")
    ]
    thawing = round(config.freeze_encoder * run.total)
    if not run.history and sets:
        _validate(run, sets)  # what the starting weights do
    with progress_bar(accelerator) as progress:
        task = progress.add_task("train", total=run.total, completed=run.step, loss=math.nan)
        began, before = time.monotonic(), run.seconds
        for batch in batches(run, dataset, run.step, run.total):
            run.model.train()
            for group in run.optimizer.param_groups:
                group["lr"] = rate_at(run.step, run.total, config.rate, config.warmup)
            outputs = run.model(batch["image"])
            loss = deep_supervision(
                outputs, batch["alpha"], batch["weight"], edge=config.edge, iou=config.iou
            )
            run.optimizer.zero_grad()
            accelerator.backward(loss)
            if run.step < thawing:
                for parameter in encoder:
                    parameter.grad = None
            accelerator.clip_grad_norm_(run.model.parameters(), 5.0)
            run.optimizer.step()
            run.ema.update(accelerator.unwrap_model(run.model))

            run.step += 1
            run.losses.append(float(accelerator.reduce(loss.detach(), "mean")))
            run.seconds = before + time.monotonic() - began
            recent = run.losses[-50:]
            progress.update(task, completed=run.step, loss=sum(recent) / len(recent))
            accelerator.log({"loss": run.losses[-1], "rate": group["lr"]}, run.step)
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
    results = validate(run.ema.model, sets, device)
    run.history.append({"step": run.step, **{key: round(v, 5) for key, v in results.items()}})
    shown = "  ".join(f"{key} {value:.4f}" for key, value in results.items())
    run.accelerator.print(f"step {run.step}  {shown}")
    run.accelerator.log({f"validation/{key}": value for key, value in results.items()}, run.step)
    _log_pictures(run, sets)
    if results["score"] > run.best:
        run.best = results["score"]
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
            answer = predict(run.ema.model, picture, run.accelerator.device)
            masks = [mask.expand_as(image) for mask in (picture["alpha"], answer)]
            rows.append(torch.cat([image, *masks], dim=2))
        writer.add_images(f"validation/{validation_set.name}", torch.stack(rows), run.step)


def _finish(run: Run, dataset: PeopleDataset, stop_request: StopRequest) -> Path:
    """Write ``u2net_finetuned.pth`` from the best weights, complete with all decoder stages."""
    config = run.config
    run.accelerator.wait_for_everyone()  # the main process may still be writing it
    best = BEST if run.history else LAST  # without history nothing was ever measured
    model = load_checkpoint(config.out / best, config.decoder)
    if config.decoder == "half" and config.full_decoder_steps:
        fit_full_resolution(run, model, dataset, stop_request)
    final = config.out / FINAL
    if run.accelerator.is_main_process:
        checkpoints.save(final, checkpoints.official_state(model), run.record())
    run.accelerator.wait_for_everyone()
    return final


def _initial_model(config: TrainConfig, dataset: PeopleDataset) -> U2Net:
    if config.init is None:
        model = U2Net(config.variant, config.decoder)
    else:
        model = load_checkpoint(config.init, config.decoder)
        if model.variant != config.variant:
            raise DataError(
                f"{config.init}: holds the {model.variant} U²-Net but --variant is "
                f"{config.variant}; name the variant that the weights belong to."
            )
    if config.batch_norm == "frozen":
        fold_batch_norm(model)
    elif not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules()):
        pictures = [dataset[number]["image"] for number in range(32)]
        calibrate(model, torch.split(torch.stack(pictures), config.batch))
    if config.decoder == "half":
        for name in FULL_RESOLUTION_PARTS:
            model.get_submodule(name).requires_grad_(False)
    return model


def _validation(
    accelerator: Accelerator, material: Material | None, config: TrainConfig
) -> list[ValidationSet]:
    if material is None or not config.validation_pictures:
        accelerator.print("nobody is held back for validation: the last weights will count as best")
        return []
    return validation_sets(material, config.validation_pictures, config.size)


def _describe(training: list[Row], held: list[Row]) -> dict[str, Any]:
    """What the run's data is, for its record."""
    sources: dict[str, dict[str, Any]] = {}
    for row in training:
        entry = sources.setdefault(row.source, {"licence": row.licence, "pictures": 0})
        entry["pictures"] += 1
    return {
        "sha256": checkpoints.data_hash(training, held),
        "unordered_sha256": checkpoints.unordered_data_hash(training),
        "training": len(training),
        "held_back": len(held),
        "sources": sources,
    }
