"""Batches: what is drawn, what becomes of truth, and what a file's compression does."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from u2net_human_plugin.errors import DataError
from u2net_human_plugin.finetune.training import batch as batches
from u2net_human_plugin.finetune.training.bank import Bank
from u2net_human_plugin.finetune.training.batch import Batches
from u2net_human_plugin.finetune.training.light import compressed, normalized
from u2net_human_plugin.finetune.training.recipe import Recipe, read_recipe, recipe_of
from u2net_human_plugin.preprocess import normalize

SIDE = 64
#: Nothing is pasted, moved, lit or spoilt.
STILL = Recipe(
    **dict.fromkeys(
        ("scenes", "joined", "distractors", "tight", "stretch", "turn", "lying", "light", "grey"),
        0.0,
    ),
    **dict.fromkeys(("dark", "blurred", "coarse", "noisy", "jpeg"), 0.0),
    whole=0.0,
    zoom=(1.0, 1.0),
)


def bank_of(kinds: list[str], **planes: torch.Tensor) -> Bank:
    """Pictures of noise; in photos and cut-outs the right third is a person."""
    torch.manual_seed(1)
    count = len(kinds)
    alpha = torch.zeros(count, 1, SIDE, SIDE, dtype=torch.uint8)
    box = torch.zeros(count, 4)
    for number, kind in enumerate(kinds):
        if kind != "scene":
            alpha[number, :, 16:, 40:] = 255
            box[number] = torch.tensor([40 / SIDE, 16 / SIDE, 1, 1])
    shown = {
        "rgb": torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8),
        "alpha": alpha,
        "weight": torch.full_like(alpha, 255),
    }
    pasted = torch.tensor([n for n, kind in enumerate(kinds) if kind == "distractor"]).long()
    ones = torch.ones(count)
    return Bank(Path(), shown | planes, ones, box, ones, kinds, pasted)  # type: ignore[arg-type]


@pytest.fixture
def upright(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is mirrored."""
    monkeypatch.setattr(batches.Draw, "sign", lambda _, count, _share: torch.ones(count))


@pytest.mark.usefixtures("upright")
def test_an_unchanged_photo_is_the_decoded_one_as_inference_sees_it() -> None:
    """Identity maps; normalised as the plugin does it; truth and weight as stored."""
    weight = torch.full((1, 1, SIDE, SIDE), 255, dtype=torch.uint8)
    weight[..., :8] = 0
    bank = bank_of(["photo"], weight=weight)
    batch = Batches(bank, STILL).draw(0, 1, SIDE)
    expected = normalize(bank.planes["rgb"][0].permute(1, 2, 0).numpy())
    np.testing.assert_allclose(batch.image[0].numpy(), expected, atol=2e-3)
    np.testing.assert_allclose(batch.alpha, bank.planes["alpha"] / 255, atol=1e-4)
    np.testing.assert_allclose(batch.weight, weight / 255, atol=1e-4)
    assert batch.before is None


