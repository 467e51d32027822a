"""`train` on the bank: in this process, on pictures of a few pixels, for a few steps."""

from __future__ import annotations

import json
import math
import random
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from u2net_human_plugin.checkpoint import load_checkpoint
from u2net_human_plugin.errors import DataError, WeightsError
from u2net_human_plugin.finetune.__main__ import app
from u2net_human_plugin.finetune.publishing.export import build
from u2net_human_plugin.finetune.training import checkpoints
from u2net_human_plugin.finetune.training.config import TrainConfig
from u2net_human_plugin.finetune.training.config_file import read_config, write_config
from u2net_human_plugin.finetune.training.loop import train
from u2net_human_plugin.finetune.training.recipe import Recipe
from u2net_human_plugin.finetune.training.run import DivergedError
from u2net_human_plugin.finetune.training.validation import validate
from u2net_human_plugin.semantic import SemanticNet
from u2net_human_plugin.u2net import U2Net


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos with masks, one without that a teacher knows, and a scene; one is held back.

    The others are of a group of which chance holds nothing back.
    """
    folder = tmp_path_factory.mktemp("small")
    rng, rows = random.Random(7), []
    for number in range(8):
        image, mask = Image.effect_noise((24, 32), 60).convert("RGB"), Image.new("L", (24, 32))
        left = rng.randrange(3, 8)
        ImageDraw.Draw(mask).ellipse((left, 5, left + 10, 28), fill=255)
        image.paste((200, 120, 40), (0, 0), mask)
        image.save(folder / f"{number}.png")
        mask.save(folder / f"m{number}.png")
        row = {"image": f"{number}.png", "mask": f"m{number}.png", "split": "train"}
        rows.append(row | {"source": "made", "licence": "CC0-1.0", "group": "same"})
    rows[0]["split"] = "val"
    rows[6] |= {"mask": None, "teacher": "m6.png"}
    rows[7]["mask"] = None
    file = folder / "manifest.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def settings(manifest: Path, out: Path) -> TrainConfig:
    return TrainConfig(
        (manifest,),
        out,
        size=32,
        batch_size=2,
        epochs=1,
        epoch_size=6,
        warmup=0,
        full_decoder_steps=0,
        validation_pictures=1,
        device="cpu",
    )


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the lite network."""
    torch.manual_seed(2)
    path = tmp_path_factory.mktemp("lite") / "lite.pth"
    torch.save(U2Net("lite").state_dict(), path)
    return path


