"""`train` as a user runs it: on small generated data, in real processes."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from runs import QUICK, command, losses, run

from u2net_human_plugin.checkpoint import load_checkpoint
from u2net_human_plugin.errors import DataError
from u2net_human_plugin.finetune.data.manifest import read_manifest, write_manifest
from u2net_human_plugin.finetune.data.splits import held_back, in_split
from u2net_human_plugin.finetune.training.bank import decode
from u2net_human_plugin.finetune.training.batch import Batches
from u2net_human_plugin.finetune.training.config import TrainConfig
from u2net_human_plugin.finetune.training.loop import train
from u2net_human_plugin.finetune.training.losses import deep_supervision
from u2net_human_plugin.finetune.training.training_rows import training_rows
from u2net_human_plugin.u2net import FULL_RESOLUTION_PARTS, U2Net, fold_batch_norm


@pytest.mark.process
def test_final_checkpoint_loads_strictly_with_all_official_keys(finished: Path) -> None:
    """u2net_finetuned.pth is a plain, complete official state dict."""
    state = torch.load(finished / "u2net_finetuned.pth", weights_only=True)
    U2Net("lite", "full").load_state_dict(state, strict=True)
    assert len(load_checkpoint(finished / "u2net_finetuned.pth")(torch.zeros(1, 3, 64, 64))) == 7


@pytest.mark.process
def test_full_resolution_parts_are_trained_by_the_last_phase(finished: Path) -> None:
    """The half decoder's run leaves them alone; the last phase changes them and only them."""
    best = torch.load(finished / "best.pt", weights_only=True)["model"]
    final = torch.load(finished / "u2net_finetuned.pth", weights_only=True)
    changed = {key.split(".")[0] for key in best if not torch.equal(best[key], final[key])}
    assert changed == set(FULL_RESOLUTION_PARTS)


@pytest.mark.process
def test_record_names_arguments_data_and_metrics(finished: Path) -> None:
    """The JSON twin is enough to trace a checkpoint back."""
    record = json.loads((finished / "u2net_finetuned.json").read_text())
    assert record["arguments"]["batch_size"] == 2
    assert record["data"]["sources"]["made"]["licence"] == "CC0-1.0"
    assert len(record["data"]["sha256"]) == 64
    assert record["pictures"] == 12
    assert {"photos/iou", "composites/boundary_iou"} <= record["history"][-1].keys()


@pytest.mark.process
def test_its_curves_are_a_page(finished: Path) -> None:
    """report.html has every step's loss and every validated score, without being asked for."""
    page = (finished / "report.html").read_text("utf-8")
    steps = json.loads((finished / "u2net_finetuned.json").read_text())["steps"]
    titles = re.findall(r"<figcaption><b>(.*?)</b>", page)
    assert {"loss", "score", "photos/iou"} <= set(titles)
    assert len(re.findall(r'points="([^"]*)"', page)[0].split()) == steps


