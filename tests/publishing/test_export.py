"""`python -m finetune export`: whole sets of weights, and only those that are no worse."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import numpy as np
import onnx
import pytest
import torch
from places import LITE
from typer.testing import CliRunner

import u2net_human_plugin
from u2net_human_plugin import weights
from u2net_human_plugin.checkpoint import load_checkpoint
from u2net_human_plugin.finetune.__main__ import app
from u2net_human_plugin.finetune.evaluation.measure import Settings as RunSettings
from u2net_human_plugin.finetune.publishing import export, weight_set
from u2net_human_plugin.finetune.publishing.provenance import read_provenance
from u2net_human_plugin.finetune.publishing.regressions import objections
from u2net_human_plugin.finetune.training.checkpoints import record_of
from u2net_human_plugin.network import load_onnx, load_torch
from u2net_human_plugin.segmenter import HumanSegmenter
from u2net_human_plugin.settings import Settings, stored_settings
from u2net_human_plugin.weights import WeightsFile

NAME = weights.MODEL_NAME


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two checkpoints with a trainer's record each: the bundled network, and a damaged one."""
    folder = tmp_path_factory.mktemp("checkpoints")
    state = load_checkpoint(LITE).state_dict()
    torch.save(state, folder / "good.pth")
    # Its answers turned around: people become background.
    for key in ("side2.weight", "side2.bias"):
        state[key] = -state[key]
    torch.save(state, folder / "bad.pth")
    arguments = {"out": str(folder), "init": str(folder / "earlier.pth")}
    record = {"step": 3, "losses": [0.5] * 1000, "arguments": arguments}
    record["settings"] = {"floor": 0.9}
    (folder / "good.json").write_text(json.dumps(record))
    (folder / "earlier.json").write_text(json.dumps({"step": 2, "losses": [0.7]}))
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, astronaut):
    """A manifest of one photo whose mask is the lite network's own."""
    folder = tmp_path_factory.mktemp("pictures")
    image = astronaut.resize((256, 256))
    image.save(folder / "a.png")
    segmenter = HumanSegmenter(network=load_torch(WeightsFile(LITE, "given")))
    segmenter.mask(image).point(lambda value: 255 * (value >= 128)).save(folder / "a_mask.png")
    row = {"image": "a.png", "mask": "a_mask.png", "source": "s", "split": "test"}
    (folder / "manifest.jsonl").write_text(json.dumps(row) + "\n")
    return folder


@pytest.fixture(scope="module")
def exported(checkpoints, pictures, tmp_path_factory):
    """The output folder of a user's export, and what it said."""
    folder = tmp_path_factory.mktemp("home") / "models" / NAME
    command = ["export", str(checkpoints / "good.pth"), "--out", str(folder)]
    command += ["--manifest", str(pictures), "--split", "test", "--licence", "CC0-1.0"]
    return CliRunner().invoke(app, command), folder


