"""What is measured on soft mattes, on hazy answers, and where a mask leaves something open."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image, ImageFilter

from u2net_human_plugin.errors import DataError
from u2net_human_plugin.finetune.evaluation import matting, tables
from u2net_human_plugin.finetune.evaluation.evaluate import make_report
from u2net_human_plugin.finetune.evaluation.measure import Settings, choose_rows, measure
from u2net_human_plugin.finetune.predictors import Predictor

HARD = Image.new("L", (300, 200))
HARD.paste(255, (80, 30, 220, 200))
SOFT = HARD.filter(ImageFilter.GaussianBlur(3))


@pytest.fixture
def evaluated(tmp_path):
    """Results and report of two answers on a picture with this mask."""

    def run(mask, before, after, scene=False, trimap=None):
        Image.new("RGB", mask.size, "grey").save(tmp_path / "a.png")
        mask.save(tmp_path / "m.png")
        row = {"image": "a.png", "mask": None if scene else "m.png", "split": "test"}
        if trimap is not None:
            trimap.save(tmp_path / "t.png")
            row["bystanders"] = "t.png"
        (tmp_path / "manifest.jsonl").write_text(json.dumps(row) + "\n")
        settings = Settings(str(tmp_path), consistency=0)
        models = {
            name: Predictor(name, lambda _, answer=answer: np.asarray(answer), {})
            for name, answer in (("before", before), ("after", after))
        }
        results = measure(choose_rows(settings), models, settings)
        return results, lambda: make_report(results, models, settings)

    return run


def test_mattes_have_the_errors_of_matting(evaluated):
    """Those of the functions, over the true matte's unknown band; a perfect answer has none."""
    (result,), report = evaluated(SOFT, HARD, SOFT)
    truth, band = np.asarray(SOFT), matting.unknown_band(np.asarray(SOFT))
    errors = {
        "sad": matting.sad,
        "mse": matting.mse,
        "grad": matting.gradient_error,
        "conn": matting.connectivity_error,
    }
    for name, error in errors.items():
        assert result["before"][name] == error(np.asarray(HARD), truth, band) > 0
        assert result["after"][name] == 0
        assert report()["overall"][name]["error_cut"] == 1.0
    assert "| SAD, thousands, of mattes | " in tables.markdown(report())


def test_masks_without_soft_edges_have_none_of_them(evaluated):
    """There, a soft answer is not wrong."""
    (result,), report = evaluated(HARD, HARD, SOFT)
    assert "sad" not in result["after"]
    assert "of mattes" not in tables.markdown(report())


def test_haze_is_reported_for_people_and_for_empty_scenes(evaluated):
    """Half-transparent pixels away from contours; in a scene there is none, so all count."""
    hazy = np.asarray(HARD).copy()
    hazy[:100, :40] = 100
    (result,), report = evaluated(HARD, HARD, Image.fromarray(hazy))
    away = int((~matting.unknown_band(np.asarray(HARD))).sum())
    assert result["before"]["haze"] == 0
    assert result["after"]["haze"] == pytest.approx(100 * 40 / away)
    assert report()["overall"]["haze"]["after"]["mean"] == pytest.approx(100 * 40 / away)

    half = Image.new("L", HARD.size)
    half.paste(100, (0, 0, 150, 200))
    (result,), report = evaluated(HARD, half, Image.new("L", HARD.size), scene=True)
    assert result["before"]["haze"] == 0.5
    assert "Half-transparent pixels in them: 50.0 % → 0.0 % of 1." in tables.markdown(report())


def test_what_a_trimap_leaves_open_does_not_count(evaluated):
    """Neither for nor against: only what is wrong elsewhere costs."""
    trimap = Image.new("L", HARD.size)
    trimap.paste(128, (0, 0, 60, 200))
    also_there = HARD.copy()
    also_there.paste(255, (0, 0, 60, 200))
    elsewhere = HARD.copy()
    elsewhere.paste(255, (240, 0, 300, 200))
    (result,), _ = evaluated(HARD, also_there, elsewhere, trimap=trimap)
    assert (result["before"]["iou"], result["before"]["mae"]) == (1, 0)
    assert result["after"]["iou"] < 0.9
    (result,), report = evaluated(HARD, HARD, HARD, trimap=Image.new("L", (5, 5)))
    assert "t.png: its shape is (5, 5)" in result["error"]
    with pytest.raises(DataError, match="not one picture"):
        report()
