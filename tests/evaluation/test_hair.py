"""Pictures of hair: known answers of the drawing, and that files say what the picture holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from typer.testing import CliRunner

pytest.importorskip("skimage", reason="needs the extra rembg")

from u2net_human_plugin.finetune.__main__ import app
from u2net_human_plugin.finetune.data.manifest import read_manifest
from u2net_human_plugin.finetune.data.pictures import load_alpha, load_image
from u2net_human_plugin.finetune.evaluation.hair import _ground
from u2net_human_plugin.finetune.evaluation.strands import (
    FACTOR,
    WIDTHS,
    Strand,
    find_head,
    grow,
    render,
)

NOBODY = np.zeros((60, 80), np.float32)
GREY = np.full((60, 80, 3), 100, np.uint8)


def straight(start, end, widths, colour=(200, 50, 0)):
    """A Bézier curve that is a line of even speed."""
    points = np.linspace(np.array(start, float), np.array(end, float), 4)
    return Strand(points, widths, np.array(colour, np.uint8))


class TestRender:
    @pytest.mark.parametrize("width", [0.3, 0.5, 1.0, 3.0])
    @pytest.mark.parametrize("end", [(70.3, 31.7), (33.1, 55.2), (61.9, 10.4)])
    def test_a_strand_covers_its_width_times_its_length(self, width, end):
        """Whatever its direction, though it is thinner than a pixel."""
        start = (20.2, 30.1)
        layer = render(NOBODY, GREY, [straight(start, end, (width, width))])
        area = width * np.hypot(end[0] - start[0], end[1] - start[1])
        assert layer.alpha.sum() == pytest.approx(area, rel=0.03)

    def test_a_taper_covers_the_mean_width(self):
        """From 3 to 1 pixel: 2 on average, more at the root."""
        layer = render(NOBODY, GREY, [straight((10.3, 30.2), (60.3, 34.2), (3.0, 1.0))])
        assert layer.alpha.sum() == pytest.approx(2 * np.hypot(50, 4), rel=0.02)
        columns = layer.alpha.sum(axis=0)
        assert columns[14:18].mean() == pytest.approx(2.8, abs=0.15)
        assert columns[53:57].mean() == pytest.approx(1.2, abs=0.15)

    def test_where_a_strand_lies(self):
        """A pixel wide and in the middle of a row: that row alone, wholly."""
        layer = render(NOBODY, GREY, [straight((10, 30.5), (50, 30.5), (1.0, 1.0))])
        assert layer.alpha[30, 12:48] == pytest.approx(1, abs=1 / FACTOR)
        assert layer.alpha[[28, 32]].sum() == 0

    def test_a_curve_is_the_beziers(self):
        """The middle of a curve is (P0 + 3 P1 + 3 P2 + P3) / 8."""
        points = np.array([(10, 40), (20, 0), (50, 0), (60, 40)], float)
        layer = render(NOBODY, GREY, [Strand(points, (2.0, 2.0), np.zeros(3, np.uint8))])
        x, y = (points * [[1], [3], [3], [1]]).sum(axis=0) / 8
        assert (x, y) == (35, 10)
        column = layer.alpha[:, 35]
        assert (column * (np.arange(60) + 0.5)).sum() / column.sum() == pytest.approx(y, abs=0.1)

    def test_colours(self):
        """A strand's colour times its share of a pixel; before the body, in front of it."""
        body = np.zeros_like(NOBODY)
        body[30:] = 1
        layer = render(body, GREY, [straight((40.1, 5), (40.1, 55), (0.5, 0.5))])
        assert layer.premultiplied[10] == pytest.approx(layer.alpha[10][:, None] * (200, 50, 0))
        inside = layer.premultiplied[40, 40] + layer.premultiplied[40, 39]
        assert layer.alpha[40] == pytest.approx(1)
        assert inside == pytest.approx(2 * 100 + 0.5 * (np.array((200, 50, 0)) - 100), abs=1)
        assert layer.premultiplied[40, 10] == pytest.approx(100)

    def test_what_the_frame_cuts(self):
        """What lies outside is not drawn, and nothing comes back on the other side."""
        layer = render(NOBODY, GREY, [straight((70, 30.2), (110, 30.2), (1.0, 1.0))])
        assert layer.alpha.sum() == pytest.approx(10, rel=0.02)
        assert layer.alpha[:, :65].sum() == 0

    def test_nobody(self):
        """No body and no strand: nothing."""
        layer = render(NOBODY, GREY, [])
        assert layer.alpha.sum() == layer.premultiplied.sum() == 0


def figure(head=(100, 60, 30), height=200, width=200):
    """A disc on a neck and shoulders."""
    y, x = np.mgrid[:height, :width]
    body = np.hypot(x - head[0], y - head[1]) <= head[2]
    body |= (abs(x - head[0]) < head[2] / 2) & (y >= head[1])
    body |= (abs(x - head[0]) < 2.5 * head[2]) & (y > head[1] + 1.6 * head[2])
    return body.astype(np.float32)


class TestHead:
    def test_it_is_the_disc_above_the_shoulders(self):
        """Though a larger disc would fit into the chest."""
        head = find_head(figure())
        assert head is not None
        assert (head.x, head.y) == pytest.approx((100.5, 60.5), abs=6)
        assert head.radius == pytest.approx(30, abs=6)

    @pytest.mark.parametrize("head", [(100, 20, 30), (100, 60, 5)], ids=["cut", "small"])
    def test_none(self, head):
        """Cut by the frame, or too small for hair."""
        assert find_head(figure(head)) is None

    def test_strands_grow_from_it(self):
        """Roots on the outline around the head, tips outside, widths as promised."""
        body = figure()
        head = find_head(body)
        assert head is not None
        rgb = np.full((*body.shape, 3), 100, np.uint8)
        strands = grow(body, rgb, head, np.random.default_rng(0))
        roots = np.array([strand.points[0] for strand in strands])
        assert len(strands) >= 50
        assert np.hypot(*(roots - (100.5, 60.5)).T) == pytest.approx(29.5, abs=4)
        widths = np.array([strand.widths for strand in strands])
        assert WIDTHS[0] <= widths.min() <= widths.max() <= WIDTHS[1]
        assert render(body, rgb, strands).alpha.sum() > body.sum() + 50