class TestExport:
    def test_files_and_record_belong_together(self, exported):
        """Two files; the JSON has the checksum, the training record and the comparison."""
        result, folder = exported
        assert result.exit_code == 0, result.output
        assert sorted(path.name for path in folder.iterdir()) == [
            f"{NAME}.json",
            f"{NAME}.onnx",
        ]
        record = json.loads((folder / f"{NAME}.json").read_text("utf-8"))
        assert record["sha256"] == {"onnx": digest(folder / f"{NAME}.onnx")}
        assert (record["variant"], record["decoder"]) == ("lite", "half")
        assert record["training"]["step"] == 3
        assert record["training"]["started_from"]["step"] == 2
        assert record["gate"]["overall"]["iou"]["after"]["mean"] > 0.99
        assert record["gate"]["objections"] == []
        assert record["difference_from_torch"] < 1e-4

    def test_the_checkpoints_settings_are_in_the_file(self, exported):
        """And the licence that was named; the record says the same."""
        _, folder = exported
        expected = Settings(floor=0.9, licence="CC0-1.0")
        assert stored_settings(folder / f"{NAME}.onnx") == expected
        record = json.loads((folder / f"{NAME}.json").read_text("utf-8"))
        assert record["settings"] == asdict(expected)

    def test_a_bundle_has_a_checksum_and_the_checkout_the_story(
        self, checkpoints, tmp_path, monkeypatch
    ):
        """One short JSON file in the package, and flat records in model_cards."""
        (tmp_path / "pyproject.toml").touch()
        (tmp_path / "model_cards").mkdir()
        package = tmp_path / "u2net_human_plugin"
        monkeypatch.setattr(u2net_human_plugin, "__file__", str(package / "__init__.py"))
        command = ["export", str(checkpoints / "good.pth"), "--bundle", "--force"]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        checksum = digest(package / "weights" / f"{NAME}.onnx")
        content = json.loads((package / "weights" / f"{NAME}.json").read_text("utf-8"))
        assert content == {"name": NAME, "sha256": {"onnx": checksum}}
        records = read_provenance(tmp_path, checksum)
        assert [record.get("step") for record in records.values()] == [2, 3, None]
        assert records[NAME]["settings"] == asdict(Settings(floor=0.9))

    def test_record_does_not_tell_where_files_lay(self, exported, checkpoints):
        """Absolute paths are cut to their last part, and the loss curve is left out."""
        _, folder = exported
        text = (folder / f"{NAME}.json").read_text("utf-8")
        assert str(checkpoints.parent) not in text
        assert json.loads(text)["training"]["arguments"]["out"] == checkpoints.name
        assert "losses" not in text

    def test_what_follows_exported_weights_knows_their_training(self, exported):
        """The record beside exported weights holds that of the checkpoint, and it is found."""
        _, folder = exported
        record = record_of(folder / f"{NAME}.onnx")
        assert (record["step"], record["started_from"]["step"]) == (3, 2)

    def test_torch_runs_the_same_network(self, exported, astronaut):
        """The file in onnxruntime, and in torch: masks equal but for a grey level."""
        _, folder = exported
        file = WeightsFile(folder / f"{NAME}.onnx", "given")
        masks = [
            np.asarray(HumanSegmenter(network=load(file)).mask(astronaut)).astype(int)
            for load in (load_onnx, load_torch)
        ]
        assert abs(masks[0] - masks[1]).max() <= 1

    def test_rembg_directory_is_looked_up(self, exported, monkeypatch, astronaut):
        """In rembg's model directory the new file is what the plugin uses from then on."""
        _, folder = exported
        monkeypatch.delenv(weights.ENVIRONMENT_VARIABLE, raising=False)
        monkeypatch.setenv("U2NET_HOME", str(folder.parent.parent))
        found = weights.find_weights()
        assert (found.path, found.origin) == (folder / f"{NAME}.onnx", "model directory")
        assert export._destination(None, bundle=False) == folder
        image = astronaut.resize((128, 128))
        new = np.asarray(HumanSegmenter().mask(image)).astype(int)
        lite = HumanSegmenter(network=load_torch(WeightsFile(LITE, "given")))
        old = np.asarray(lite.mask(image)).astype(int)
        assert abs(new - old).max() <= 6  # half precision of what was single

    def test_masks_that_leave_somebody_out_are_no_judges(self, exported, pictures):
        """A picture flagged "unlabelled_person" is not among those that are compared on."""
        _, folder = exported
        row = json.loads((pictures / "manifest.jsonl").read_text())
        flagged = {**row, "flags": ["unlabelled_person"]}
        manifest = pictures / "flagged.jsonl"
        manifest.write_text(f"{json.dumps(row)}\n{json.dumps(flagged)}\n")
        settings = RunSettings(str(manifest), consistency=0)
        report = export.compare(folder / f"{NAME}.onnx", "bundled", settings, force=False)
        assert report["pictures"] == 1

    def test_worse_weights_are_refused(self, checkpoints, pictures, exported):
        """Worse weights leave everything as it was, and the message says where they are worse."""
        _, folder = exported
        before = {path.name: digest(path) for path in folder.iterdir()}
        command = ["export", str(checkpoints / "bad.pth"), "--out", str(folder)]
        command += ["--manifest", str(pictures), "--split", "test"]
        result = CliRunner().invoke(app, command)
        assert result.exit_code != 0
        message = result.output + str(result.exception)
        assert "worse than" in message
        assert "all pictures: iou fell from 1.0000" in message
        assert "--force" in message
        assert {path.name: digest(path) for path in folder.iterdir()} == before

    def test_comparison_is_not_skipped_silently(self, checkpoints, tmp_path):
        """Without pictures to compare on, nothing is written unless forced."""
        command = ["export", str(checkpoints / "good.pth"), "--out", str(tmp_path / "out")]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 2
        assert "--manifest" in result.output
        assert not (tmp_path / "out").exists()

    def test_forced_export_says_so(self, pictures, tmp_path):
        """With --force worse weights pass, with the objections in their record."""
        settings = RunSettings(str(pictures), consistency=0)
        gate = export.compare(blind_network(tmp_path / "blind.onnx"), str(LITE), settings, True)
        assert gate["forced"] is True
        assert "all pictures: iou fell from 1.0000 to 0.0000" in gate["objections"]
        with pytest.raises(export.WorseError, match=r"s: boundary_iou fell from 1\.0000 to 0"):
            export.compare(tmp_path / "blind.onnx", str(LITE), settings, False)


