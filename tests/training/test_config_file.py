"""A run's arguments as a file: what is written is read again, and what is wrong has a remedy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tomlkit
from typer.testing import CliRunner

from u2net_human_plugin.errors import DataError
from u2net_human_plugin.finetune.__main__ import app
from u2net_human_plugin.finetune.training.config import TrainConfig, options
from u2net_human_plugin.finetune.training.config_file import read_config, write_config
from u2net_human_plugin.finetune.training.recipe import Recipe

#: Another value than the default's for every option.
OTHER = TrainConfig(
    manifests=(Path("a/manifest.jsonl"), Path('b "quoted"/ü.jsonl')),
    out=Path("runs/x"),
    init=Path("u2netp.onnx"),
    variant="wide",
    decoder="full",
    size=352,
    batch_size=16,
    epochs=3,
    epoch_size=100,
    lr=1e-5,
    warmup=7,
    ema=0.5,
    edge_weight=1.0,
    iou_weight=0.25,
    l1_weight=0.5,
    laplacian_weight=0.1,
    batch_norm="live",
    freeze_encoder=0.125,
    coarse={"ccp": 3.0, "a source": 1.5},
    recipe=Recipe(scenes=0.4, zoom=(0.6, 1.1), most_people=2, sources={"street": 0.5}),
    side=400,
    remember=Path("before.pth"),
    remember_weight=0.75,
    seed=11,
    full_decoder_steps=0,
    validation_pictures=0,
    validate_every=5,
    save_every=6,
    cache=Path("cache"),
    device="cpu",
    precision="bf16",
)


@pytest.mark.parametrize("config", [OTHER, TrainConfig((Path("m"),), Path("o"))])
def test_what_is_written_is_read_again(config: TrainConfig, tmp_path: Path) -> None:
    """Every option has a line with its help; the record knows them all, too."""
    path = tmp_path / "run.toml"
    write_config(config, path)
    assert TrainConfig(**read_config(path)) == config
    assert TrainConfig.of_record(config.record()) == config
    text = path.read_text("utf-8")
    words = " ".join(text.replace("#", " ").split())
    for option in options():
        assert option.key == "recipe" or " ".join(str(option.info.help).split()) in words
        if getattr(config, option.name) is None:
            assert f"# {option.key} = " in text
        else:
            assert option.key in tomlkit.parse(text)


def test_another_value_for_every_option() -> None:
    """So that the test above shows something."""
    same = [o.name for o in options() if getattr(OTHER, o.name) == o.default]
    assert same == []


def test_a_file_that_says_the_same_stays(tmp_path: Path) -> None:
    """With the comments of whoever edited it; one that says something else is written anew."""
    path = tmp_path / "run.toml"
    path.write_text('# mine\nmanifest = "m"\nout = "o"\n')
    config = TrainConfig((Path("m"),), Path("o"))
    write_config(config, path)
    assert path.read_text() == '# mine\nmanifest = "m"\nout = "o"\n'
    write_config(replace(config, seed=5), path)
    assert "seed = 5" in path.read_text()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("epoch-sise = 4", "epoch-sise = 4: there is no such option; did you mean epoch-size?"),
        ("batch = 2", "did you mean batch-size?"),
        ("size = 16", "size = 16: expected a whole number from 32; correct it"),
        ('size = "320"', "size = '320': expected a whole number from 32"),
        ("size = 320.5", "size = 320.5: expected a whole number from 32"),
        ("epochs = true", "epochs = True: expected a whole number from 1"),
        ("ema = 1.5", "ema = 1.5: expected a number from 0 to 1"),
        ("lr = nan", "lr = nan: expected a number from 0"),
        ('variant = "big"', 'variant = \'big\': expected "full" or "wide" or "lite"'),
        ("decoder = 3", 'decoder = 3: expected "full" or "half"'),
        ("init = 3", "init = 3: expected a path, in quotes"),
        ("manifest = [1]", "manifest = [1]: expected paths"),
        ("coarse = { ccp = 0 }", "coarse = {'ccp': 0}: expected a number above 0"),
        ("coarse = 3", "coarse = 3: expected a number above 0 for each source"),
        ("recipe = 3", "recipe = 3: expected a table, or the name of a TOML file"),
        ("[recipe]\nzom = 1", "recipe: 'zom' is unknown; did you mean zoom?"),
        ("[recipe]\nscenes = 2", "recipe: scenes is 2; expected a probability"),
        ('recipe = "none.toml"', "none.toml: cannot be read as TOML"),
        ("size = ", "cannot be read as TOML"),
    ],
)
def test_what_is_wrong_is_one_line(line: str, problem: str, tmp_path: Path) -> None:
    """It names the file, the key, the value, and what there is instead."""
    path = tmp_path / "my.toml"
    path.write_text(line + "\n")
    with pytest.raises(DataError) as error:
        read_config(path)
    assert str(error.value).startswith(f"{path}: ")
    assert problem in str(error.value)
    assert "\n" not in str(error.value)
    done = CliRunner().invoke(app, ["train", "--config", str(path), "--out", str(tmp_path / "x")])
    assert done.exit_code == 1
    assert done.output == f"error: {error.value}\n"
    assert not (tmp_path / "x").exists()


def test_a_recipe_of_its_own_file(tmp_path: Path) -> None:
    """Named in place of the table."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("scenes = 0.5\n")
    path = tmp_path / "my.toml"
    path.write_text(f'recipe = "{recipe.as_posix()}"\nepoch_size = 3\n')
    assert read_config(path) == {"recipe": Recipe(scenes=0.5), "epoch_size": 3}


def test_the_decoder_follows_the_variant() -> None:
    """Unless it is given."""
    assert TrainConfig((), Path(), variant="full").decoder == "full"
    assert TrainConfig((), Path(), variant="full", decoder="half").decoder == "half"
    assert TrainConfig((), Path(), variant="wide").decoder == "half"
