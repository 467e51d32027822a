"""The trainer as a user runs it: on small generated data, in real processes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from typer.testing import CliRunner
from u2net_human_plugin.finetune.__main__ import app
from u2net_human_plugin.finetune.data.manifest import Row, read_manifest, write_manifest
from u2net_human_plugin.finetune.data.splits import held_back, in_split
from u2net_human_plugin.finetune.training import checkpoints
from u2net_human_plugin.finetune.training.bank import decode
from u2net_human_plugin.finetune.training.batch import Batches
from u2net_human_plugin.finetune.training.batch_norm import calibrate
from u2net_human_plugin.finetune.training.checkpoints import (
    Ema,
    official_state,
    unordered_data_hash,
)
from u2net_human_plugin.finetune.training.composition import beside_people
from u2net_human_plugin.finetune.training.dataset import Material, Mix, PeopleDataset
from u2net_human_plugin.finetune.training.interpolate import interpolate
from u2net_human_plugin.finetune.training.items import items_of
from u2net_human_plugin.finetune.training.loop import train
from u2net_human_plugin.finetune.training.losses import deep_supervision
from u2net_human_plugin.finetune.training.run import TrainConfig, rate_at

from u2net_human_plugin.checkpoint import load_checkpoint
from u2net_human_plugin.errors import DataError
from u2net_human_plugin.u2net import FULL_RESOLUTION_PARTS, U2Net, fold_batch_norm

SMALL = ("--size", "32", "--batch", "2", "--save-every", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty coloured "people" (ellipses) with masks, four scenes, and a manifest."""
    folder = tmp_path_factory.mktemp("data")
    rng = random.Random(7)
    rows = []
    for number in range(24):
        size = (160, 200)
        image = Image.effect_noise(size, 60).convert("RGB")
        row = {"image": f"{number}.png", "source": "made", "split": "train", "licence": "CC0-1.0"}
        if number < 20:
            mask = Image.new("1", size)
            left, top = rng.randrange(20, 60), rng.randrange(10, 60)
            box = (left, top, left + rng.randrange(40, 80), top + rng.randrange(80, 130))
            ImageDraw.Draw(mask).ellipse(box, fill=1)
            image.paste((200, 120, rng.randrange(90)), (0, 0), mask)
            mask.save(folder / f"{number}-mask.png")
            row["mask"] = f"{number}-mask.png"
        else:
            row["mask"] = None
        image.save(folder / f"{number}.png")
        rows.append(row)
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def command(data: Path, out: Path, *options: str) -> list[str]:
    return [
        *(sys.executable, "-m", "u2net_human_plugin.finetune", "train"),
        *("--manifest", str(data), "--out", str(out)),
        *SMALL,
        *options,
    ]


