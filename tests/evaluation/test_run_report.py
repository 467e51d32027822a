"""`python -m finetune report RUN`: a run's curves as one page."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from browser import find_browser
from typer.testing import CliRunner

from u2net_human_plugin.finetune.__main__ import app
from u2net_human_plugin.finetune.evaluation.run_report import run_html


@pytest.fixture
def run(tmp_path):
    """A run of 1000 steps, validated at four of them, and an older record beside."""
    folder = tmp_path / "<mine>"
    folder.mkdir()
    record = {
        "arguments": {"lr": 0.0003},
        "step": 1000,
        "steps": 4000,
        "seconds": 660.0,
        "losses": [math.exp(-step / 300) for step in range(1000)],
        "history": [
            {"step": step, "score": 0.5 + step / 4000, "photos_iou": 0.9}
            for step in (0, 300, 600, 900)
        ],
    }
    (folder / "last.json").write_text(json.dumps(record))
    (folder / "z.json").write_text(json.dumps({**record, "step": 7}))
    (folder / "broken.json").write_text("{")
    return folder


def test_curves_of_the_loss_and_of_every_score(run):
    """At most 400 points of the loss, all of the scores; of the newest record."""
    result = CliRunner().invoke(app, ["report", str(run)])
    assert result.exit_code == 0, result.output
    assert "1000 of 4000 steps, from last.json; best score 0.7250 at step 900" in result.output
    text = (run / "report.html").read_text("utf-8")
    lines = [line.split() for line in re.findall(r'points="([^"]*)"', text)]
    assert [len(line) for line in lines] == [400, 4, 4]
    assert lines[1] == ["0.00,50.00", "33.33,33.33", "66.67,16.67", "100.00,0.00"]
    heights = [float(point.split(",")[1]) for point in lines[0]]
    assert heights == sorted(heights)
    assert re.findall(r"<b>(.*?)</b>", text) == ["loss", "score", "photos iou"]
    assert "step 300: 0.575" in text
    assert "<strong>result so far: step 900, score 0.7250</strong>" in text
    assert "&lt;mine&gt;" in text
    assert "<mine>" not in text
    assert not re.search(r"https?://|src=", text)


@pytest.mark.parametrize(
    ("scores", "result"),
    [
        ((0.2, 0.4004, 0.3), "step 60, score 0.4004"),
        ((0.4, 0.4, 0.3), "the starting weights; nothing was gained"),
        ((), "step 90, the last; nothing was measured"),
    ],
)
def test_the_page_says_which_weights_are_the_result(scores, result):
    """Not the last ones, if earlier ones were better."""
    history = [{"step": 60 * n, "score": score} for n, score in enumerate(scores)]
    record = {"step": 90, "steps": 120, "seconds": 1.0, "history": history, "losses": []}
    assert f"<strong>result: {result}</strong>" in run_html(record, "run", finished=True)
    assert f"result so far: {result}" in run_html(record, "run")


def test_losses_that_are_not_finite_leave_a_gap():
    """They do not scale the rest away."""
    record = {"step": 4, "steps": 9, "seconds": 1.0, "history": []}
    text = run_html({**record, "losses": [1.0, math.nan, 0.5, math.inf]}, "run")
    (line,) = re.findall(r'points="([^"]*)"', text)
    assert line == "25.00,0.00 75.00,50.00"


def test_a_folder_without_a_run_is_named(tmp_path):
    """The error says what is looked for."""
    (tmp_path / "report.json").write_text("{}")
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 1
    assert f"{tmp_path}: holds no record" in result.output


@pytest.mark.process
@pytest.mark.slow
def test_a_browser_draws_the_curves(run, tmp_path):
    """In the accent's colour, from the upper left to the lower right."""
    browser = find_browser(tmp_path)
    CliRunner().invoke(app, ["report", str(run)])
    shot = np.asarray(browser.screenshot(run / "report.html", size="900,900"), int)
    blue = (shot[..., 2] - shot[..., 0]) > 100
    rows, columns = np.nonzero(blue[:, :450])
    assert rows.size > 100
    assert (
        rows[columns < np.quantile(columns, 0.2)].mean()
        < rows[columns > np.quantile(columns, 0.8)].mean()
    )
