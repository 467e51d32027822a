"""The parts of `batch` that need no cluster: names, files, table, cut-outs, bad input."""

from __future__ import annotations

import io
import os
import stat

import numpy as np
import pytest
from light import Light, people_of_light
from PIL import Image

from u2net_human_plugin import HumanSegmenter, Options
from u2net_human_plugin.batch.actor import CutOut, Recipe, count_people
from u2net_human_plugin.batch.plan import finished, output_names
from u2net_human_plugin.cutout import encoded, opened
from u2net_human_plugin.errors import DataError, MissingExtraError, OptionError, WeightsError

pytest.importorskip("pyarrow", reason="needs the extra ray")
fsspec = pytest.importorskip("fsspec", reason="needs the extra ray")

from u2net_human_plugin.batch import command  # noqa: E402 - after the skip
from u2net_human_plugin.batch.storage import (  # noqa: E402
    UNFINISHED,
    Folder,
    destination,
    find_pictures,
)
from u2net_human_plugin.batch.table import NAME, ROWS, Table, from_rows  # noqa: E402


@pytest.mark.parametrize(
    ("sources", "known", "expected"),
    [
        (["a/b.jpg"], {}, {"a/b.jpg": "a/b.png"}),
        (["a/b.jpg", "c/b.jpg"], {}, {"a/b.jpg": "a/b.png", "c/b.jpg": "c/b.png"}),
        (["b.jpg", "b.tif"], {}, {"b.jpg": "b.jpg.png", "b.tif": "b.tif.png"}),
        (["B.jpg", "b.tif"], {}, {"B.jpg": "B.jpg.png", "b.tif": "b.tif.png"}),
        (
            ["b.jpg", "b.png", "b.jpg.tif"],  # the whole name of one is the short one of another
            {},
            {"b.jpg": "b.jpg.png", "b.png": "b.png.png", "b.jpg.tif": "b.jpg.tif.png"},
        ),
        (["b.jpg", "b.tif"], {"b.jpg": "b.png"}, {"b.jpg": "b.png", "b.tif": "b.tif.png"}),
        (["b.jpg"], {"b.jpg": "b.webp"}, {"b.jpg": "b.png"}),
        (["new.tif"], {"gone.jpg": "new.png"}, {"gone.jpg": "new.png", "new.tif": "new.tif.png"}),
        (["a.b/c"], {}, {"a.b/c": "a.b/c.png"}),
    ],
)
def test_output_names(sources, known, expected):
    """Folders are kept, no two sources share a name, and names that were given stay."""
    assert output_names(sources, ".png", known) == expected


def row(**changes):
    usual = {"source": "a.jpg", "output": "a.png", "sha256": "1", "settings": "{}", "error": None}
    return {**usual, **changes}


@pytest.mark.parametrize(
    ("changes", "done"),
    [
        ({}, True),
        ({"error": "broken"}, False),
        ({"sha256": "2"}, False),
        ({"settings": "other"}, False),
        ({"output": "gone.png"}, False),
    ],
)
def test_finished(changes, done):
    """Done is what was made with these weights and settings and is still there."""
    assert finished([row(**changes)], "1", "{}", {"a.png"}) == ({"a.jpg"} if done else set())


@pytest.fixture
def photos(tmp_path):
    """A folder with pictures, other files, hidden ones and a name that looks like a glob."""
    for name in ("a.jpg", "b/c.PNG", "b/[1].webp", "notes.txt", ".hidden.jpg", ".rows/x.jpg"):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return tmp_path / "photos"


def test_find_pictures(photos, tmp_path):
    """A folder: its pictures by their names, and what else is there; nothing hidden."""
    folder, pictures, others = find_pictures(f"{photos}", destination(f"{tmp_path}/out"))
    assert (folder.path, pictures) == (str(photos), ["a.jpg", "b/[1].webp", "b/c.PNG"])
    assert others == ["notes.txt"]


@pytest.mark.parametrize(
    ("glob", "root", "expected"),
    [
        ("*.jpg", "", ["a.jpg"]),
        ("**/*.PNG", "", ["b/c.PNG"]),
        ("b/*", "b", ["[1].webp", "c.PNG"]),
        ("*.txt", "", ["notes.txt"]),
        ("b/[1].webp", "b", ["[1].webp"]),
        ("a.jpg", "", ["a.jpg"]),
    ],
)
def test_globs(photos, tmp_path, glob, root, expected):
    """A glob takes what it matches; the folders from its first wildcard on are kept."""
    folder, pictures, _ = find_pictures(f"{photos}/{glob}", destination(f"{tmp_path}/out"))
    assert (folder.path, pictures) == (str(photos / root).rstrip("/"), expected)