def run(arguments: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    settings = {"capture_output": True, "text": True, "timeout": 600} | options
    return subprocess.run(arguments, check=False, **settings)  # type: ignore[call-overload,no-any-return]


def losses(out: Path, name: str = "last") -> list[float]:
    values: list[float] = json.loads((out / f"{name}.json").read_text())["losses"]
    return values


QUICK = ("--epochs", "1", "--epoch-size", "12", "--validation-pictures", "2", "--warmup", "2")


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of six steps."""
    out = tmp_path_factory.mktemp("finished")
    done = run(command(data, out, *QUICK, "--full-decoder-steps", "2"))
    assert done.returncode == 0, done.stderr
    return out


def test_final_checkpoint_loads_strictly_with_all_official_keys(finished: Path) -> None:
    """u2net_finetuned.pth is a plain, complete official state dict."""
    state = torch.load(finished / "u2net_finetuned.pth", weights_only=True)
    U2Net("lite", "full").load_state_dict(state, strict=True)
    assert len(load_checkpoint(finished / "u2net_finetuned.pth")(torch.zeros(1, 3, 64, 64))) == 7


def test_full_resolution_parts_are_trained_by_the_last_phase(finished: Path) -> None:
    """The half decoder's run leaves them alone; the last phase changes them and only them."""
    best = torch.load(finished / "best.pt", weights_only=True)["model"]
    final = torch.load(finished / "u2net_finetuned.pth", weights_only=True)
    changed = {key.split(".")[0] for key in best if not torch.equal(best[key], final[key])}
    assert changed == set(FULL_RESOLUTION_PARTS)


def test_record_names_arguments_data_and_metrics(finished: Path) -> None:
    """The JSON twin is enough to trace a checkpoint back."""
    record = json.loads((finished / "u2net_finetuned.json").read_text())
    assert record["arguments"]["batch"] == 2
    assert record["data"]["sources"]["made"]["licence"] == "CC0-1.0"
    assert len(record["data"]["sha256"]) == 64
    assert record["pictures"] == 12
    assert {"photos/iou", "composites/boundary_iou"} <= record["history"][-1].keys()


def test_tensorboard_gets_scalars_and_pictures(finished: Path) -> None:
    """Losses and validation pictures can be watched while the run goes on."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "tensorboard")).Reload()
    assert {"loss", "rate", "validation/score"} <= set(events.Tags()["scalars"])
    assert any(tag.startswith("validation/photos") for tag in events.Tags()["images"])


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


def test_signal_to_all_processes_of_a_run(data: Path, tmp_path: Path) -> None:
    """SIGTERM to the whole group, as from a service manager: in order, with the state saved."""
    process = running(data, tmp_path)
    os.killpg(process.pid, signal.SIGTERM)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "stopped at step" in output
    assert "--resume" in output


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


def test_stopped_run_can_be_finished(data: Path, tmp_path: Path) -> None:
    """--finish: no further step, the full decoder is fitted, the best weights are the result."""
    rest = ("--epochs", "50", "--validation-pictures", "0", "--full-decoder-steps", "1")
    arguments = command(data, tmp_path, *rest)
    missing = run([*arguments, "--finish"])
    assert missing.returncode == 1
    assert f"{tmp_path / 'last.pt'}: no such file" in missing.stderr
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


def test_resume_with_other_arguments_is_refused(data: Path, finished: Path) -> None:
    """A resumed run that would compute something else is an error that names the argument."""
    with pytest.raises(DataError, match=rf"{finished / 'last.pt'}.*--seed 0, not 5"):
        train(config(data, finished, seed=5), resume=True)


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


def test_resume_knows_order_held_back_rows_and_earlier_checkpoints(
    data: Path, finished: Path, tmp_path: Path
) -> None:
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
    training = [row for row in rows if in_split(row, "train")]
    for checksum in (content["data_sha256"], unordered_data_hash(training)):
        torch.save(content | {"data_sha256": checksum}, out / "last.pt")
        done = config(manifest, out, full_decoder_steps=0)
        assert train(done, resume=True) == out / "u2net_finetuned.pth"


def test_finish_without_measurements_takes_the_last_weights(data: Path, tmp_path: Path) -> None:
    """Where nothing was measured, the best weights are the newest, not those of some step."""
    options = ("--epochs", "50", "--validation-pictures", "0", "--full-decoder-steps", "0")
    arguments = command(data, tmp_path, *options, "--warmup", "0", "--rate", "0.01")
    stop = ("--minutes", "0.001")
    assert run([*arguments, *stop, "--validate-every", "1"]).returncode == 130
    assert run([*arguments, *stop, "--resume"]).returncode == 130
    stopped = torch.load(tmp_path / "last.pt", weights_only=True)
    assert run([*arguments, "--finish"]).returncode == 0
    final = torch.load(tmp_path / "u2net_finetuned.pth", weights_only=True)
    key = "stage1.rebnconvin.conv_s1.weight"
    torch.testing.assert_close(final[key], stopped["model"][key])


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


def test_bfloat16_follows_float32(data: Path, finished: Path, tmp_path: Path) -> None:
    """--precision bf16: the losses are nearly the same, the weights stay float32."""
    options = ("--precision", "bf16", "--full-decoder-steps", "1")
    done = run(command(data, tmp_path, *QUICK, *options))
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(losses(tmp_path), losses(finished), rtol=0.05)
    assert losses(tmp_path) != losses(finished)
    state = torch.load(tmp_path / "u2net_finetuned.pth", weights_only=True)
    assert state["stage1.rebnconvin.conv_s1.weight"].dtype == torch.float32


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--size", "0"),
        ("--batch", "0"),
        ("--epochs", "0"),
        ("--rate", "-1"),
        ("--ema", "2"),
        ("--seed", "-1"),
        ("--side", "-1"),
        ("--remember-weight", "-1"),
        ("--validate-every", "0"),
        ("--save-every", "0"),
        ("--minutes", "-1"),
    ],
)
def test_an_impossible_number_is_refused(option: str, value: str, tmp_path: Path) -> None:
    """The message names the option; nothing is written."""
    arguments = ["train", "--manifest", "none", "--out", str(tmp_path / "run"), option, value]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert option in done.output
    assert not (tmp_path / "run").exists()


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


def test_unusable_initial_weights_are_named(data: Path, tmp_path: Path) -> None:
    """--init with a file that is no checkpoint: one line that names it, exit code 1."""
    weights = tmp_path / "some.pth"
    weights.write_bytes(b"no weights")
    done = run(command(data, tmp_path / "run", *QUICK, "--init", str(weights)))
    assert done.returncode == 1
    assert str(weights) in done.stderr
    assert "Traceback" not in done.stderr


def test_two_processes_share_a_batch(data: Path, tmp_path: Path) -> None:
    """Two distributed CPU processes learn from different pictures, in as many steps as one."""
    options = ("--epochs", "1", "--epoch-size", "8", "--batch", "4", "--validation-pictures", "0")
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
    bank = decode(items_of(rows, {}), run_.stored_side, tmp_path / "bank")
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


def test_picture_depends_only_on_seed_and_number(data: Path) -> None:
    """Any process, and any resumed run, sees the same sequence of pictures."""
    material = Material(read_manifest(data))
    one, other = PeopleDataset(material, size=64), PeopleDataset(material, size=64)
    for number in (0, 5, 17):
        torch.manual_seed(number)  # what happened before must not matter
        for key, value in one[number].items():
            assert torch.equal(value, other[number][key])
    assert not torch.equal(one[1]["image"], one[2]["image"])


def test_every_photo_comes_up_once_a_pass(data: Path) -> None:
    """A pass over the photos is a permutation of them."""
    material = Material(read_manifest(data))
    dataset = PeopleDataset(material, mix=Mix(1, 0, 0, 0))
    count = len(material.photos)
    seen = {dataset.sample(number).image.tobytes() for number in range(count)}
    assert len(seen) == count


def test_composites_hold_as_many_people_as_they_say(data: Path) -> None:
    """A composite's alpha is not empty, an empty scene's is."""
    material = Material(read_manifest(data))
    scenes = PeopleDataset(material, mix=Mix(0, 0, 1, 0))
    for number in range(12):
        sample = scenes.sample(number)
        assert 1 <= sample.persons <= 5
        assert sample.alpha.getextrema()[1] > 200
        assert sample.image.size == sample.alpha.size == sample.weight.size
    empty = PeopleDataset(material, mix=Mix(0, 0, 0, 1))
    for number in range(12):
        sample = empty.sample(number)
        assert sample.persons == 0
        assert sample.alpha.getextrema() == (0, 0)


def test_things_are_pasted_and_are_nobody(data: Path, tmp_path: Path) -> None:
    """A pink disc appears in empty scenes and beside people; alpha leaves it out."""
    disc = Image.new("RGBA", (150, 150), (255, 0, 255, 0))
    ImageDraw.Draw(disc).ellipse((5, 5, 145, 145), fill=(255, 0, 255, 255))
    disc.save(tmp_path / "disc.png")
    thing = Row(tmp_path / "disc.png", None, "made", "train", "CC0-1.0", {"thing": True})
    material = Material([*read_manifest(data), thing])
    assert material.things == [thing]
    assert thing not in material.scenes
    for mix in (Mix(0, 0, 0, 1), Mix(0, 0, 1, 0)):
        dataset = PeopleDataset(material, mix=mix)
        found = 0
        for number in range(24):
            sample = dataset.sample(number)
            red, green, blue = np.moveaxis(np.asarray(sample.image).astype(int), 2, 0)
            pink = (red > 140) & (blue > 140) & (green < 40)
            # A shape cut from noise has a pink pixel here and there.
            if pink.sum() > 300:
                found += 1
                assert np.asarray(sample.alpha)[pink].mean() < 13
        assert found >= 4


def test_unlabelled_people_and_coarse_contours_do_not_count(data: Path) -> None:
    """Weight 0 in person boxes that the mask leaves bare, and near a coarse mask's contour."""
    rows = read_manifest(data)
    row = next(row for row in rows if row.mask is not None)
    bare = [0.0, 150.0, 15.0, 200.0, 0.9]
    flagged = type(row)(row.image, row.mask, row.source, row.split, row.licence, {"boxes": [bare]})
    material = Material([flagged], coarse={"made": 3})
    dataset = PeopleDataset(material, mix=Mix(1, 0, 0, 0))
    sample = dataset.sample(0)
    weight, alpha = np.asarray(sample.weight), np.asarray(sample.alpha)
    assert (weight[150:200, 0:15] == 0).all()
    assert weight[0, 159] == 255
    change = np.diff(alpha.astype(int), axis=1) != 0
    assert change.any()
    assert (weight[:, 1:][change] == 0).all()
    assert weight[alpha == 255].max() == 255


def street(boxes: list[list[float]], width: int = 240) -> Image.Image | None:
    """What is beside a green person, 40 wide, between a red and a blue half."""
    photo = Image.new("RGB", (width, 60), (255, 0, 0))
    left = (width - 40) // 2
    photo.paste((0, 0, 255), (left, 0, width, 60))
    mask = Image.new("L", photo.size)
    mask.paste(255, (left, 10, left + 40, 60))
    photo.paste((0, 255, 0), (0, 0), mask)
    return beside_people(photo, mask, np.array(boxes, np.float32).reshape(-1, 4))


def test_scene_from_beside_a_person_shows_nothing_of_them() -> None:
    """The halves left and right of the person, joined; their own detector box is no obstacle."""
    scene = street([[95, 5, 150, 60]])
    assert scene is not None
    pixels = np.asarray(scene)
    assert pixels.shape[0] == 60
    assert pixels.shape[1] < 200
    assert pixels[..., 1].max() == 0
    assert (pixels[:, :80] == (255, 0, 0)).all()
    assert (pixels[:, -80:] == (0, 0, 255)).all()


def test_no_scene_from_beside_others_or_in_too_little_room() -> None:
    """A second person, a narrow photo, and a mask without anybody give no scene."""
    assert street([[100, 10, 140, 60], [200, 10, 230, 60]]) is None
    assert street([], width=200) is None
    photo = Image.new("RGB", (300, 300))
    assert beside_people(photo, Image.new("L", photo.size), np.zeros((0, 4), np.float32)) is None


def test_composed_pictures_are_as_asked(data: Path, tmp_path: Path) -> None:
    """compose --heights --side --source: small people of that source alone, in large pictures."""
    options = ["--heights", "0.1-0.2", "--side", "300", "--count", "4", "--empty", "1"]
    inputs = ["--manifest", str(data), "--split", "train", "--source", "made"]
    done = CliRunner().invoke(app, ["compose", *inputs, "--out", str(tmp_path), *options])
    assert done.exit_code == 0, done.output
    rows = read_manifest(tmp_path)
    assert [row.extra["persons"] > 0 for row in rows] == [True] * 4 + [False]
    for row in rows:
        with Image.open(row.image) as image:
            assert max(image.size) == 300
    # Half-length people are not among these; a figure turned aslant is a little higher.
    assert all(row.extra["person_height"] <= 0.3 for row in rows)
    nobody = CliRunner().invoke(app, ["compose", *inputs[:-1], "x", "--out", str(tmp_path / "x")])
    assert nobody.exit_code == 1
    wrong = CliRunner().invoke(app, ["compose", *inputs, "--out", "x", "--heights", "0.3-0.1"])
    assert wrong.exit_code == 2


@pytest.mark.parametrize(("beside", "colour"), [("1", (0, 0, 255)), ("0", (255, 255, 0))])
def test_composed_scenes_from_beside_people(
    tmp_path: Path, beside: str, colour: tuple[int, int, int]
) -> None:
    """--beside 1: every scene is the blue street of the photo, none the yellow scene."""
    photo, mask = Image.new("RGB", (500, 200), (0, 0, 255)), Image.new("1", (500, 200))
    photo.paste((255, 0, 0), (240, 40, 280, 200))
    mask.paste(1, (240, 40, 280, 200))
    photo.save(tmp_path / "photo.png")
    mask.save(tmp_path / "mask.png")
    Image.new("RGB", (500, 200), (255, 255, 0)).save(tmp_path / "scene.png")
    known = {"source": "made", "split": "val", "licence": "CC0-1.0"}
    rows = [
        {"image": "photo.png", "mask": "mask.png", "boxes": [[240, 40, 280, 200, 0.9]], **known},
        {"image": "scene.png", "mask": None, **known},
    ]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--count", "0", "--empty", "12", "--beside", beside, "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["compose", "--manifest", str(manifest), *options])
    assert done.exit_code == 0, done.output
    common = []
    for row in read_manifest(tmp_path / "out"):
        with Image.open(row.image) as image:
            common.append(max(image.getcolors(image.width * image.height))[1])
    # The others are plain backdrops, or covered by things.
    assert common.count(colour) >= 4
    assert common.count((255, 255, 0) if colour == (0, 0, 255) else (0, 0, 255)) == 0