def test_wide_learns_from_lite_weights_and_remembers_them(
    manifest: Path, lite: Path, tmp_path: Path
) -> None:
    """It starts with their very function; the second head is no part of the result."""
    config = settings(manifest, tmp_path / "run")
    wide = replace(config, variant="wide", init=lite, remember=lite, cache=tmp_path / "cache")
    recipe = replace(wide, recipe=Recipe(zoom=(0.8, 1.0), joined=0.0, distractors=0.0))
    final = train(recipe)
    assert final is not None
    state = torch.load(final, weights_only=True)
    U2Net("wide").load_state_dict(state, strict=True)
    record = json.loads(final.with_suffix(".json").read_text())
    assert record["arguments"]["recipe"]["zoom"] == [0.8, 1.0]
    assert TrainConfig.of_record(record["arguments"]) == recipe
    assert record["history"][0]["step"] == 0
    # What others may use stays; without --cache, nothing does.
    (place,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    names = {path.name.split("-")[0] for path in place.iterdir() if path.suffix == ".npy"}
    assert names == {"rgb.npy", "alpha.npy", "weight.npy", "before"}
    # A wide checkpoint goes on as what it is.
    onward = replace(settings(manifest, tmp_path / "on"), variant="wide", init=final, epoch_size=2)
    assert train(onward) is not None
    assert not (tmp_path / "on" / "pictures").exists()
    with pytest.raises(DataError, match="holds the wide network but --variant is lite"):
        train(replace(onward, out=tmp_path / "x", variant="lite"))
    assert build(final, tmp_path)["decoder"] == "half"


def test_a_stopped_run_goes_on_with_the_same_losses(
    manifest: Path, lite: Path, tmp_path: Path
) -> None:
    """Also that of the second head; and TensorBoard shows every step once."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def curve(out: Path) -> list[float]:
        losses: list[float] = json.loads((out / "last.json").read_text())["losses"]
        return losses

    whole = replace(
        settings(manifest, tmp_path / "whole"),
        remember=lite,
        validation_pictures=0,
        cache=tmp_path / "cache",
    )
    train(whole)
    parts = replace(whole, out=tmp_path / "parts")
    assert train(parts, minutes=0.0) is None
    state = (parts.out / "last.pt").read_bytes()
    assert train(parts, resume=True, minutes=0.0) is None
    # As if killed before the second step was saved.
    (parts.out / "last.pt").write_bytes(state)
    train(parts, resume=True)
    assert curve(parts.out) == pytest.approx(curve(whole.out), rel=1e-5)
    events = EventAccumulator(str(parts.out / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]
    assert "memory" in events.Tags()["scalars"]


def test_a_run_is_all_that_resume_needs(manifest: Path, tmp_path: Path) -> None:
    """Its arguments hold but for those given anew; epochs may be added, and not taken away."""
    config = replace(settings(manifest, tmp_path), epochs=2, validation_pictures=0, lr=2e-4)
    assert train(config, minutes=0.0) is None
    resume = ["train", "--out", str(tmp_path), "--resume"]
    fewer = CliRunner().invoke(app, [*resume, "--epochs", "1"])
    assert fewer.exit_code == 1
    assert "last.pt: was made with --epochs 2, not 1; a run can be made longer" in fewer.output
    other = CliRunner().invoke(app, [*resume, "--lr", "0.1"])
    assert "was made with --lr 0.0002, not 0.1" in other.output
    done = CliRunner().invoke(app, [*resume, "--epochs", "3", "--save-every", "2"])
    assert done.exit_code == 0, done.output
    assert "complete" not in done.output
    assert "the run is complete, with all its 9 steps" in CliRunner().invoke(app, resume).output
    record = json.loads((tmp_path / "last.json").read_text())
    assert len(record["losses"]) == record["steps"] == 9
    expected = replace(config, epochs=3, save_every=2)
    assert TrainConfig.of_record(record["arguments"]) == expected


@pytest.mark.parametrize("go_on", ["--resume", "--finish"])
def test_a_run_without_a_checkpoint_is_started_again(
    manifest: Path, tmp_path: Path, go_on: str
) -> None:
    """The error offers what its run.toml, if there is one, is good for; that command works."""
    out = tmp_path / "a run"
    nothing = CliRunner().invoke(app, ["train", "--out", str(out), go_on])
    assert nothing.exit_code == 1
    expected = f"no run to go on with in {out}: there is no {out / 'last.pt'} yet; no run is there"
    assert expected in nothing.output
    config = replace(settings(manifest, out), validation_pictures=0, epoch_size=2)
    write_config(config, out / "run.toml")
    told = CliRunner().invoke(app, ["train", "--out", str(out), go_on])
    assert told.exit_code == 1
    begin = shlex.split(told.output.split("`")[1])
    assert begin == ["train", "--config", str(out / "run.toml"), "--out", str(out)]
    done = CliRunner().invoke(app, begin)
    assert done.exit_code == 0, done.output
    result = "step 1, the last; nothing was measured"
    last = [f"result: {result}", str(out / "u2net_finetuned.pth")]
    assert done.output.splitlines()[-2:] == last
    assert f"result: {result}" in (out / "report.html").read_text("utf-8")


def test_a_run_leaves_a_file_that_tells_another_the_same(manifest: Path, tmp_path: Path) -> None:
    """What the command line says wins over it; the file beside the result holds what was done."""
    config = replace(settings(manifest, tmp_path / "a"), validation_pictures=0, epoch_size=2)
    train(config)
    file = tmp_path / "a" / "run.toml"
    assert TrainConfig(**read_config(file)) == config
    edited = file.read_text().replace("seed = 0", "seed = 4  # mine")
    (tmp_path / "mine.toml").write_text(edited)
    again = CliRunner().invoke(app, ["train", "--config", str(tmp_path / "mine.toml")])
    assert "a run is there already; add --resume" in again.output
    options = ["--out", str(tmp_path / "b"), "--lr", "0.002", "--iou", "0.5"]
    done = CliRunner().invoke(app, ["train", "--config", str(tmp_path / "mine.toml"), *options])
    assert done.exit_code == 0, done.output
    assert "note: --iou is called --iou-weight now" in done.output
    expected = replace(config, out=tmp_path / "b", seed=4, lr=0.002, iou_weight=0.5)
    record = json.loads((tmp_path / "b" / "last.json").read_text())
    assert TrainConfig.of_record(record["arguments"]) == expected
    assert TrainConfig(**read_config(tmp_path / "b" / "run.toml")) == expected
    # It is also an argument of --resume's: what would compute something else is refused.
    resumed = ["train", "--resume", "--out", str(tmp_path / "a"), "--config"]
    other = CliRunner().invoke(app, [*resumed, str(tmp_path / "mine.toml")])
    assert "was made with --seed 0, not 4" in other.output


def test_former_names_of_options_go_on_for_a_release(manifest: Path, tmp_path: Path) -> None:
    """A resumed run takes them, too, and says how they are called."""
    config = replace(settings(manifest, tmp_path), validation_pictures=0, lr=2e-4)
    assert train(config, minutes=0.0) is None
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert state["ema"].keys() == state["raw"].keys()
    assert state["ema_steps"] == state["step"] == 1
    other = CliRunner().invoke(app, ["train", "--out", str(tmp_path), "--resume", "--rate", "0.1"])
    assert "note: --rate is called --lr now" in other.output
    assert "was made with --lr 0.0002, not 0.1" in other.output
    done = CliRunner().invoke(app, ["train", "--out", str(tmp_path), "--resume", "--rate", "2e-4"])
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "last.json").read_text())
    assert TrainConfig.of_record(record["arguments"]) == config
    assert len(record["losses"]) == 3


def test_a_loss_that_is_not_finite_ends_the_run(manifest: Path, tmp_path: Path) -> None:
    """At once; the message has the step, the rate and what to go on from, which is unharmed."""
    config = replace(settings(manifest, tmp_path), lr=1e15, save_every=1)
    with pytest.raises(
        DivergedError, match=r"is (nan|inf) at step \d+, at a learning rate of .*e\+1"
    ) as e:
        train(config)
    best = tmp_path / "best.pt"
    assert f"the last good checkpoint is {best} of step 0" in str(e.value)
    assert not (tmp_path / "u2net_finetuned.pth").exists()
    assert math.isfinite(sum(float(v.sum()) for v in load_checkpoint(best).state_dict().values()))
    command = [
        "train",
        "--manifest",
        str(manifest),
        "--out",
        str(tmp_path / "cli"),
        "--lr",
        "1e15",
    ]
    options = [
        "--size",
        "32",
        "--batch-size",
        "2",
        "--epochs",
        "1",
        "--warmup",
        "0",
        "--device",
        "cpu",
    ]
    done = CliRunner().invoke(app, [*command, *options, "--validation-pictures", "0"])
    assert done.exit_code == 1
    assert "no checkpoint had been saved before" in done.output


def test_a_run_that_gained_nothing_says_so(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The result then is what it started from; a run that gained says nothing."""
    config = replace(settings(manifest, tmp_path / "a"), lr=0.0, epoch_size=2)
    train(config)
    note = "nothing was gained: no validation scored higher than the starting weights (0."
    assert note in capsys.readouterr().out

    scores = iter([0.1, 0.2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sys.modules[train.__module__],
            "validate",
            lambda *a: validate(*a) | {"score": next(scores)},
        )
        train(replace(config, out=tmp_path / "b"))
    assert "nothing was gained" not in capsys.readouterr().out


def test_weights_that_are_not_finite_are_not_exported(lite: Path, tmp_path: Path) -> None:
    """One line that names the file."""
    state = torch.load(lite, weights_only=True)
    state["side3.bias"][0] = math.nan
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(WeightsError, match=r"nan\.pth: holds weights that are not finite"):
        build(tmp_path / "nan.pth", tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of a process")
def test_a_checkpoint_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    """Neither it nor its twin is changed, and the message names it."""
    path = tmp_path / "last.pt"
    checkpoints.save(path, {"step": 1}, {"step": 1})
    before = path.read_bytes()
    code = (
        "import resource, sys, torch; from pathlib import Path\n"
        "from u2net_human_plugin.finetune.training import checkpoints\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "checkpoints.save(Path(sys.argv[1]), {'step': torch.zeros(10**6)}, {'step': 2})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"DataError: {path}: cannot be written (" in done.stderr
    assert path.read_bytes() == before
    assert json.loads(path.with_suffix(".json").read_text()) == {"step": 1}
    assert {file.name for file in tmp_path.iterdir()} == {"last.pt", "last.json"}


def test_a_semantic_network_learns(manifest: Path, tmp_path: Path) -> None:
    """All of it, its encoder at a quarter of --lr; it goes on as such, and cannot remember."""
    config = replace(settings(manifest, tmp_path / "run"), variant="semantic", lr=1e-3)
    final = train(config)
    assert final is not None
    state = torch.load(final, weights_only=True)
    SemanticNet().load_state_dict(state, strict=True)
    optimizer = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["optimizer"]
    assert [group["factor"] for group in optimizer["param_groups"]] == [0.25, 1.0]
    onward = replace(config, out=tmp_path / "on", init=final, epoch_size=4)
    assert train(onward) is not None
    trained = torch.load(tmp_path / "on" / "last.pt", weights_only=True)["raw"]
    assert not any(torch.equal(state[key], trained[key]) for key in state if "weight" in key)
    with pytest.raises(DataError, match="--remember is for U²-Net, not for --variant semantic"):
        train(replace(config, out=tmp_path / "x", remember=final))
    with pytest.raises(DataError, match="holds the semantic network but --variant is lite"):
        train(replace(onward, out=tmp_path / "y", variant="lite"))
    assert build(final, tmp_path)["variant"] == "semantic"