def test_destination_inside_the_source(photos):
    """Cut-outs in a folder of the source are no pictures of the next run."""
    (photos / "out").mkdir()
    (photos / "out" / "a.png").write_bytes(b"")
    _, pictures, _ = find_pictures(f"{photos}", destination(f"{photos}/out"))
    assert pictures == ["a.jpg", "b/[1].webp", "b/c.PNG"]


@pytest.mark.parametrize(
    ("place", "error", "says"),
    [
        ("nowhere", DataError, "no such folder"),
        ("photos/*.gif", DataError, "no pictures there"),
        ("nosuchthing://bucket/a", DataError, "nosuchthing"),
    ],
)
def test_no_pictures(photos, place, error, says, monkeypatch):
    """A source without pictures is an error that names it."""
    monkeypatch.chdir(photos.parent)
    with pytest.raises(error, match=says) as raised:
        find_pictures(place, destination("out"))
    assert place in str(raised.value)


def test_missing_driver(monkeypatch):
    """Of a file system that needs a package, the error says which."""

    def without_driver(_place):
        raise ImportError("install nosuchfs")

    monkeypatch.setattr("fsspec.core.url_to_fs", without_driver)
    with pytest.raises(MissingExtraError, match="install nosuchfs"):
        destination("nosuch://bucket/a")


def test_files_appear_whole(tmp_path, monkeypatch):
    """A write that fails leaves the old file and no half of a new one."""
    folder = destination(f"{tmp_path}/out")
    folder.write("a/b.png", b"old")
    folder.write("a/b.png", b"new")
    assert folder.read("a/b.png") == b"new"

    def no_space(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        folder.write("a/b.png", b"never")
    assert folder.names() == ["a/b.png"]
    assert folder.read("a/b.png") == b"new"


def test_other_file_systems():
    """On an object store nothing is written beside; there is no rename."""
    folder = Folder(fsspec.filesystem("memory"), "/bucket/out")
    folder.write("a/b.png", b"1")
    assert folder.names() == ["a/b.png"]
    folder.remove("a")
    assert folder.names() == []


def test_table(tmp_path):
    """Of a source's rows the last stays, sorted; what killed runs left is joined or removed."""
    folder = destination(f"{tmp_path}/out")
    table = Table(folder)
    table.add([row(source="b", error="broken"), row(source="c")])
    assert table.collect()["source"].to_pylist() == ["b", "c"]
    table.add([row(source="b"), row(source="a", people=2, share=0.25)])
    table.add([])
    folder.write(f"{UNFINISHED}/half", b"half")
    rows = Table(folder).collect().to_pylist()
    assert [(r["source"], r["error"], r["people"]) for r in rows] == [
        ("a", None, 2),
        ("b", None, None),
        ("c", None, None),
    ]
    assert folder.names() == [NAME]
    assert not (tmp_path / "out" / ROWS).exists()
    assert Table(folder).collect().to_pylist() == rows


def test_rows_are_kept_from_the_first_on(tmp_path, monkeypatch, capsys):
    """The first rows are written as they come, the next every few seconds, the last at the end."""
    seconds = iter([0, 0.1, 0.2, command.PATIENCE + 0.2, command.PATIENCE + 0.3])
    monkeypatch.setattr(command.time, "monotonic", lambda: next(seconds))
    folder = destination(f"{tmp_path}/out")
    kept = []

    def batches():
        for source in "abcd":
            yield from_rows([row(source=source)])
            kept.append(len(folder.names(ROWS)))

    command._keep(batches(), Table(folder), 4)
    assert kept == [1, 1, 2, 2]
    assert len(folder.names(ROWS)) == 3
    assert Table(folder).collect()["source"].to_pylist() == list("abcd")
    assert capsys.readouterr().out.splitlines()[0].startswith("1 of 4, ")


def test_strange_table(tmp_path):
    """A file of the table's name that is none is an error that names it, and stays."""
    folder = destination(f"{tmp_path}/out")
    folder.write(NAME, b"no parquet")
    with pytest.raises(DataError, match=f"out/{NAME}: is no table"):
        Table(folder).collect()
    assert folder.read(NAME) == b"no parquet"


@pytest.fixture
def light(monkeypatch):
    """A worker whose network takes light for people."""
    segmenter = HumanSegmenter(network=Light(), options=Options(crop="off", refine="off"))
    monkeypatch.setattr(Recipe, "load", lambda *_: segmenter)
    return lambda form="png": CutOut(Recipe(form))


def content(image, kind="PNG", **settings):
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def test_cut_out(light):
    """A row says how large the picture is, how much of it and how many are people."""
    image = people_of_light((400, 200), (20, 40, 120, 160), (240, 40, 340, 160))
    batch = {"path": ["a", "b"], "bytes": [content(image), b"broken"]}
    rows = light()(batch)
    assert rows["path"] == ["a", "b"]
    assert (rows["width"][0], rows["height"][0], rows["people"][0]) == (400, 200, 2)
    assert rows["share"][0] == pytest.approx(2 * 100 * 120 / 80_000, abs=0.02)
    assert rows["error"][0] is None
    assert opened(rows["cutout"][0]).mode == "RGBA"
    assert (rows["cutout"][1], rows["width"][1], rows["people"][1]) == (None, None, None)
    assert "cannot identify" in rows["error"][1]


def test_cut_out_of_arrays(light):
    """Rows of `read_images`, too; other columns are an error that names them."""
    image = np.asarray(people_of_light((100, 100), (20, 20, 80, 80)))
    rows = light("mask")({"image": np.stack([image, image])})
    assert [opened(file).mode for file in rows["cutout"]] == ["L", "L"]
    with pytest.raises(DataError, match="columns path"):
        light()({"path": np.array(["a"])})


def test_people_are_counted_without_specks():
    """What is below a hundredth of the largest figure's area is nobody."""
    mask = people_of_light((800, 400), (0, 0, 200, 400), (300, 0, 500, 400), (700, 9, 712, 21))
    assert count_people(mask.convert("L")) == 2
    assert count_people(Image.new("L", (50, 50))) == 0


@pytest.mark.parametrize("form", ["png", "webp"])
def test_cut_out_hides_nothing(form):
    """Where nobody is, no colour is left in the file; an alpha of the picture's own counts."""
    image = Image.new("RGBA", (64, 64), (200, 30, 10, 255))
    image.paste((200, 30, 10, 100), (32, 0, 64, 64))
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 64, 32))
    after = np.asarray(opened(encoded(image, mask, form)))
    assert not after[36:, :, 3].any()
    assert after[52:].max() < 20  # WebP blurs colours over the alpha's border
    assert after[0, 0, 3] == 255
    assert after[0, 60, 3] == 100
    assert np.abs(after[2, 2, :3].astype(int) - (200, 30, 10)).max() < 20