def test_held_back_rows_do_not_depend_on_the_others() -> None:
    """Adding pictures moves none between training and validation; about the share is held."""
    rows = [Row(Path(f"{number}.jpg"), None, "a", "train") for number in range(2000)]
    share = sum(map(held_back, rows)) / len(rows)
    assert 0.06 < share < 0.10
    assert held_back(Row(Path("x"), None, "a", "val"))
    assert in_split(Row(Path("x"), None, "a", "val"), "val")
    assert in_split(Row(Path("x"), None, "a", "val"), "held-back")


def test_crops_of_a_photo_and_pictures_that_look_alike_are_held_back_together() -> None:
    """What training has seen of a photo does not judge it, and its copies do not either."""
    answers = Counter()
    for number in range(400):
        crops = [Row(Path(f"{number}-p{crop}.jpg"), None, "a", "train") for crop in (1, 2, 13)]
        alike = [
            Row(Path(f"{source}{number}.jpg"), None, source, "train", extra={"group": f"{number}"})
            for source in "abc"
        ]
        # As named by a second `prepare`, which cuts long names off.
        anew = [
            Row(
                Path(f"{number}-{crop}-{name}.jpg"),
                None,
                "a",
                "train",
                extra={"is_crop": True, "origin": {"name": "x.jpg", "sha256": f"{number:064}"}},
            )
            for crop, name in enumerate(("00a", "00b", "00c"))
        ]
        for rows in (crops, alike, anew):
            assert len(set(map(held_back, rows))) == 1
            answers[held_back(rows[0])] += 1
    assert 45 < answers[True] < 150