@pytest.mark.process
def test_tensorboard_gets_scalars_and_pictures(finished: Path) -> None:
    """Losses and validation pictures can be watched while the run goes on."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "tensorboard")).Reload()
    assert {"loss", "lr", "validation/score"} <= set(events.Tags()["scalars"])
    assert any(tag.startswith("validation/photos") for tag in events.Tags()["images"])


@pytest.mark.process
def test_resume_after_kill_9_continues_with_the_same_losses(
    data: Path, finished: Path, tmp_path: Path
) -> None:
    """Killed at whatever moment, then resumed: the loss curve is that of an unbroken run."""
    arguments = command(data, tmp_path, *QUICK, "--full-decoder-steps", "0")
    killed = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (tmp_path / "last.json").exists() or len(losses(tmp_path)) < 2:
        assert killed.poll() is None, "finished before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "u2net_finetuned.pth").exists()

    resumed = run([*arguments, "--resume"])
    assert resumed.returncode == 0, resumed.stderr
    np.testing.assert_allclose(losses(tmp_path), losses(finished), rtol=1e-5)


@pytest.mark.process
def test_terminated_run_saves_and_says_how_to_go_on(data: Path, tmp_path: Path) -> None:
    """SIGTERM (as Ctrl-C) ends the run in order, with its state kept and its own exit code."""
    arguments = command(data, tmp_path, "--epochs", "50", "--validation-pictures", "0")
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "last.pt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "--resume" in output
    assert len(losses(tmp_path)) >= 1


def running(data: Path, out: Path) -> subprocess.Popen[str]:
    """A run of its own process group, with a state saved."""
    options = ("--epochs", "50", "--validation-pictures", "0")
    process = subprocess.Popen(
        command(data, out, *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (out / "last.pt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    return process


@pytest.mark.process
def test_signal_to_all_processes_of_a_run(data: Path, tmp_path: Path) -> None:
    """SIGTERM to the whole group, as from a service manager: in order, with the state saved."""
    process = running(data, tmp_path)
    os.killpg(process.pid, signal.SIGTERM)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "stopped at step" in output
    assert "--resume" in output


@pytest.mark.process
@pytest.mark.parametrize(
    ("key", "problem"),
    [("image", "cannot be read as a picture"), ("mask", "the mask is 80x80 pixels")],
    ids=["damaged picture", "mask of another size"],
)
def test_what_is_wrong_with_a_file_ends_a_run_with_its_name(
    data: Path, tmp_path: Path, key: str, problem: str
) -> None:
    """All such files are named before the first step, in a line each."""
    manifest, wrong = tmp_path / "manifest.jsonl", tmp_path / "wrong.png"
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    if key == "image":
        wrong.write_bytes((data.parent / rows[0]["image"]).read_bytes()[:2000])
    else:
        Image.new("1", (80, 80), 1).save(wrong)
    for row in rows:
        row |= {name: str(data.parent / row[name]) for name in ("image", "mask") if row[name]}
        row[key] = str(wrong) if row["mask"] else row[key]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--epochs", "1", "--validation-pictures", "0")
    done = run(command(manifest, tmp_path / "out", *options), timeout=120)
    assert done.returncode == 1
    message = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(message) == 1
    assert str(wrong) in message[0]
    assert problem in message[0]
    assert "Traceback" not in done.stderr


@pytest.mark.process
def test_stopped_run_can_be_finished(data: Path, tmp_path: Path) -> None:
    """--finish: no further step, the full decoder is fitted, the best weights are the result."""
    rest = ("--epochs", "50", "--validation-pictures", "0", "--full-decoder-steps", "1")
    arguments = command(data, tmp_path, *rest)
    missing = run([*arguments, "--finish"])
    assert missing.returncode == 1
    assert f"there is no {tmp_path / 'last.pt'} yet" in missing.stderr
    assert run([*arguments, "--minutes", "0.001"]).returncode == 130
    steps = len(losses(tmp_path))
    assert run([*arguments, "--finish"]).returncode == 0
    assert len(losses(tmp_path, "u2net_finetuned")) == steps
    state = torch.load(tmp_path / "u2net_finetuned.pth", weights_only=True)
    U2Net("lite", "full").load_state_dict(state, strict=True)


def config(data: Path, out: Path, **changes: object) -> TrainConfig:
    """What ``command(data, out, *QUICK)`` means, as the trainer's own arguments."""
    given = {"manifests": (data,), "out": out, "device": "cpu", **changes}
    if not out.exists():
        return TrainConfig(**given)  # type: ignore[arg-type]
    record = json.loads((out / "last.json").read_text())["arguments"]
    return dataclasses.replace(TrainConfig.of_record(record), **given)  # type: ignore[arg-type]


@pytest.mark.process
def test_resume_with_other_arguments_is_refused(data: Path, finished: Path) -> None:
    """A resumed run that would compute something else is an error that names the argument."""
    with pytest.raises(DataError, match=rf"{finished / 'last.pt'}.*--seed 0, not 5"):
        train(config(data, finished, seed=5), resume=True)


