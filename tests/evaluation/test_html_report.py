"""report.html: what it holds, and what a real browser makes of it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from browser import find_browser
from draw_report import PICTURE, draw
from PIL import Image

from u2net_human_plugin.finetune.evaluation.evaluate import make_report
from u2net_human_plugin.finetune.evaluation.examples import (
    choose_examples,
    draw_examples,
    save_sheets,
)
from u2net_human_plugin.finetune.evaluation.html_report import html
from u2net_human_plugin.finetune.evaluation.measure import Settings, choose_rows, measure
from u2net_human_plugin.finetune.predictors import Predictor

SIZE = (240, 200)


def everybody(image):
    return np.full(image.size[::-1], 255, np.uint8)


def nobody(image):
    return np.zeros(image.size[::-1], np.uint8)


class Page(HTMLParser):
    """Start tags with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def of(self, name, attribute):
        return [
            attributes for tag, attributes in self.tags if tag == name and attribute in attributes
        ]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report on fourteen red pictures of two sources; before marks everybody, after nobody."""
    folder = tmp_path_factory.mktemp("set")
    rows = []
    for index in range(14):
        Image.new("RGB", SIZE, (200, 10 + index, 10)).save(folder / f"{index}.png")
        mask = Image.new("L", SIZE)
        mask.paste(255, (0, 0, 20 + 15 * index, 200))
        mask.save(folder / f"{index}_mask.png")
        source = "<b>studio" if index % 2 else "street"
        rows.append({"image": f"{index}.png", "mask": f"{index}_mask.png", "source": source})
    rows.append({"image": "0.png", "mask": None, "source": "street"})
    lines = (json.dumps({"split": "test", **row}) + "\n" for row in rows)
    (folder / "manifest.jsonl").write_text("".join(lines))
    settings = Settings(str(folder), consistency=0)
    models = {"before": Predictor("all", everybody, {}), "after": Predictor("none", nobody, {})}
    chosen_rows = choose_rows(settings)
    results = measure(chosen_rows, models, settings)
    for place, result in enumerate(results[:14]):  # something to rank by
        result["after"]["iou"] = place / 20
    chosen = choose_examples(results)
    examples = draw_examples(chosen, results, chosen_rows, models)
    save_sheets(examples, folder)
    file = folder / "report.html"
    file.write_text(html(make_report(results, models, settings), results, examples), "utf-8")
    return file


def test_it_needs_nothing_else(page):
    """No address but data within, and a policy that would let none through."""
    text = page.read_text("utf-8")
    for attribute in ("src", "href", "action"):
        for attributes in (a for _, a in Page(text).tags if attribute in a):
            assert attributes[attribute].startswith("data:image/jpeg;base64,")
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|@import|url\(", text)


def test_tables_have_intervals_for_all_and_for_every_slice(page):
    """As many tables as slices and one for all; names are text, not markup."""
    text = page.read_text("utf-8")
    assert len(Page(text).of("section", "data-table")) == 1 + len(
        Page(text).of("option", "data-hash")
    )
    assert re.search(r"<td>IoU</td>\s*<td>0\.\d{4} <small>\[0\.\d{4}, 0\.\d{4}\]", text)
    assert "&lt;b&gt;studio" in text
    assert "<b>studio" not in text
    assert 'class="worse"' in text


def test_worst_best_random_and_some_of_each_slice_are_shown(page):
    """Ten of each kind, each picture once, with truth, photo, before and after."""
    figures = Page(page.read_text("utf-8")).of("figure", "data-kinds")
    kinds = [figure["data-kinds"].split(",") for figure in figures]
    assert [sum(kind in names for names in kinds) for kind in ("worst", "best", "random")] == [
        10
    ] * 3
    assert len(figures) == 14
    images = Page(page.read_text("utf-8")).of("img", "alt")
    assert [image["alt"] for image in images[:4]] == ["after", "before", "truth", "photo"]
    shown_of = {slice_id for figure in figures for slice_id in figure["data-slices"].split()}
    options = Page(page.read_text("utf-8")).of("option", "data-hash")
    assert shown_of == {option["value"] for option in options}


def test_sheets_rank_from_their_kinds_end(page):
    """The worst sheet starts with the least IoU, the best with the highest: ten lines each."""
    tops = {}
    for kind in ("worst", "best"):
        with Image.open(page.with_name(f"{kind}.jpg")) as sheet:
            assert sheet.size == (4 * 306 + 6, 10 * 328 + 6)
            # The truth's cell: as much of it is red as its mask is wide.
            row = np.asarray(sheet.convert("RGB").crop((312, 150, 612, 151)), int)[0]
            tops[kind] = int(((row[:, 0] - row[:, 1]) > 90).sum())
    assert tops["worst"] < 60
    assert tops["best"] > 240


def test_readmes_picture():
    """It is there, small enough for a page, and the trainer's README and the site show it."""
    assert PICTURE.stat().st_size <= 150_000
    checkout = PICTURE.parents[2]
    assert "../docs/pages/report.webp" in (checkout / "finetune" / "README.md").read_text("utf-8")
    assert "(report.webp)" in PICTURE.with_name("training.md").read_text("utf-8")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    return find_browser(tmp_path_factory.mktemp("browser"))


@pytest.mark.process
@pytest.mark.slow
class TestBrowser:
    """In headless Chromium, without a network."""

    def test_a_slice_filters_tables_dots_and_pictures(self, page, browser):
        """Also as part of the address: #title=name."""
        dom = Page(browser.dom(page, "#source%3Dstreet"))
        (street,) = (
            o["value"] for o in dom.of("option", "data-hash") if o["data-hash"] == "source=street"
        )
        for name in ("figure", "circle"):
            items = dom.of(name, "data-slices")
            assert 0 < sum("hidden" in item for item in items) < len(items)
            for item in items:
                assert ("hidden" in item) == (street not in item["data-slices"].split())
        shown = [s["data-table"] for s in dom.of("section", "data-table") if "hidden" not in s]
        assert shown == [street]

    def test_without_a_slice_all_is_shown(self, page, browser):
        """The script has counted the pictures."""
        text = browser.dom(page)
        assert '<span id="count">14 shown</span>' in text
        assert not [f for f in Page(text).of("figure", "data-kinds") if "hidden" in f]

    def test_the_slider_parts_before_from_after(self, page, browser, tmp_path):
        """Left of the line what before keeps, all; right of it what after keeps, nothing."""
        widths = {}
        for percent in (50, 20):
            script = (
                "<script>document.body.replaceChildren(document.querySelector('figure'));"
                "const hand = document.querySelector('.compare input');"
                f"hand.value = {percent}; hand.dispatchEvent(new Event('input'))</script></body>"
            )
            moved = tmp_path / f"{percent}.html"
            moved.write_text(page.read_text("utf-8").replace("</body>", script), "utf-8")
            shot = np.asarray(browser.screenshot(moved, size="900,700"), int)
            red = (shot[..., 0] - shot[..., 1]) > 90
            line = red[np.flatnonzero(red.any(axis=1))[50]]
            start = np.flatnonzero(line)[0]
            widths[percent] = np.flatnonzero(~line[start:])[0]
        assert widths[50] > 100
        assert widths[20] / widths[50] == pytest.approx(0.4, abs=0.03)

    def test_readmes_picture_can_be_drawn(self, tmp_path):
        """From nothing but what packages bring: a light page with the astronaut on it."""
        pytest.importorskip("skimage", reason="needs the extra rembg")
        draw("bundled?refine=off", tmp_path / "report.webp", count=3)
        with Image.open(tmp_path / "report.webp") as shot:
            pixels = np.asarray(shot.convert("RGB"), int)
        assert (pixels.min(axis=2) > 240).mean() > 0.3
        orange = (pixels[..., 0] > 150) & (pixels[..., 0] - pixels[..., 2] > 90)
        assert orange.mean() > 0.01