@pytest.mark.parametrize(
    "extra",
    [{"group": None}, {"group": ""}, {"is_crop": True, "origin": "a site"}, {"is_crop": True}],
    ids=repr,
)
def test_what_a_foreign_manifest_says_does_not_decide_what_is_held_back(extra: Any) -> None:
    """Its rows are drawn one by one, by name."""
    rows = [Row(Path(f"{number}.jpg"), None, "a", "train") for number in range(200)]
    told = [dataclasses.replace(row, extra=extra) for row in rows]
    assert list(map(held_back, told)) == list(map(held_back, rows))


def test_commit_is_that_of_this_project_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed below somebody's own checkout, no commit is recorded."""
    module = tmp_path / "site-packages" / "finetune" / "training" / "checkpoints.py"
    module.parent.mkdir(parents=True)
    for words in (
        ["init"],
        [*["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "-m", "a"]],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)  # noqa: S607
    monkeypatch.setattr(checkpoints, "__file__", str(module))
    assert checkpoints.git_commit() is None
    (tmp_path / "site-packages" / "pyproject.toml").touch()
    assert checkpoints.git_commit() is not None


def test_benchmark_compares_every_loop_with_the_plain_one() -> None:
    """finetune benchmark training --json: a speed for each loop, the plain one's ratio is one."""
    options = ["--size", "64", "--batch", "1", "--steps", "1", "--rounds", "1", "--json"]
    done = run(
        [sys.executable, "-m", "u2net_human_plugin.finetune", "benchmark", "training", *options]
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result["times_plain"]) == ["plain", "full", "half", "bf16", "data"]
    assert result["times_plain"]["plain"] == 1
    assert min(result["images_per_second"].values()) > 0


def test_rate_warms_up_and_ends_near_zero() -> None:
    """Linear up to the peak, cosine down to a hundredth."""
    rates = [rate_at(step, 100, 1.0, 10) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0, abs=1e-3)
    assert rates[9] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.01)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[10:]))