def made(out: Path, *options: str) -> list[bytes]:
    """Run `hair`; the bytes of its files."""
    arguments = ["hair", "--out", str(out), "--side", "300", *options]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return [file.read_bytes() for file in sorted(out.rglob("*.*"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three pictures of the person that scikit-image brings, one on each kind of ground."""
    out = tmp_path_factory.mktemp("hair")
    made(out, "--count", "3")
    return out


class TestCommand:
    def test_picture_and_files_agree(self, folder):
        """On a plain ground the picture is alpha, colours and that ground, to the last bit."""
        rows = read_manifest(folder)
        assert [row.extra["ground"] for row in rows] == ["plain", "similar", "busy"]
        for row in rows:
            image, alpha = np.asarray(load_image(row)), np.asarray(load_alpha(row))
            foreground = np.asarray(Image.open(folder / row.extra["foreground"]))
            assert 0.001 < ((alpha > 0) & (alpha < 255)).mean() < 0.2
            assert (image[alpha == 255] == foreground[alpha == 255]).all()
            assert not foreground[alpha == 0].any()
        row = rows[0]
        image, alpha = np.asarray(load_image(row)), np.asarray(load_alpha(row))
        foreground = np.asarray(Image.open(folder / row.extra["foreground"]))
        ground = image[alpha == 0][0].astype(float)
        assert (image[alpha == 0] == ground).all()
        share = alpha[..., None] / 255
        assert (image == (share * foreground + (1 - share) * ground).round()).all()

    def test_a_seed_decides_everything(self, folder, tmp_path):
        """The same pictures again with the same, others with another; fewer are the first ones."""
        assert made(tmp_path / "same", "--count", "3") == [
            file.read_bytes() for file in sorted(folder.rglob("*.*"))
        ]
        other = made(tmp_path / "other", "--count", "1", "--seed", "1")
        first = made(tmp_path / "first", "--count", "1")
        image = "images/hair-0000.png"
        assert (tmp_path / "first" / image).read_bytes() == (folder / image).read_bytes()
        assert all(one != two for one, two in zip(first, other, strict=True))

    def test_people_and_scenes_of_a_manifest(self, tmp_path):
        """Colours of the cut-out's rim, where its old ground shows, are nowhere in the result."""
        alpha = figure()
        rim = np.dstack([np.full((200, 200), value, np.uint8) for value in (0, 255, 0)])
        inside = Image.fromarray(alpha > 0.5).resize((200, 200))
        core = np.asarray(inside.convert("L").filter(ImageFilter.MinFilter(3))) > 0
        rim[core] = (120, 60, 30)
        rgba = np.dstack([rim, (alpha * 255).astype(np.uint8)])
        Image.fromarray(rgba).save(tmp_path / "person.png")
        Image.new("RGB", (300, 200), (0, 0, 255)).save(tmp_path / "scene.png")
        rows = [
            {"image": "person.png", "mask": "alpha", "source": "made", "split": "train"},
            {"image": "scene.png", "mask": None, "source": "made", "split": "train"},
        ]
        manifest = tmp_path / "manifest.jsonl"
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        made(tmp_path / "out", "--manifest", str(manifest), "--count", "3")
        row = read_manifest(tmp_path / "out")[2]
        assert row.extra["person"] == "person.png"
        image, mask = np.asarray(load_image(row)), np.asarray(load_alpha(row))
        assert (image[mask == 0] == (0, 0, 255)).all()
        foreground = np.asarray(Image.open(tmp_path / "out" / row.extra["foreground"]))
        assert (foreground[mask > 0][:, 1] < foreground[mask > 0][:, 0]).all()
        wrong = ["hair", "--manifest", str(manifest), "--out", str(tmp_path / "x")]
        nobody = CliRunner().invoke(app, [*wrong, "--source", "others"])
        assert "others" in nobody.output

    def test_nobody_whose_head_is_large_enough(self, tmp_path):
        """Is said, before anything is written that looks like a result."""
        alpha = Image.fromarray((figure((100, 60, 5)) * 255).astype(np.uint8))
        picture = Image.new("RGB", (200, 200))
        picture.putalpha(alpha)
        picture.save(tmp_path / "person.png")
        manifest = tmp_path / "manifest.jsonl"
        manifest.write_text('{"image": "person.png", "mask": "alpha", "split": "test"}\n')
        arguments = ["hair", "--manifest", str(manifest), "--out", str(tmp_path / "out")]
        assert "large enough" in CliRunner().invoke(app, arguments).output
        assert not (tmp_path / "out" / "manifest.jsonl").exists()


@pytest.mark.parametrize("width", [603, 609, 626])
def test_a_ground_of_every_size(width):
    """603 / (603 / 600) is more than 600, by a rounding; no part is cut from beyond the scene."""
    scene = Image.new("RGB", (600, 400), (10, 20, 30))
    rng = np.random.default_rng(0)
    ground = _ground("busy", scene, np.zeros(3), (333, width), rng)
    assert ground.shape == (333, width, 3)
    assert (ground == (10, 20, 30)).all()
