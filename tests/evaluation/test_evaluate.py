"""`python -m finetune evaluate`: real models on a tiny set of pictures."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from places import LITE
from skimage import data
from typer.models import CommandInfo
from typer.testing import CliRunner

from u2net_human_plugin.checkpoint import load_checkpoint
from u2net_human_plugin.errors import DataError, OptionError, WeightsError
from u2net_human_plugin.finetune.__main__ import app, main
from u2net_human_plugin.finetune.evaluation import bootstrap, contact_sheet, metrics, report
from u2net_human_plugin.finetune.evaluation.evaluate import begin, make_report
from u2net_human_plugin.finetune.evaluation.measure import Settings, choose_rows, evenly, measure
from u2net_human_plugin.finetune.predictors import Predictor, load_predictor
from u2net_human_plugin.finetune.publishing.onnx_file import write_onnx
from u2net_human_plugin.finetune.store import Store
from u2net_human_plugin.settings import Settings as WeightsSettings
from u2net_human_plugin.weights import bundled

MINMAX = f"minmax:{bundled().path}"


def write_manifest(folder, rows):
    lines = (json.dumps({"split": "test", "licence": "CC0", **row}) for row in rows)
    (folder / "manifest.jsonl").write_text("".join(line + "\n" for line in lines), "utf-8")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with two photos of a person, an empty scene and a photo with an empty mask."""
    folder = tmp_path_factory.mktemp("pictures")
    astronaut = Image.fromarray(data.astronaut())
    # Roughly her outline: exact enough to score well, not exact enough to score 1.
    y, x = np.ogrid[:512, :512]
    head = ((y - 130) / 110) ** 2 + ((x - 225) / 80) ** 2 < 1
    body = (y > 215) & (abs(x - 235) < 235)
    mask = Image.fromarray(head | body)
    for name, size in (("a", (300, 300)), ("b", (200, 240))):
        astronaut.resize(size).save(folder / f"{name}.png")
        mask.resize(size).save(folder / f"{name}_mask.png")
    Image.new("RGB", (120, 90), "grey").save(folder / "scene.png")
    Image.new("1", (300, 300)).save(folder / "nobody.png")
    write_manifest(
        folder,
        [
            {"image": "a.png", "mask": "a_mask.png", "source": "one", "persons": 1},
            {"image": "b.png", "mask": "b_mask.png", "source": "two", "persons": 2},
            {"image": "scene.png", "mask": None, "source": "one"},
            {"image": "a.png", "mask": "nobody.png", "source": "one"},
        ],
    )
    return folder


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    """The command, run as a user runs it, and its output folder."""
    out = tmp_path_factory.mktemp("report")
    command = [
        *(
            *(sys.executable, "-m", "u2net_human_plugin.finetune"),
            "evaluate",
            "--manifest",
            str(pictures),
        ),
        *("--before", MINMAX, "--after", "bundled", "--consistency", "2", "--out", str(out)),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False), out


def content_of(out):
    return json.loads((out / "report.json").read_text("utf-8"))