def blind_network(path):
    """An ONNX file that takes any picture and sees nobody."""
    shapes = ["N", 3, 320, 320], ["N", 1, 320, 320]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in zip(("image", "alpha"), shapes, strict=True)
    ]
    nodes = [
        onnx.helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1]),
        onnx.helper.make_node("Sub", ["mean", "mean"], ["alpha"]),
    ]
    graph = onnx.helper.make_graph(nodes, "blind", ends[:1], ends[1:])
    opset = [onnx.helper.make_opsetid("", 13)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def difference(mean, low, high):
    entry = {"mean": 0.9, "low": None, "high": None}
    return {"before": entry, "after": entry, "difference": {"mean": mean, "low": low, "high": high}}


class TestGate:
    @pytest.mark.parametrize(
        ("change", "refused"),
        [
            ((0.01, 0.005, 0.015), False),
            ((-0.001, -0.0015, -0.0005), False),
            ((-0.003, -0.004, -0.001), True),
            ((-0.003, -0.007, 0.001), False),
            ((-0.011, -0.03, 0.01), True),
            ((-0.003, None, None), False),
            ((-0.02, None, None), True),
        ],
        ids=[
            "better",
            "clearly but hardly worse",
            "clearly worse",
            "perhaps worse",
            "much worse, though uncertain",
            "one picture, little",
            "one picture, much",
        ],
    )
    @pytest.mark.parametrize("where", ["overall", "source", "empty"])
    def test_what_counts_as_worse(self, change, refused, where):
        """The rule of the docstring, overall, within one source, and for empty scenes."""
        fine, judged = difference(0.1, 0.1, 0.1), difference(*change)
        same = difference(0, 0, 0)
        report = {
            "overall": {"iou": fine, "boundary_iou": judged if where == "overall" else fine},
            "slices": {"source": {"s": {"iou": judged if where == "source" else fine}}},
            "empty_scenes": {"left_empty": judged if where == "empty" else fine, "mae": same},
        }
        assert bool(objections(report)) is refused

    @pytest.mark.parametrize(
        ("change", "refused"),
        [
            ((-0.3, -0.4, -0.2), False),
            ((0.0015, 0.001, 0.002), False),
            ((0.003, 0.001, 0.004), True),
            ((0.02, -0.01, 0.05), True),
        ],
        ids=["better", "hardly worse", "clearly worse", "much worse, though uncertain"],
    )
    @pytest.mark.parametrize("where", ["overall", "empty"])
    def test_people_must_not_become_transparent(self, change, refused, where):
        """A mask of 130 on people and 125 elsewhere has the same IoU; its MAE gives it away."""
        same, judged = difference(0, 0, 0), difference(*change)
        report = {
            "overall": {"iou": same, "mae": judged if where == "overall" else same},
            "slices": {},
            "empty_scenes": {"left_empty": same, "mae": judged if where == "empty" else same},
        }
        found = objections(report)
        assert bool(found) is refused
        assert all("mae rose from" in objection for objection in found)


#: Installs two sets in turn for ever; each file's content names its set.
INSTALLER = """
import sys
from pathlib import Path
from u2net_human_plugin.finetune.publishing.weight_set import install
folder, source = Path(sys.argv[1]), Path(sys.argv[2])
sets = [{suffix: source / f"{name}.{suffix}" for suffix in ("onnx", "pth")} for name in "ab"]
print("ready", flush=True)
while True:
    for name, files in zip("ab", sets):
        install(folder, "net", files, {"set": name})
"""


class TestKill:
    @pytest.mark.process
    def test_a_kill_leaves_one_whole_set(self, tmp_path):
        """Killed at any moment, what the JSON refers to is one complete old or new set."""
        source, folder = tmp_path / "source", tmp_path / "installed"
        source.mkdir()
        for name in "ab":
            for suffix in ("onnx", "pth"):
                (source / f"{name}.{suffix}").write_bytes(f"{name}{suffix}".encode() * 100_000)
        files = {suffix: source / f"a.{suffix}" for suffix in ("onnx", "pth")}
        began = time.monotonic()
        weight_set.install(folder, "net", files, {"set": "a"})
        once = time.monotonic() - began
        seen, interrupted, chance = set(), 0, random.Random(0)
        for _ in range(12):
            command = [sys.executable, "-c", INSTALLER, str(folder), str(source)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout.readline() == "ready\n"
                time.sleep(chance.uniform(0, 3 * once))
                process.send_signal(signal.SIGKILL)
            valid = weight_set.read(folder, "net")
            name = json.loads((folder / "net.json").read_text("utf-8"))["set"]
            for suffix, (path, checksum) in valid.items():
                assert digest(path) == checksum
                assert path.read_bytes().startswith(f"{name}{suffix}".encode())
            assert sorted(valid) == ["onnx", "pth"]
            seen.add(name)
            interrupted += len(list(folder.iterdir())) > 3
        # Otherwise the loop has not met the moments it is about.
        assert interrupted > 2
        assert seen == {"a", "b"}

    def test_next_export_clears_away_only_its_own_remains(self, tmp_path):
        """Half-done files of a killed export go; a user's files of similar names stay."""
        (tmp_path / "net.0123456789ab.onnx").write_bytes(b"remains")
        (tmp_path / ".net.onnx.77.tmp").write_bytes(b"remains")
        (tmp_path / "net.backup.onnx").write_bytes(b"a user's")
        (tmp_path / "new").write_bytes(b"new")
        files = dict.fromkeys(("onnx", "pth"), tmp_path / "new")
        weight_set.install(tmp_path, "net", files, {})
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "net.backup.onnx",
            "net.json",
            "net.onnx",
            "net.pth",
            "new",
        ]

    def test_plugin_reads_a_set_in_the_middle_of_its_replacement(self, tmp_path, monkeypatch):
        """While the JSON names files, the plugin loads those and not the usual names."""
        (tmp_path / "interim.onnx").write_bytes(b"new")
        (tmp_path / f"{NAME}.onnx").write_bytes(b"old")
        checksum = hashlib.sha256(b"new").hexdigest()
        record = {"sha256": {"onnx": checksum}, "files": {"onnx": "interim.onnx"}}
        (tmp_path / f"{NAME}.json").write_text(json.dumps(record))
        monkeypatch.setattr(weights, "_BUNDLED", tmp_path)
        assert weights.bundled().read() == b"new"