def test_upright(light):
    """A photo that lies on its side by EXIF is turned before anybody looks."""
    image = people_of_light((80, 40), (0, 0, 40, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    turned = light().attempt(content(image, "JPEG", exif=exif.tobytes()))
    assert (turned["width"], turned["height"]) == (40, 80)


def test_profile_is_kept():
    """An RGB picture's colour profile goes into the cut-out; a CMYK one's would be wrong there."""
    mask = Image.new("L", (8, 8), 255)
    for mode, kept in (("RGB", b"profile"), ("CMYK", None)):
        image = Image.new(mode, (8, 8))
        image.info["icc_profile"] = b"profile"
        assert opened(encoded(image, mask, "png")).info.get("icc_profile") == kept


def test_recipe(tmp_path, monkeypatch):
    """Settings change with the options; other weights on another machine are refused."""
    assert Recipe().settings != Recipe(options=Options(crop="off")).settings
    assert Recipe("webp").suffix == ".webp"
    with pytest.raises(OptionError, match='"png", "webp", "mask"'):
        Recipe("jpg")
    monkeypatch.setenv("U2NET_HUMAN_WEIGHTS", str(tmp_path / "weights.onnx"))
    tmp_path.joinpath("weights.onnx").write_bytes(b"mine")
    recipe = Recipe.from_environment()
    tmp_path.joinpath("weights.onnx").write_bytes(b"others")
    with pytest.raises(WeightsError, match="SHA-256"):
        recipe.load()


def test_permissions(tmp_path):
    """A cut-out may be read by whom the user's umask lets, as any new file."""
    destination(f"{tmp_path}/out").write("a.png", b"")
    tmp_path.joinpath("usual").write_bytes(b"")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("out/a.png", "usual")]
    assert modes[0] == modes[1]