@pytest.mark.process
def test_resume_with_other_pictures_is_refused(data: Path, finished: Path, tmp_path: Path) -> None:
    """A manifest that has lost a training picture since is an error, and the run is kept."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    before = (out / "last.pt").read_bytes()
    shorter = tmp_path / "data"
    shutil.copytree(data.parent, shorter)
    lines = data.read_text().splitlines()
    gone = next(row for row in read_manifest(data) if row.split == "train" and not held_back(row))
    kept = [line for line in lines if json.loads(line)["image"] != gone.image.name]
    (shorter / data.name).write_text("\n".join(kept))
    content = torch.load(out / "last.pt", weights_only=True)
    content["arguments"]["manifests"] = [str(shorter / data.name)]
    torch.save(content, out / "last.pt")
    before = (out / "last.pt").read_bytes()
    with pytest.raises(DataError, match=r"last\.pt: was trained on other pictures"):
        train(config(shorter / data.name, out), resume=True)
    assert (out / "last.pt").read_bytes() == before


@pytest.mark.process
def test_resume_knows_order_and_held_back_rows(data: Path, finished: Path, tmp_path: Path) -> None:
    """Reordered or with fewer pictures to validate with, the data is other data."""
    rows = read_manifest(data)
    held = next(row for row in rows if row.split == "train" and held_back(row))
    fewer = [row for row in rows if row is not held]
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    content = torch.load(out / "last.pt", weights_only=True)
    manifest = tmp_path / "manifest.jsonl"
    content["arguments"]["manifests"] = [str(manifest)]
    torch.save(content, out / "last.pt")
    for changed in (rows[::-1], fewer):
        write_manifest(manifest, changed)
        with pytest.raises(DataError, match=r"other pictures than .* or in another order"):
            train(config(manifest, out), resume=True)
    write_manifest(manifest, rows)
    done = config(manifest, out, full_decoder_steps=0)
    assert train(done, resume=True) == out / "u2net_finetuned.pth"


@pytest.mark.process
def test_finish_without_measurements_takes_the_last_weights(data: Path, tmp_path: Path) -> None:
    """Where nothing was measured, the best weights are the newest, not those of some step."""
    options = ("--epochs", "50", "--validation-pictures", "0", "--full-decoder-steps", "0")
    arguments = command(data, tmp_path, *options, "--warmup", "0", "--lr", "0.01")
    stop = ("--minutes", "0.001")
    assert run([*arguments, *stop, "--validate-every", "1"]).returncode == 130
    assert run([*arguments, *stop, "--resume"]).returncode == 130
    stopped = torch.load(tmp_path / "last.pt", weights_only=True)
    assert run([*arguments, "--finish"]).returncode == 0
    final = torch.load(tmp_path / "u2net_finetuned.pth", weights_only=True)
    key = "stage1.rebnconvin.conv_s1.weight"
    torch.testing.assert_close(final[key], stopped["model"][key])


@pytest.mark.process
def test_training_from_cut_outs_alone(tmp_path: Path) -> None:
    """No photo to train or to validate with: composites are measured, and the run ends well."""
    rng, rows = random.Random(3), []
    for number in range(40):
        picture = Image.effect_noise((90, 120), 60).convert("RGB")
        if number < 30:
            alpha = Image.new("L", picture.size)
            ImageDraw.Draw(alpha).ellipse((20, 10, 70, 100 + rng.randrange(15)), fill=255)
            picture.putalpha(alpha)
        picture.save(tmp_path / f"{number}.png")
        mask = "alpha" if number < 30 else None
        # Enough to validate with, whatever chance says.
        split = "val" if number % 10 == 0 else "train"
        rows.append({"image": f"{number}.png", "mask": mask, "source": "made", "split": split})
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row | {"licence": "CC0-1.0"}) + "\n" for row in rows))
    done = run(command(manifest, tmp_path / "run", *QUICK, "--full-decoder-steps", "0"))
    assert done.returncode == 0, done.stderr
    history = json.loads((tmp_path / "run" / "last.json").read_text())["history"]
    assert "composites/iou" in history[-1]
    assert "photos/iou" not in history[-1]


@pytest.mark.process
def test_training_goes_on_if_only_scenes_are_held_back(data: Path, tmp_path: Path) -> None:
    """Nobody to validate with is no reason not to train."""
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    held = {row.image.name for row in read_manifest(data) if held_back(row)}
    kept = [row for row in rows if row["mask"] is None or row["image"] not in held]
    scene = next(row for row in kept if row["mask"] is None)
    scene["split"] = "val"
    shutil.copytree(data.parent, tmp_path / "data")
    manifest = tmp_path / "data" / "few.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in kept))
    done = run(command(manifest, tmp_path / "run", *QUICK, "--full-decoder-steps", "0"))
    assert done.returncode == 0, done.stderr
    assert "nobody is held back" in done.stdout


@pytest.mark.process
def test_bfloat16_follows_float32(data: Path, finished: Path, tmp_path: Path) -> None:
    """--precision bf16: the losses are nearly the same, the weights stay float32."""
    options = ("--precision", "bf16", "--full-decoder-steps", "1")
    done = run(command(data, tmp_path, *QUICK, *options))
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(losses(tmp_path), losses(finished), rtol=0.05)
    assert losses(tmp_path) != losses(finished)
    state = torch.load(tmp_path / "u2net_finetuned.pth", weights_only=True)
    assert state["stage1.rebnconvin.conv_s1.weight"].dtype == torch.float32


@pytest.mark.process
def test_existing_run_is_not_overwritten(data: Path, finished: Path) -> None:
    """Without --resume, a folder that holds a run is left alone."""
    before = (finished / "last.pt").read_bytes()
    with pytest.raises(DataError, match="--resume"):
        train(config(data, finished))
    assert (finished / "last.pt").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"no training state"], ids=["empty", "text"])
def test_damaged_checkpoint_is_not_resumed(data: Path, tmp_path: Path, content: bytes) -> None:
    """A last.pt that is no checkpoint is an error that names it, and is left alone."""
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(DataError, match=rf"{tmp_path / 'last.pt'}: cannot be resumed"):
        train(TrainConfig((data,), tmp_path, device="cpu"), resume=True)
    assert (tmp_path / "last.pt").read_bytes() == content


@pytest.mark.process
def test_unusable_initial_weights_are_named(data: Path, tmp_path: Path) -> None:
    """--init with a file that is no checkpoint: one line that names it, exit code 1."""
    weights = tmp_path / "some.pth"
    weights.write_bytes(b"no weights")
    done = run(command(data, tmp_path / "run", *QUICK, "--init", str(weights)))
    assert done.returncode == 1
    assert str(weights) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.process
def test_two_processes_share_a_batch(data: Path, tmp_path: Path) -> None:
    """Two distributed CPU processes learn from different pictures, in as many steps as one."""
    options = (
        "--epochs",
        "1",
        "--epoch-size",
        "8",
        "--batch-size",
        "4",
        "--validation-pictures",
        "0",
    )
    options = (*options, "--full-decoder-steps", "0", "--ema", "0")
    one, two = tmp_path / "one", tmp_path / "two"
    single = run(command(data, one, *options))
    assert single.returncode == 0, single.stderr
    launched = command(data, two, *options)
    # `accelerate launch` starts several processes of a CPU through MPI alone; torchrun does
    # without, and Accelerate finds the group either way.
    double = run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", *launched[1:]],
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )
    assert double.returncode == 0, double.stderr
    record = json.loads((two / "last.json").read_text())
    assert record["processes"] == 2
    assert len(losses(two)) == len(losses(one))
    # Each draws its own half of the batch, and the loss is that of both.
    run_ = TrainConfig.of_record(record["arguments"])
    rows = [row for row in read_manifest(data) if in_split(row, "train")]
    bank = decode(training_rows(rows, {}), run_.stored_side, tmp_path / "bank")
    torch.manual_seed(run_.seed)
    model = fold_batch_norm(U2Net("lite", "half")).train()
    halves = [Batches(bank, run_.recipe, run_.seed).draw(number, 2, 32) for number in (0, 1)]
    with torch.no_grad():
        values = [
            float(deep_supervision(model(half.image), half.alpha, half.weight, edge=2.0))
            for half in halves
        ]
    assert abs(values[0] - values[1]) > 1e-4
    assert losses(two)[0] == pytest.approx(sum(values) / 2, rel=1e-4)
    # Both stop after the same step, although each has a clock of its own.
    longer = [*launched[1:], "--epoch-size", "4000", "--minutes", "0.05"]
    longer[longer.index(str(two))] = str(tmp_path / "stopped")
    stopped = run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", *longer],
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )
    assert "go on with --resume" in stopped.stdout, stopped.stderr
    assert len(losses(tmp_path / "stopped")) >= 1
    assert "Connection closed" not in stopped.stderr