@pytest.mark.parametrize("brightest", [255, 100])
def test_normalisation_is_that_of_inference(brightest: int) -> None:
    """Of dark pictures, too."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, brightest + 1, (20, 30, 3), np.uint8)
    ours = normalized(torch.from_numpy(rgb).permute(2, 0, 1)[None] / 255)[0]
    np.testing.assert_allclose(ours.numpy(), normalize(rgb), atol=1e-5)


def test_a_batch_depends_on_seed_and_number_alone() -> None:
    """Whatever was drawn before; other seeds and numbers are other batches."""
    bank = bank_of(["photo", "scene", "cutout", "distractor"])
    draws = {}
    for seed, number in ((0, 3), (0, 4), (1, 3)):
        torch.manual_seed(number)
        draws[seed, number] = Batches(bank, Recipe(), seed).draw(number, 4, 32)
    supply = Batches(bank, Recipe())
    supply.draw(0, 2, 32)
    for one, other in zip(supply.draw(3, 4, 32), draws[0, 3], strict=True):
        assert one is other is None or torch.equal(one, other)
    images = [batch.image for batch in draws.values()]
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


def test_empty_scenes_are_empty_and_wholly_known() -> None:
    """Whatever the stored alpha says, which may be of a thing, and with things pasted in."""
    bank = bank_of(["scene", "photo", "distractor"])
    bank.planes["alpha"][0] = 255
    bank.planes["weight"][0] = 0
    recipe = replace(Recipe(), scenes=1.0, empty=1.0, distractors=1.0)
    batch = Batches(bank, recipe).draw(0, 8, 32)
    assert batch.alpha.max() == 0
    assert batch.weight.min() == 1


def test_a_pasted_figure_is_in_alpha_and_hides_what_it_covers() -> None:
    """White people on a black scene: the picture and its truth agree everywhere."""
    bank = bank_of(["scene", "cutout"])
    bank.planes["rgb"][0], bank.planes["rgb"][1] = 0, 255
    recipe = replace(STILL, scenes=1.0, empty=0.0, height=(0.3, 0.9), lying=0.3)
    batch = Batches(bank, recipe).draw(5, 16, SIDE)
    shown = batch.image[:, :1] - batch.image.amin((1, 2, 3), keepdim=True)
    shown = shown / shown.amax((1, 2, 3), keepdim=True).clamp(min=1)
    assert (batch.alpha.amax((1, 2, 3)) > 0.9).float().mean() > 0.8
    # Where several overlap, the picture is covered a little more than the larger of two alphas.
    assert (shown - batch.alpha).abs().mean() < 0.01
    assert (shown.gt(0.9) == batch.alpha.gt(0.9)).float().mean() > 0.99
    assert batch.weight.min() == 1


def test_a_thing_in_front_of_somebody_is_nobody() -> None:
    """Alpha falls where it covers a person, and nowhere rises."""
    bank = bank_of(["photo", "distractor"])
    bank.planes["alpha"][0] = 255
    recipe = replace(STILL, distractors=1.0, height=(0.5, 0.9))
    batch = Batches(bank, recipe).draw(1, 8, SIDE)
    covered = batch.alpha < 0.1
    assert 0.05 < covered.float().mean() < 0.9


def test_a_pasted_edge_has_no_colour_from_beside_the_figure() -> None:
    """A grey person with a soft edge, cut from black, on white: no pixel darker than grey."""
    bank = bank_of(["scene", "cutout"])
    bank.planes["rgb"][0] = 255
    ramp = torch.linspace(0, 255, 24).round().to(torch.uint8)
    bank.planes["rgb"][1] = 0
    bank.planes["rgb"][1, :, 16:, 40:] = 128
    bank.planes["alpha"][1, 0, 16:, 40:] = ramp
    recipe = replace(STILL, scenes=1.0, empty=0.0, most_people=1, height=(0.5, 0.9))
    image = Batches(bank, recipe).draw(2, 8, SIDE).image
    grey = normalized(torch.tensor([128.0, 255.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2) / 255)[
        ..., 0
    ]
    assert (image.amin((2, 3)) >= grey[..., 0] - 0.02).all()


def test_pictures_with_something_pasted_in_are_not_known_to_the_old_network() -> None:
    """What it answered, it answered without that; on all others it is known."""
    before = torch.full((2, 1, SIDE, SIDE), 51, dtype=torch.uint8)
    bank = bank_of(["photo", "cutout"], before=before)
    kept = Batches(bank, STILL).draw(0, 4, 32)
    assert kept.before is not None
    np.testing.assert_allclose(kept.before, 0.2, atol=1e-3)
    assert (kept.before_weight == 1).all()
    joined = Batches(bank, replace(STILL, joined=1.0)).draw(0, 4, 32)
    assert (joined.before_weight == 0).all()


@pytest.mark.parametrize("kinds", [["cutout"], ["cutout", "scene"], ["photo"]], ids=str)
def test_whatever_there_is_makes_a_batch(kinds: list[str]) -> None:
    """Cut-outs stand on scenes, and without any on plain colour; photos need neither."""
    batch = Batches(bank_of(kinds), Recipe()).draw(0, 8, 48)
    assert batch.image.shape == (8, 3, 48, 48)
    assert torch.isfinite(batch.image).all()
    assert 0 < batch.alpha.mean() < 1
    assert batch.alpha.amin() >= 0
    assert batch.alpha.amax() <= 1


def test_pictures_are_drawn_in_proportion_to_their_share() -> None:
    """Nine to one."""
    bank = bank_of(["photo", "photo"])
    bank.planes["rgb"][0], bank.planes["rgb"][1] = 255, 0
    shared = replace(bank, share=torch.tensor([0.9, 0.1]))
    images = Batches(shared, STILL).draw(0, 400, 8).image
    assert 0.85 < (images.amax((1, 2, 3)) > 0).float().mean() < 0.95


@pytest.mark.parametrize("quality", [10, 40, 85])
@pytest.mark.parametrize("size", [(64, 96), (57, 83)], ids=str)
def test_compression_is_close_to_a_jpeg_file(
    astronaut: Image.Image, quality: int, size: tuple[int, int]
) -> None:
    """Nearer to Pillow's result than that is to the picture, and as much changed."""
    picture = astronaut.resize(size)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    saved = np.asarray(Image.open(stream), np.float32)
    original = np.asarray(picture, np.float32)
    tensor = torch.from_numpy(original / 255).permute(2, 0, 1)[None]
    ours = compressed(tensor, torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy() * 255
    assert ours.shape == saved.shape
    damage = np.abs(saved - original).mean()
    assert np.abs(ours - saved).mean() < 0.5 * damage
    assert np.abs(ours - original).mean() == pytest.approx(damage, rel=0.25)


def test_a_recipe_comes_from_toml(tmp_path: Path) -> None:
    """What the file leaves out is the default."""
    file = tmp_path / "recipe.toml"
    file.write_text("scenes = 0.5\nmost_people = 2\nzoom = [0.6, 1]\n[sources]\na = 0.5\n")
    expected = Recipe(scenes=0.5, most_people=2, zoom=(0.6, 1.0), sources={"a": 0.5})
    assert read_recipe(file) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("scene = 0.5", "'scene' is unknown; did you mean scenes?"),
        ("scenes = 1.5", "scenes is 1.5; expected a probability"),
        ("scenes = 'all'", "scenes is 'all'; expected something like 0.3"),
        ("zoom = 0.5", "zoom is 0.5; expected something like"),
        ("zoom = [1.0, 0.5]", "zoom is 1.0, 0.5; expected two numbers, the lower one first"),
        ("zoom = [0, 0.5]", "zoom is 0.0, 0.5; expected two positive numbers"),
        ("gamma = [0.2, -0.2]", "gamma is 0.2, -0.2; expected two numbers"),
        ("noise = -1", "noise is -1; expected a number from 0 on"),
        ("most_joined = 0", "most_joined is 0; expected at least 1"),
        ("most_people = 0", "most_people is 0; expected at least 1"),
        ("[sources]\na = 2", "source a is 2"),
        ("scenes", "cannot be read as TOML"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    """The message names the file, the key and the value."""
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    with pytest.raises(DataError) as caught:
        read_recipe(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert problem in str(caught.value)


def test_every_key_of_a_recipe_is_used() -> None:
    """By what makes batches; "sources" by what chooses their pictures."""
    folder = Path(batches.__file__).parent
    text = "".join((folder / name).read_text("utf-8") for name in ("batch.py", "light.py"))
    unused = [name for name in vars(Recipe()) if not re.search(rf"recipe\.{name}\b", text)]
    assert unused == ["sources"]


def test_a_recipe_survives_a_record() -> None:
    """As JSON holds it, with lists for tuples."""
    import dataclasses
    import json

    recipe = Recipe(zoom=(0.7, 0.9), sources={"a": 0.1})
    assert recipe_of(json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe
