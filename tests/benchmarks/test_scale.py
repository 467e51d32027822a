"""What a million photos cost, against what is calculated by hand."""

from __future__ import annotations

import copy
import json

import pytest

from u2net_human_plugin.errors import DataError
from u2net_human_plugin.finetune.benchmarks import scale

REPORT = {
    "photos": 40,
    "cores": 2,
    "load": 0.53,
    "ways": {"rembg p": {"a second": 1.5, "seconds": 26.7, "MB": 1200.4}},
    "photo": {"seconds": 0.36, "bytes_in": 1_500_000, "bytes_out": 500_000},
    "driver": {"seconds": 0.001, "bytes": 2_000},
}


def row(estimated, photos, cores):
    return next(r for r in estimated["rows"] if (r["photos"], r["cores"]) == (photos, cores))


def test_what_was_measured_stands_before_it():
    """A line for each way, and the load if the system tells it."""
    text = scale.render(REPORT)
    assert "40 photos (2 cores, load 0.5 at the start)" in text
    assert "| rembg p | 1.50 | 1,200 MB |" in text
    assert "(2 cores);" in scale.render({**REPORT, "load": None})


def test_estimate():
    """A million times 0.36 s are 100 core-hours, and times 2 MB 2 000 GB."""
    estimated = scale.estimate(REPORT)
    million = row(estimated, 1_000_000, 16)
    assert million["core_hours"] == pytest.approx(100)
    assert million["hours"] == pytest.approx(100 / 16)
    assert million["gigabytes"] == pytest.approx(2000)
    assert million["megabits"] == pytest.approx(2e12 * 8 / 1e6 / (100 / 16 * 3600))
    assert million["driver_gigabytes"] == pytest.approx(2)
    assert estimated["cores"] == pytest.approx(360)
    assert estimated["photos"] == pytest.approx(scale.MEMORY / 2000)


def test_one_process_hands_out():
    """More cores than it keeps busy make nothing faster."""
    million = row(scale.estimate(REPORT), 1_000_000, 1000)
    assert million["hours"] == pytest.approx(1000 / 3600)
    slow = copy.deepcopy(REPORT)
    slow["driver"]["seconds"] = 0.002
    assert row(scale.estimate(slow), 1_000_000, 1000)["hours"] == pytest.approx(2000 / 3600)


def test_page(tmp_path, capsys):
    """The page gets the estimate between its marks, again and again; else it is printed."""
    report, page = tmp_path / "report.json", tmp_path / "page.md"
    report.write_text(json.dumps(REPORT))
    page.write_text("a\n<!-- scale:start -->\noutdated\n<!-- scale:end -->\nb\n")
    scale.scale(report, page)
    once = page.read_text("utf-8")
    assert "outdated" not in once
    assert "| 1,000,000 | 16 | 100 | 6.2 | 2,000 GB |" in once
    assert (once.startswith("a\n<!--"), once.endswith("-->\nb\n")) == (True, True)
    scale.scale(report, page)
    assert page.read_text("utf-8") == once
    scale.scale(report)
    assert "| 1,000,000 | 16 | 100 |" in capsys.readouterr().out


def test_no_report(tmp_path):
    """Other JSON, and a page without marks, are named."""
    report = tmp_path / "other.json"
    report.write_text("{}")
    with pytest.raises(DataError, match=r"other\.json: not a report"):
        scale.scale(report)
    report.write_text(json.dumps(REPORT))
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(DataError, match=r"page\.md: expected one"):
        scale.scale(report, page)