@pytest.mark.parametrize("folded", [True, False])
def test_calibration_measures_statistics_and_keeps_the_function(folded: bool) -> None:
    """Live batch normalisation starts from the very function of the starting weights."""
    from u2net_human_plugin.u2net import fold_batch_norm

    torch.manual_seed(0)
    model = U2Net("lite", "half").eval()
    if folded:
        fold_batch_norm(model)
    batches = [torch.rand(2, 3, 64, 64) for _ in range(2)]
    with torch.no_grad():
        before = model(batches[0])[0]
        calibrate(model, batches)
        after = model.eval()(batches[0])[0]
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
    norm = model.stage1.rebnconvin.bn_s1
    assert norm.running_var.std() > 0
    with torch.no_grad():
        output = model.stage1.rebnconvin.conv_s1(torch.cat(batches))
    torch.testing.assert_close(norm.running_mean, output.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)


def test_average_of_constant_weights_is_those_weights() -> None:
    """EMA of a network that does not change is the network; the official state is complete."""
    model = U2Net("lite", "half")
    ema = Ema(model, 0.9)
    for _ in range(3):
        ema.update(model)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(ema.model.state_dict()[key], value)
    U2Net("lite", "full").load_state_dict(official_state(model), strict=True)


def test_interpolation_lies_between_two_checkpoints(finished: Path, tmp_path: Path) -> None:
    """Shares 0 and 1 are the two networks themselves; the twin says what was mixed from what."""
    before, after = finished / "best.pt", finished / "u2net_finetuned.pth"
    out = tmp_path / "blend.pth"
    picture = torch.rand(1, 3, 64, 64)
    for share, expected in ((0.0, before), (1.0, after)):
        interpolate(before, after, out, share)
        with torch.no_grad():
            blended, original = load_checkpoint(out)(picture), load_checkpoint(expected)(picture)
        torch.testing.assert_close(blended[0], original[0], rtol=1e-3, atol=1e-4)
    record = json.loads(out.with_suffix(".json").read_text())
    step = {"before": f"{finished.name}/best.pt", "share": 1.0, "temperature": 1.0}
    step["training"] = json.loads((finished / "best.json").read_text())
    del step["training"]["losses"]
    assert record["interpolated"] == [step]
    assert step["training"]["arguments"] == record["arguments"]
    interpolate(before, out, tmp_path / "again.pth", 0.5)
    record = json.loads((tmp_path / "again.json").read_text())
    assert record["interpolated"] == [step, {**step, "share": 0.5}]


def test_temperature_divides_the_logits_of_all_outputs(finished: Path, tmp_path: Path) -> None:
    """interpolate --temperature 0.5 doubles them: no contour moves, everything is surer."""
    weights = finished / "u2net_finetuned.pth"
    out = tmp_path / "sure.pth"
    interpolate(weights, weights, out, 1.0, 0.5)
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        sure, original = load_checkpoint(out)(picture), load_checkpoint(weights)(picture)
    assert len(sure) == len(original) == 7
    for one, other in zip(sure, original, strict=True):
        torch.testing.assert_close(one, 2 * other, rtol=1e-3, atol=1e-3)
