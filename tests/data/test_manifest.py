"""Manifests: what is written is read back, and a wrong line is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from u2net_human_plugin.errors import DataError
from u2net_human_plugin.finetune.data.manifest import Row, read_manifest, write_manifest


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (60, 40)).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_a_written_manifest_reads_back_the_same(picture: Path, tmp_path: Path) -> None:
    """All kinds of rows survive, with further keys, from another folder than the files'."""
    (tmp_path / "sub").mkdir()
    rows = [
        Row(picture, picture.with_name("m.png"), "studio", "test", "CC0-1.0", {"group": "ab"}),
        Row(picture, "alpha", "studio", "train", "", {}),
        Row(picture, None, "", None, "", {"boxes": [[1.0, 2.0, 3.0, 4.0, 0.5]]}),
    ]
    manifest = tmp_path / "sub" / "manifest.jsonl"
    write_manifest(manifest, rows)
    assert str(tmp_path) not in manifest.read_text("utf-8")
    found = read_manifest(manifest.parent, check_files=False)
    resolved = [
        (row.image.resolve(), row.mask.resolve() if isinstance(row.mask, Path) else row.mask)
        for row in found
    ]
    assert resolved == [(row.image, row.mask) for row in rows]
    assert [(r.source, r.split, r.licence, r.extra) for r in found] == [
        (r.source, r.split, r.licence, r.extra) for r in rows
    ]


@pytest.mark.parametrize("name", ["a\u2028b\u2029c\x85d.png", "caf\udce9.png", "schön ☃.png"])
def test_any_file_name_survives(name: str, tmp_path: Path) -> None:
    """Line ends that are none of JSON's, and what is no UTF-8; the rest stays legible."""
    manifest = tmp_path / "manifest.jsonl"
    write_manifest(manifest, [Row(tmp_path / name, None), Row(tmp_path / "b.png", None)])
    first, second = read_manifest(manifest, check_files=False)
    assert (first.image.name, second.image.name) == (name, "b.png")
    assert second.where.endswith(":2")
    assert ("schön ☃.png" in manifest.read_text("utf-8")) == name.startswith("schön")


def test_lines_may_end_as_on_windows(picture: Path) -> None:
    """With carriage returns, blank lines or none at the end."""
    manifest = picture.with_name("manifest.jsonl")
    line = json.dumps({"image": "picture.png", "mask": None}).encode()
    manifest.write_bytes(line + b"\r\n\r\n" + line)
    assert [row.where[-2:] for row in read_manifest(manifest)] == [":1", ":3"]


@pytest.mark.parametrize(
    ("extra", "searched"),
    [
        pytest.param({}, False, id="no boxes"),
        pytest.param({"boxes": [[1, 2, 3, 4, 0.5]]}, False, id="of whom is not said"),
        pytest.param({"boxes": [[1, 2, 3, 4, 0.5]], "detector": "yolo"}, True, id="a detector's"),
        pytest.param({"boxes": [[1, 2, 3, 4, 1.0]], "detector": None}, False, id="a mask's"),
    ],
)
def test_only_a_detector_tells_where_everybody_is(extra: dict[str, Any], searched: bool) -> None:
    """Boxes that a mask's own regions gave say nothing of whom it leaves out."""
    row = Row(Path("a.png"), Path("m.png"), extra=extra)
    assert row.was_searched == searched
    assert row.boxes_xyxy.tolist() == ([[1, 2, 3, 4]] if searched else [])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ('{"mask": null}', '"image" is missing'),
        ('{"image": "a.png"}', '"mask" is missing'),
        ('{"image": null, "mask": null}', '"image" is None'),
        ('{"image": "a.png", "mask": 3}', '"mask" is 3'),
        ('{"image": "picture.png", "mask": null, "split": "training"}', "'training'.*train, val"),
        ('{"image": "missing.png", "mask": null}', r"missing\.png does not exist"),
        ('{"image": "picture.png", "mask": "gone.png"}', r"gone\.png does not exist"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(line: str, says: str, picture: Path) -> None:
    """Every error says file, line and what is wrong there."""
    good = json.dumps({"image": "picture.png", "mask": None})
    manifest = picture.with_name("manifest.jsonl")
    manifest.write_text(f"{good}\n\n{line}\n", "utf-8")
    with pytest.raises(DataError, match=rf"(?s)manifest\.jsonl:3.*{says}"):
        read_manifest(manifest)
