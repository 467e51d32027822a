"""`mattes`: errors with known answers, and the command on pictures that `hair` has made."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from u2net_human_plugin.finetune.__main__ import app
from u2net_human_plugin.finetune.evaluation import matting
from u2net_human_plugin.finetune.evaluation.mattes import METRICS, scores

HEIGHT, WIDTH, EDGE = 120, 160, 80
#: The person is red and the ground blue; the edge is hard.
TRUTH = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
TRUTH[:, :EDGE] = (255, 0, 0, 255)
IMAGE = Image.fromarray(np.where(TRUTH[..., 3:] > 0, TRUTH[..., :3], (0, 0, 255)).astype(np.uint8))


def answering(cutout):
    """A way that gives the same answer whatever it is asked."""

    def way(_image, _trimap):
        yield "one", Image.fromarray(cutout)

    return way


def errors_of(cutout):
    return scores(IMAGE, TRUTH, [answering(cutout)])["one"]


def test_the_truth_has_no_error():
    """Not even where the colours under alpha 0 are others."""
    hidden = TRUTH.copy()
    hidden[:, EDGE:, :3] = (9, 200, 3)
    for cutout in (TRUTH, hidden):
        assert {metric: errors_of(cutout)[metric] for metric in METRICS} == dict.fromkeys(
            METRICS, 0
        )


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_a_shifted_mask(shift):
    """Each row is wrong on as many pixels as it is shifted; so are the colours, by one channel."""
    shifted = TRUTH.copy()
    shifted[:, EDGE - shift : EDGE] = 0
    found = errors_of(shifted)
    band = 2 * round(matting.BAND * np.hypot(HEIGHT, WIDTH))
    assert found["sad"] == pytest.approx(HEIGHT * shift / 1000)
    assert found["mse"] == pytest.approx(shift / band)
    assert found["colour"] == pytest.approx(shift / band / 3)


def test_the_grounds_colour_in_an_edge_is_an_error_of_colour_alone():
    """A half-transparent pixel of red, seen as half blue: a quarter in two of three channels."""
    truth = TRUTH.copy()
    truth[:, EDGE - 1, 3] = 128
    seen = truth.copy()
    seen[:, EDGE - 1, :3] = (128, 0, 127)
    found = scores(IMAGE, truth, [answering(seen)])["one"]
    band = matting.unknown_band(truth[..., 3])[0].sum()
    assert found["sad"] == found["mse"] == 0
    assert found["colour"] == pytest.approx(2 * (127 / 255) * (128 / 255) / band / 3)
    assert matting.colour_error(seen, truth, np.zeros((HEIGHT, WIDTH), bool)) == 0


def test_ways_are_told_the_true_trimap():
    """Unknown in the band alone."""
    told = []

    def way(_image, trimap):
        told.append(trimap)
        yield "one", Image.fromarray(TRUTH)

    scores(IMAGE, TRUTH, [way])
    band = matting.unknown_band(TRUTH[..., 3])
    assert (told[0] == np.where(band, 0.5, TRUTH[..., 3] / 255)).all()


@pytest.fixture(scope="module")
def hair(tmp_path_factory):
    """A plain ground, and one of the hair's colour."""
    pytest.importorskip("rembg", reason="needs the extra rembg")
    out = tmp_path_factory.mktemp("hair")
    done = CliRunner().invoke(app, ["hair", "--out", str(out), "--count", "2", "--side", "300"])
    assert done.exit_code == 0, done.output
    return out


class TestCommand:
    def test_it_compares_every_way(self, hair, tmp_path):
        """Decontaminating changes no alpha; who is told the true band is best."""
        done = CliRunner().invoke(app, ["mattes", "--manifest", str(hair), "--out", str(tmp_path)])
        assert done.exit_code == 0, done.output
        report = json.loads((tmp_path / "report.json").read_text("utf-8"))
        ways = report["ways"]
        assert list(ways) == [
            "bundled: rembg",
            "bundled: rembg -a",
            *(
                f"bundled: refine={refine}{colours}"
                for refine in ("off", "on", "matting")
                for colours in ("", ", decontaminated")
            ),
            "closed form, told the true band",
        ]
        shipped, decontaminated = (
            ways["bundled: refine=on"],
            ways["bundled: refine=on, decontaminated"],
        )
        assert (
            shipped["sad"]
            == decontaminated["sad"]
            == ways["bundled: rembg"]["sad"] | {"difference": shipped["sad"]["difference"]}
        )
        assert decontaminated["colour"]["mean"] != shipped["colour"]["mean"]
        assert shipped["sad"]["difference"]["mean"] == 0
        plain = {name: scores["by_ground"]["plain"]["sad"] for name, scores in ways.items()}
        assert min(plain, key=plain.__getitem__) == list(ways)[-1]
        assert report["grounds"] == {"plain": 1, "similar": 1}
        assert (tmp_path / "report.md").read_text("utf-8") in done.stdout

    def test_a_picture_that_cannot_be_read(self, hair, tmp_path):
        """The others are measured, it is named, and the command fails."""
        broken = tmp_path / "hair"
        shutil.copytree(hair, broken)
        (broken / "foregrounds" / "hair-0001.png").write_bytes(b"nothing")
        arguments = ["mattes", "--manifest", str(broken), "--out", str(tmp_path / "out")]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 1
        assert "failed: hair-0001.png" in done.stderr
        report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
        assert report["pictures"] == len(report["failures"]) == 1

    def test_another_manifest(self, tmp_path):
        """Photos whose colours nobody knows are refused before anything is measured."""
        Image.new("RGBA", (9, 9)).save(tmp_path / "a.png")
        (tmp_path / "manifest.jsonl").write_text('{"image": "a.png", "mask": "alpha"}\n')
        arguments = ["mattes", "--manifest", str(tmp_path), "--out", str(tmp_path / "out")]
        done = CliRunner().invoke(app, arguments)
        assert "a.png" in done.output
        assert "hair" in done.output
        assert not (tmp_path / "out").exists()
