"""The committed reports describe the pipeline and the weights of today."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from light import Light, people_of_light

import u2net_human_plugin
from u2net_human_plugin.finetune.benchmarks.looks import table
from u2net_human_plugin.finetune.benchmarks.pipeline import PIPELINE, pipeline_sha256
from u2net_human_plugin.finetune.benchmarks.plugin import SIZES
from u2net_human_plugin.options import Options
from u2net_human_plugin.segmenter import HumanSegmenter
from u2net_human_plugin.weights import bundled

PACKAGE = Path(u2net_human_plugin.__file__).parent
REPORT = "model_cards/results/benchmark.json"
COMMAND = f"python -m finetune benchmark plugin --u2netp u2netp.onnx --json {REPORT}"


LOOKS_REPORT = "model_cards/results/looks/test_photos.json"
LOOKS_COMMAND = (
    "python -m finetune benchmark looks --manifest ../shared/data --limit 300 "
    f"--json {LOOKS_REPORT} --page docs/pages/speed.md"
)


def committed(name: str, command: str) -> dict[str, Any]:
    """A report of the repository."""
    path = Path(__file__).resolve().parents[2] / name
    if not path.is_file():
        pytest.fail(f"{name} is missing; make it: {command}")
    measured: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return measured


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """What is committed on speed and memory."""
    return committed(REPORT, COMMAND)


@pytest.mark.parametrize(("name", "command"), [(REPORT, COMMAND), (LOOKS_REPORT, LOOKS_COMMAND)])
def test_reports_are_of_this_pipeline_and_these_weights(name: str, command: str) -> None:
    """Whoever changes what makes masks measures anew."""
    measured = committed(name, command)
    found = measured["pipeline_sha256"], measured["weights_sha256"]
    assert found == (pipeline_sha256(), bundled().sha256), f"outdated; remake it: {command}"


def test_the_page_shows_the_report_on_looks() -> None:
    """The table in the documentation is that of the committed report."""
    page = (Path(__file__).resolve().parents[2] / "docs/pages/speed.md").read_text("utf-8")
    assert table(committed(LOOKS_REPORT, LOOKS_COMMAND)) in page


@pytest.mark.parametrize("label", SIZES)
def test_the_report_has_what_documents_quote(report: dict[str, Any], label: str) -> None:
    """Seconds, share outside the network and peak memory, at each size."""
    times, memory = report["predict"][label], report["peak_memory_mb"][label]
    assert times["bundled_s"] > 0
    assert 0 < times["bundled_outside_network"] < 1
    assert set(memory) == {"u2netp", "ours", "bundled"}


def test_the_hash_is_of_what_a_prediction_runs() -> None:
    """All modules whose code makes a mask with default options, and no others."""
    segmenter = HumanSegmenter(network=Light(), options=Options())
    picture = people_of_light((900, 600), (60, 40, 150, 180), (600, 300, 680, 500))
    ran: set[str] = set()

    def note(frame: FrameType, _event: str, _argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if path.parent == PACKAGE:
            ran.add(path.stem)

    segmenter.mask(picture)  # imports what is imported when first used
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        segmenter.mask(picture)
    finally:
        sys.setprofile(before)
    assert ran | {"network"} == set(PIPELINE)  # Light stands for the network


@pytest.mark.parametrize("name", PIPELINE)
def test_the_hash_sees_every_file(name: str, tmp_path: Path) -> None:
    """A change of any one of them changes it; line ends do not."""
    for module in PIPELINE:
        shutil.copy(PACKAGE / f"{module}.py", tmp_path)
    assert pipeline_sha256(tmp_path) == pipeline_sha256()
    changed = tmp_path / f"{name}.py"
    text = changed.read_text("utf-8")
    changed.write_bytes(text.replace("\n", "\r\n").encode())
    assert pipeline_sha256(tmp_path) == pipeline_sha256()
    changed.write_text(text + "#", "utf-8")
    assert pipeline_sha256(tmp_path) != pipeline_sha256()