class TestCommand:
    @pytest.mark.process
    def test_scores_are_those_of_the_metrics(self, finished, pictures):
        """A picture's scores in the report are the metrics of the model's own mask."""
        done, out = finished
        assert done.returncode == 0, done.stderr
        kept = [json.loads(line) for line in (out / "pictures.jsonl").read_text().splitlines()]
        image = Image.open(pictures / "b.png").convert("RGB")
        truth = np.asarray(Image.open(pictures / "b_mask.png"))
        mask = load_predictor("bundled").segment(image)
        scores = next(entry for entry in kept if entry["image"] == "b.png")["after"]
        assert scores["iou"] == metrics.iou(mask, truth)
        assert scores["boundary_iou"] == metrics.boundary_iou(mask, truth)
        assert scores["boundary_accuracy"] == metrics.boundary_accuracy(mask, truth)
        assert scores["mae"] == metrics.mae(mask, truth)
        assert 0.5 < scores["iou"] < 1

    @pytest.mark.process
    def test_report(self, finished):
        """The JSON holds means, intervals, slices, settings and checksums."""
        _, out = finished
        content = content_of(out)
        assert content["pictures"] == 3
        assert content["overall"]["pictures"] == 2
        assert content["empty_scenes"]["pictures"] == 1
        assert content["empty_scenes"]["left_empty"]["after"]["mean"] == 1.0
        assert list(content["slices"]["source"]) == ["one", "two"]
        assert list(content["slices"]["number of people"]) == ["1", "2"]
        assert content["overall"]["consistency"]["pictures"] == 2  # no empty scene
        assert content["models"]["after"]["sha256"] == bundled().sha256
        assert content["models"]["before"]["spec"] == MINMAX
        assert content["settings"]["consistency"] == 2
        assert "after" not in content["overall"]  # means sit below each score
        one, two = (content["slices"]["source"][name]["iou"] for name in ("one", "two"))
        mean = (one["after"]["mean"] + two["after"]["mean"]) / 2
        assert content["overall"]["iou"]["after"]["mean"] == pytest.approx(mean)

    @pytest.mark.process
    def test_pictures_without_a_usable_mask_are_named(self, finished):
        """An empty mask on a row that is no empty scene is set aside, with the reason."""
        _, out = finished
        content = content_of(out)
        assert [entry["image"] for entry in content["set_aside"]] == ["a.png"]
        assert "mask is empty" in content["set_aside"][0]["reason"]

    @pytest.mark.process
    def test_sheets_show_photo_truth_before_and_after(self, finished):
        """Three sheets, each line as high as the others and four cells wide."""
        _, out = finished
        for name in ("worst", "best", "random"):
            with Image.open(out / f"{name}.jpg") as sheet:
                assert sheet.size == (4 * 306 + 6, 2 * 328 + 6)

    @pytest.mark.process
    def test_markdown_is_printed_and_written(self, finished):
        """What is printed is report.md, with a line per score."""
        done, out = finished
        text = (out / "report.md").read_text("utf-8")
        assert text in done.stdout
        assert "| Boundary IoU | 0." in text
        page = (out / "report.html").read_text("utf-8")
        assert page.count("<figure") == content_of(out)["overall"]["pictures"] == 2

    def test_unreadable_picture_fails_the_run_but_not_the_others(self, pictures, tmp_path):
        """A broken picture is listed, everything else is measured, the exit status is 1."""
        shutil.copy(pictures / "b.png", tmp_path)
        shutil.copy(pictures / "b_mask.png", tmp_path)
        (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 this is no picture")
        rows = [{"image": name, "mask": "b_mask.png"} for name in ("broken.jpg", "b.png")]
        write_manifest(tmp_path, rows)
        out = tmp_path / "out"
        arguments = ["evaluate", "--manifest", str(tmp_path), "--after", "bundled"]
        arguments += ["--out", str(out), "--consistency", "0", "--no-sheets"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 1
        assert "broken.jpg: cannot be read as a picture" in result.stderr
        content = content_of(out)
        assert content["pictures"] == 1
        assert [entry["image"] for entry in content["failures"]] == ["broken.jpg"]
        assert not (out / "worst.jpg").exists()
        page = (out / "report.html").read_text("utf-8")
        assert "<figure" not in page
        assert "broken.jpg: cannot be read as a picture" in page


class TestResume:
    def test_only_what_is_missing_is_measured(self, pictures, tmp_path):
        """After a kill, kept results are taken over."""
        settings = Settings(str(pictures), consistency=0, limit=2)
        models = {name: load_predictor("bundled") for name in ("before", "after")}
        rows = choose_rows(settings)
        with Store(tmp_path / "first.sqlite") as store:
            whole = measure(rows, models, settings, store)
            assert list(store.items("pictures").values()) == whole
        with Store(tmp_path / "killed.sqlite") as store:
            store.put("pictures", "0", {**whole[0], "kept": True})
            again = measure(rows, models, settings, store)
            assert len(store.items("pictures")) == 2
        assert [entry.get("kept", False) for entry in again] == [True, False]
        assert again[1]["after"]["mae"] == whole[1]["after"]["mae"]

    def test_results_of_other_settings_are_neither_taken_over_nor_lost(self, tmp_path):
        """With --resume they are refused; without it they are replaced."""
        with Store(tmp_path / "x.sqlite") as store:
            begin(store, {"run": (1,)}, resume=True)
            store.put("pictures", "7", {"row": 7})
            begin(store, {"run": (1,)}, resume=True)
            with pytest.raises(DataError, match=r"x\.sqlite: holds results of other"):
                begin(store, {"run": (2,)}, resume=True)
            assert store.items("pictures") == {"7": {"row": 7}}
            begin(store, {"run": (2,)}, resume=False)
            assert not store.items("pictures")


class TestChoice:
    def test_evenly(self):
        """A limited run sees the whole split in equal steps, not its beginning."""
        assert evenly(range(10), 5) == [0, 2, 4, 6, 8]
        assert evenly(range(3), 5) == [0, 1, 2]
        assert evenly(range(3), None) == [0, 1, 2]
        assert evenly(range(3), 0) == []

    def test_nothing_to_measure_is_an_error(self, pictures):
        """A split or source without pictures is named."""
        with pytest.raises(DataError, match="no picture of split 'test', source 'three'"):
            choose_rows(Settings(str(pictures), sources=("three",)))

    def test_validation_is_what_the_trainer_holds_back(self, tmp_path):
        """Of a manifest without validation rows, `val` is the trainer's held-back part."""
        from u2net_human_plugin.finetune.data.manifest import read_manifest
        from u2net_human_plugin.finetune.data.splits import held_back

        rows = [{"image": f"{n}.png", "mask": None, "split": "train"} for n in range(60)]
        rows += [{"image": f"{n}.png", "mask": None} for n in range(60)]
        write_manifest(tmp_path, rows)
        chosen = choose_rows(Settings(str(tmp_path), "val"))
        every = read_manifest(tmp_path, check_files=False)
        assert chosen == [row for row in every if row.split == "train" and held_back(row)]
        assert 0 < len(chosen) < 30
        learned = choose_rows(Settings(str(tmp_path), "train"))
        assert len(learned) == 60 - len(chosen)
        assert not any(held_back(row) for row in learned)

    def test_things_are_no_empty_scenes(self, pictures, tmp_path):
        """What is pasted into scenes is neither measured nor counted."""
        rows = [
            {"image": str(pictures / "scene.png"), "mask": None},
            {"image": str(pictures / "a.png"), "mask": None, "thing": True},
        ]
        write_manifest(tmp_path, rows)
        (row,) = choose_rows(Settings(str(tmp_path)))
        assert row.image.name == "scene.png"

    def test_scenes_with_somebody_in_them_are_set_aside(self, pictures, tmp_path):
        """What a detector takes for a person does not count as a scene to be left empty."""
        rows = [
            {"image": str(pictures / "scene.png"), "mask": None, "flags": flags}
            for flags in (["unlabelled_person"], [], None)
        ]
        write_manifest(tmp_path, rows)
        settings = Settings(str(tmp_path), consistency=0)
        nobody = Predictor("x", lambda image: np.zeros(image.size[::-1], np.uint8), {})
        results = measure(choose_rows(settings), {"before": nobody}, settings)
        assert "a detector saw somebody" in results[0]["reason"]
        assert [result["empty_scene"] for result in results[1:]] == [True, True]

    def test_doubt_is_unknown_where_no_detector_has_looked(self, pictures, tmp_path):
        """Only of what was looked at is it known that its mask leaves nobody out."""
        rows = [
            {"image": str(pictures / "a.png"), "mask": str(pictures / "a_mask.png"), **extra}
            for extra in ({"boxes": [], "detector": "yolo"}, {"boxes": [], "detector": None}, {})
        ]
        write_manifest(tmp_path, rows)
        settings = Settings(str(tmp_path), consistency=0)
        everybody = Predictor("x", lambda image: np.full(image.size[::-1], 255, np.uint8), {})
        results = measure(choose_rows(settings), {"before": everybody}, settings)
        assert [result["flags"] for result in results] == [[], None, None]


class TestMain:
    """`python -m finetune` itself."""

    @pytest.mark.parametrize("command", ["complete", "compose", "evaluate", "export"])
    def test_an_output_that_is_a_file_is_one_line(
        self, command, pictures, tmp_path, monkeypatch, capsys
    ):
        """It names the file, the exit is 1, and the file stays as it was."""
        taken = tmp_path / "taken"
        taken.write_text("mine")
        arguments = {
            "complete": ["--manifest", pictures],
            "compose": ["--manifest", pictures, "--split", "test"],
            "evaluate": ["--manifest", pictures, "--after", "bundled"],
            "export": [LITE, "--force"],
        }[command]
        line = ["finetune", command, *map(str, arguments), "--out", str(taken)]
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        (message,) = [line for line in capsys.readouterr().err.splitlines() if "taken" in line]
        assert re.match(f"error: .*{taken}", message)
        assert taken.read_text() == "mine"

    @pytest.mark.parametrize(
        ("error", "caught"),
        [
            (DataError("a.png: what is wrong"), SystemExit),
            (OSError(28, "No space left on device"), SystemExit),
            (FileNotFoundError(2, "No such file", "gone.png"), SystemExit),
            (OSError("which file?"), OSError),
            (ValueError("a defect"), ValueError),
        ],
    )
    def test_what_nobody_can_put_right_keeps_its_traceback(self, error, caught, monkeypatch):
        """A full disk and a file are a user's; an error without either is ours."""

        def fail():
            raise error

        commands = [*app.registered_commands, CommandInfo("fail", callback=fail)]
        monkeypatch.setattr(app, "registered_commands", commands)
        monkeypatch.setattr(sys, "argv", ["finetune", "fail"])
        with pytest.raises(caught):
            main()


class TestPredictors:
    def test_minmax_is_what_rembg_does(self, tmp_path, monkeypatch):
        """`minmax:` gives the mask of rembg's own u2netp session for the same file."""
        path = tmp_path / "u2netp.onnx"
        # rembg's session gives its network 320 x 320 pixels, whatever the bundled file takes.
        write_onnx(load_checkpoint(LITE, "half"), path, WeightsSettings(size=320))
        monkeypatch.setenv("U2NET_HOME", str(tmp_path))
        # Older versions would replace it by the official file, as a damaged one.
        monkeypatch.setenv("MODEL_CHECKSUM_DISABLED", "1")
        image = Image.fromarray(data.astronaut()).resize((400, 300))
        ours = load_predictor(f"minmax:{path}").segment(image).astype(int)
        theirs = load_predictor("rembg:u2netp").segment(image).astype(int)
        assert theirs.max() == 255
        # rembg counts in double precision: one step of rounding apart, here and there.
        assert abs(ours - theirs).max() <= 1
        plain = load_predictor(str(path)).segment(image).astype(int)
        assert abs(ours - plain).max() > 1

    def test_torch_and_onnx_agree(self, tmp_path):
        """The same weights score the same as checkpoint and as ONNX; `full:` differs."""
        image = Image.fromarray(data.astronaut()).resize((160, 120))
        write_onnx(load_checkpoint(LITE, "half"), tmp_path / "lite.onnx")
        onnx = load_predictor(str(tmp_path / "lite.onnx")).segment(image).astype(int)
        half = load_predictor(str(LITE))
        full = load_predictor(f"full:{LITE}")
        # Enlarging works on logits, which makes the last digits near 0 and 1 count more.
        # The ONNX file holds its weights in half precision.
        assert np.mean(abs(half.segment(image) - onnx) > 2) < 0.001
        assert (half.facts["decoder"], full.facts["decoder"]) == ("half", "full")
        assert np.mean(abs(full.segment(image) - onnx) > 1) > 0.01

    def test_options_in_the_name(self):
        """What stands after the question mark reaches the pipeline and the report."""
        facts = load_predictor("bundled?crop=self&max_persons=2").facts
        assert facts["options"]["crop"] == "self"
        assert facts["options"]["max_persons"] == 2

    @pytest.mark.parametrize(
        ("spec", "error", "message"),
        [
            ("nothing", WeightsError, "names no model; expected bundled, PATH.onnx"),
            ("missing.onnx", WeightsError, "missing.onnx: cannot be read"),
            ("full:missing.pth", WeightsError, "missing.pth"),
            ("rembg:no-such-model", WeightsError, "no-such-model"),
            ("bundled?croop=self", OptionError, "no option 'croop'; expected one of crop"),
            ("bundled?crop=here", OptionError, "crop='here'"),
            ("minmax:x.onnx?crop=self", OptionError, "our own pipeline"),
        ],
    )
    def test_wrong_names(self, spec, error, message):
        """A model that does not exist is an error that says what there is."""
        with pytest.raises(error, match=message.replace("?", r"\?")):
            load_predictor(spec)


class TestBootstrap:
    values = np.random.default_rng(1).normal(0.8, 0.1, 200)

    def test_interval_of_a_mean(self):
        """For many values it is the normal interval, 1.96 standard errors to either side."""
        found = bootstrap.estimate(self.values)
        reach = 1.96 * self.values.std() / np.sqrt(200)
        assert found["mean"] == pytest.approx(self.values.mean())
        assert found["high"] - found["mean"] == pytest.approx(reach, rel=0.1)
        assert found["mean"] - found["low"] == pytest.approx(reach, rel=0.1)

    def test_repeats(self):
        """The same values always have the same interval."""
        assert bootstrap.estimate(self.values) == bootstrap.estimate(self.values)

    def test_one_value_has_no_interval(self):
        """One picture says nothing of how pictures differ."""
        assert bootstrap.estimate(np.array([0.5])) == {"mean": 0.5, "low": None, "high": None}

    def test_difference_is_paired(self):
        """A gain on every picture is clear of zero, however much the pictures differ."""
        found = bootstrap.compare(self.values, self.values + 0.001)["difference"]
        assert found["low"] == pytest.approx(0.001)
        assert found["high"] == pytest.approx(0.001)


def picture(before, after, **facts):
    scores = [
        {"iou": iou, "mae": 1 - iou, "haze": 0.0, "empty": iou == 0, "seconds": 1.0}
        for iou in (before, after)
    ]
    default = {"source": "s", "empty_scene": False, "height": 0.5, "area": 0.2, "persons": 1}
    default |= {"flags": None}
    return {**default, **facts, "before": scores[0], "after": scores[1]}


class TestSummary:
    def test_error_cut(self):
        """From IoU 0.8 to 0.9 half of the error is gone; from 0.9 to 0.8 it has doubled."""
        summary = report.summarise([picture(0.8, 0.9)] * 3)
        assert summary["overall"]["iou"]["error_cut"] == pytest.approx(0.5)
        assert summary["overall"]["mae"]["error_cut"] == pytest.approx(0.5)
        summary = report.summarise([picture(0.9, 0.8)] * 3)
        assert summary["overall"]["iou"]["error_cut"] == pytest.approx(-1)

    def test_slices_by_height(self):
        """Heights fall into half-open ranges, and slices come in their natural order."""
        heights = [1.4, 0.04, 0.05, 0.149, 0.6, 0.3]
        summary = report.summarise([picture(0.5, 0.5, height=height) for height in heights])
        slices = summary["slices"]["height of the people"]
        assert {name: scores["pictures"] for name, scores in slices.items()} == {
            "0–5 %": 1,
            "5–15 %": 2,
            "30–60 %": 1,
            "60 % and more": 2,
        }
        assert list(slices)[:2] == ["0–5 %", "5–15 %"]

    def test_slices_by_doubt(self):
        """Pictures whose true mask leaves somebody out are told apart, where that is known."""
        flagged = [picture(0.5, 0.5) | {"flags": flags} for flags in ([], ["unlabelled_person"])]
        slices = report.summarise([*flagged, picture(0.5, 0.5)])["slices"]
        assert list(slices["doubt about the mask"]) == ["none", "unlabelled person", "unknown"]
        assert "doubt about the mask" not in report.summarise([picture(0.5, 0.5)])["slices"]

    def test_slices_by_source_without_doubt(self):
        """Only pictures whose mask is known to be complete, and only if there are others."""
        title = report.TRUSTED
        clean = [picture(0.5, 0.7) | {"flags": [], "source": name} for name in ("a", "b", "b")]
        flags = {"flags": ["unlabelled_person"], "source": "a"}
        slices = report.summarise([*clean, picture(0.5, 0.1) | flags])["slices"]
        assert {name: scores["pictures"] for name, scores in slices[title].items()} == {
            "a": 1,
            "b": 2,
        }
        assert slices[title]["a"]["iou"]["after"]["mean"] == pytest.approx(0.7)
        assert slices["source"]["a"]["iou"]["after"]["mean"] == pytest.approx(0.4)
        assert title not in report.summarise(clean)["slices"]

    def test_empty_scenes_stand_apart(self):
        """They do not enter the means of pictures with people."""
        scene = picture(0.0, 1.0, empty_scene=True)
        summary = report.summarise([picture(0.5, 0.5), scene, scene])
        assert summary["overall"]["pictures"] == 1
        assert summary["empty_scenes"]["pictures"] == 2
        assert summary["empty_scenes"]["left_empty"]["before"]["mean"] == 1.0

    def test_nothing_measured_is_an_error(self, pictures):
        """A run in which every picture failed has no means to report."""
        with pytest.raises(DataError, match="not one picture"):
            make_report([{"image": "a", "error": "x"}], {}, Settings(str(pictures)))


def test_sheet_marks_removed_background():
    """Where the mask is empty the cut-out shows the board, where it is full the photo."""
    image = Image.new("RGB", (300, 300), "red")
    mask = np.zeros((300, 300), np.uint8)
    mask[:, 150:] = 255
    sheet = contact_sheet.draw_sheet([contact_sheet.Example(image, [mask], ["photo", "mask"])])
    assert sheet.size == (2 * 306 + 6, 328 + 6)
    assert sheet.getpixel((6 + 10, 16)) == (255, 0, 0)
    red, green, blue = sheet.getpixel((312 + 10, 16))
    assert red == green == blue
    assert sheet.getpixel((312 + 290, 16)) == (255, 0, 0)
