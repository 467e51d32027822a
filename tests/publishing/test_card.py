"""`python -m finetune card`: documents that say what provenance and reports say."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from huggingface_hub import ModelCard
from PIL import Image
from typer.testing import CliRunner

from u2net_human_plugin import weights
from u2net_human_plugin.errors import DataError
from u2net_human_plugin.finetune.__main__ import app
from u2net_human_plugin.finetune.evaluation import report, tables
from u2net_human_plugin.finetune.publishing import card, example_pictures, readme
from u2net_human_plugin.finetune.publishing.provenance import flat

CHECKOUT = Path(__file__).resolve().parents[2]

TRAINING = {
    "arguments": {
        "manifests": ["data/manifest.jsonl"],
        "init": "u2netp.onnx",
        "lr": 0.0003,
        "coarse": {"ccp": 3},
        "epochs": 7,
    },
    "data": {
        "sha256": "da7a",
        "held_back": 160,
        "sources": {
            "eg1800": {"licence": "academic exchange only", "pictures": 1180},
            "mine": {"licence": "CC0-1.0", "pictures": 12},
        },
    },
    "commit": "abc123",
    "torch": "2.14.1",
    "device": "cpu",
    "processes": 1,
    "steps": 1000,
    "pictures": 8000,
    "seconds": 9000.0,
}
EXPORTED = {
    "variant": "lite",
    "decoder": "half",
    "made_from": "u2net_finetuned.pth",
    "sha256": {"onnx": "0a11", "pth": "0b22"},
}


def provenance(training=TRAINING):
    """As `export --bundle` writes it."""
    return flat({**EXPORTED, "training": training})


PROVENANCE = provenance()


def picture(source, before, after, height):
    default = {"empty_scene": False, "area": 0.2, "persons": 1, "source": source, "height": height}
    default |= {"flags": None}
    scores = {"mae": 0.1, "haze": 0.1, "empty": False, "seconds": 0.5, "boundary_iou": 0.6}
    return {**default, "before": {**scores, "iou": before}, "after": {**scores, "iou": after}}


@pytest.fixture
def reports():
    """One report on two sources, as read from model_cards/results."""
    pictures = [picture("eg1800", 0.8, 0.9123, 0.9), picture("ccp", 0.7, 0.8, 0.1)] * 5
    models = {
        "before": {"spec": "minmax:u2netp.onnx", "bytes": 4_574_861},
        "after": {"spec": "bundled", "kind": "bundled"},
    }
    settings = {"split": "test", "manifest": "data", "consistency": 50, "workers": 2}
    settings |= {"sources": [], "limit": None, "crop": None}
    made = {"models": models, "pictures": 10, "settings": settings, "machine": {"cores": 4}}
    summary = report.summarise(pictures)
    return [{**made, **summary, "title": "Photos", "file": "results/photos.json"}]


@pytest.fixture
def rendered(reports):
    """The model card of fine-tuned weights."""
    return card.render_card(CHECKOUT, PROVENANCE, reports)


class TestCard:
    def test_front_matter_is_valid(self, rendered):
        """huggingface_hub reads the YAML and finds each source's scores."""
        data = ModelCard(rendered).data
        assert data.pipeline_tag == "image-segmentation"
        assert data.license == "other"
        found = {(r.dataset_type, r.metric_type): r.metric_value for r in data.eval_results}
        assert found["eg1800", "iou"] == 0.9123
        assert found["ccp", "iou"] == 0.8
        assert all(result.dataset_split == "test" for result in data.eval_results)

    def test_numbers_come_from_the_report(self, rendered):
        """Means by source, the share of the error gone, and the weakest slice first."""
        assert "| portraits (`eg1800`) | 5 | 0.800 → 0.912" in rendered
        assert "| IoU | 0.7500 [" in rendered
        weakest = rendered.split("### Weakest slices")[1].split("##")[0]
        assert re.search(r"\|\n\| Photos, [^|]*\| 5 \| 0\.700 → 0\.800", weakest)

    def test_the_command_behind_a_report_stands_beside_it(self, rendered, reports):
        """And what its "before" is: here the official network as rembg runs it."""
        command = "python -m finetune evaluate --manifest data --split test"
        assert f"\n{command} --before minmax:u2netp.onnx --after bundled --consist" in rendered
        assert '"Before" runs as in rembg' in rendered
        settings = {**reports[0]["settings"], "crop": "off", "sources": ["ccp"], "limit": 60}
        told = card.evaluation_command({**reports[0], "settings": settings})
        assert "--source ccp --limit 60 --crop off --before" in told

    def test_readme_compares_with_what_rembg_runs(self, reports):
        """A report on the official weights in our own pipeline is in the card alone."""
        own = {**reports[0]["models"], "before": {"spec": "u2netp.onnx"}}
        both = [*reports, {**reports[0], "title": "Other", "models": own}]
        assert readme.render_results(PROVENANCE, both) == readme.render_results(PROVENANCE, reports)
        assert readme.render_front(both) == readme.render_front(reports)
        text = card.render_card(CHECKOUT, PROVENANCE, both)
        assert "### Other" in text
        assert "a difference is that of the weights" in " ".join(text.split())

    def test_training_is_told(self, rendered):
        """Hours, hardware, starting point and data hash stand in the card; no commands."""
        assert "starting from `u2netp.onnx`" in " ".join(rendered.split())
        assert "python -m finetune train --manifest" not in rendered
        assert "2.50 hours on cpu" in " ".join(rendered.split())
        assert "da7a" in rendered

    def test_runs_in_a_row_are_all_told(self, reports):
        """Weights trained in several runs have a line each, oldest first, and the sums."""
        second = {**TRAINING, "arguments": {"init": "first.pth"}, "started_from": TRAINING}
        text = card.render_card(CHECKOUT, provenance(second), reports)
        assert "starting from `u2netp.onnx`" in " ".join(text.split())
        assert text.count("8000 pictures in") == 2
        assert "5.0 hours and 16000 pictures" in " ".join(text.split())
        assert text.count("EG1800** (1180 pictures)") == 1

    def test_runs_that_were_mixed_in_are_told_once(self, reports):
        """Their pictures count, once if the same run was mixed in twice."""
        other = {**TRAINING, "arguments": {"init": "other.pth"}, "started_from": TRAINING}
        step = {"before": "other.pth", "share": 0.5, "temperature": 1, "training": other}
        last = {**TRAINING, "arguments": {"init": "a.pth"}, "averaged": [step, step]}
        text = card.render_card(CHECKOUT, provenance(last), reports)
        assert text.count("8000 pictures in") == 3
        assert "Averaged with other weights in 2 steps." in " ".join(text.split())
        assert "24000 pictures" in " ".join(text.split())

    def test_every_source_has_its_terms(self, rendered):
        """Known sources with their stated terms, others with their manifest's licence."""
        text = " ".join(rendered.split())
        assert "EG1800** (1180 pictures)" in text
        assert "**for academic exchange only**" in text
        assert "mine** (12 pictures)" in text
        assert "Terms: CC0-1.0" in text
        assert "Clothing Co-Parsing" not in text  # nothing of it was trained on here

    def test_weights_that_were_not_trained(self, reports):
        """Without a training record the card says that these are the official weights."""
        text = card.render_card(CHECKOUT, provenance(None), reports)
        assert "official ones, not yet fine-tuned" in text
        assert "0a11" in text

    def test_nothing_measured(self):
        """Without reports the card is still whole and valid."""
        text = card.render_card(CHECKOUT, PROVENANCE, [])
        assert ModelCard(text).data.eval_results is None
        assert "Not measured yet." in text


class TestReadme:
    def test_only_what_is_between_the_markers_changes(self, reports):
        """The results replace the old ones; the rest of README stays."""
        results = readme.render_results(PROVENANCE, reports)
        before = "a\n<!-- results:start -->\nold\n<!-- results:end -->\nb\n"
        filled = readme.fill(before, "results", results)
        assert filled.startswith("a\n<!-- results:start -->\n**Photos**")
        assert filled.endswith("\n<!-- results:end -->\nb\n")
        assert "old" not in filled
        assert "| full figures in the street (`ccp`) | 5 | 0.700 → 0.800" in filled
        assert readme.fill(filled, "results", results) == filled

    def test_missing_marker_is_an_error(self):
        """A README without the markers is left alone."""
        with pytest.raises(DataError, match="results:end"):
            readme.fill("<!-- results:start -->", "results", "x")

    def test_five_lines_first(self, reports):
        """What, how good on whose photos, how fast, how large, offline: from the reports."""
        benchmark = {
            "machine": "2 cores",
            "predict": {"1 megapixel": {"bundled_s": 0.31, "u2netp_ms": 290.0}},
            "peak_memory_mb": {"1 megapixel": {"bundled": 525.2, "u2netp": 554.6}},
        }
        crops = [{**reports[0], "title": "Crowds"}]
        lines = readme.render_front(reports, crops, benchmark).splitlines()[2:]
        titles = [line.split("**")[1] for line in lines]
        assert titles == ["What", "How good", "How fast", "How large", "Offline"]
        good, fast, large = lines[1:4]
        assert "5 portraits (`eg1800`): 0.800 → **0.912** [+0.112, +0.112]" in good
        assert "1 megapixel: 0.31 s and 525 MB, rembg's own `u2netp` 0.29 s and 555 MB" in fast
        assert "on 2 cores" in fast
        assert "crowds, looked at closer: × 1.0" in fast
        size = len(weights.bundled().read()) / 1e6
        assert f"{size:.1f} MB of weights; `u2netp`: 4.6 MB" in large

    @pytest.mark.parametrize(
        ("low", "high", "shown"),
        [
            (0.1, 0.3, "0.500 → **0.700** [+0.100, +0.300]"),
            (-0.1, 0.3, "0.500 → 0.700 [-0.100, +0.300]"),
            (-0.3, -0.1, "**0.500** → 0.700 [-0.300, -0.100]"),
            (None, None, "0.500 → 0.700"),
        ],
    )
    def test_bold_is_what_is_surely_better(self, reports, low, high, shown):
        """Ours, rembg's own, or neither; one picture has no interval."""
        scores = reports[0]["slices"]["source"]["ccp"]["iou"]
        scores["before"]["mean"], scores["after"]["mean"] = 0.5, 0.7
        scores["difference"].update(low=low, high=high)
        assert f"5 full figures in the street (`ccp`): {shown}<br>" in (
            readme.render_front(reports).replace(" |", "<br>")
        )

    def test_everyday_photos_come_first(self, reports):
        """Portraits, of which most training pictures are, come last; unknown sources after them."""
        sources = reports[0]["slices"]["source"]
        source = {"mine": sources["ccp"], "eg1800": sources["ccp"], "coco": sources["ccp"]}
        named = readme.named_sources({"slices": {"source": source}})["slices"]["source"]
        everyday = "everyday photos, everybody in them counts (`coco`)"
        assert list(named) == [everyday, "portraits (`eg1800`)", "mine"]
        assert list(source) == ["mine", "eg1800", "coco"]

    def test_nothing_measured(self):
        """Without reports the five lines say so."""
        assert readme.render_front([]).count("not measured yet") == 2


class TestPictures:
    def listed(self, folder):
        """The astronaut, as a package would bring it."""
        (folder / "faces").mkdir()
        path = folder / "faces" / "a.png"
        Image.fromarray(skimage.data.astronaut()[:256, 100:356]).save(path)
        facts = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "package": "kit 1.0"}
        return [{"file": "faces/a.png", **facts, "terms": "MIT"}]

    def test_the_front_picture_shows_the_listed_photos(self, tmp_path):
        """The photo as it is, and a mask of it by each model."""
        (example,) = example_pictures.people("bundled", tmp_path, self.listed(tmp_path))
        assert np.array_equal(example.image, skimage.data.astronaut()[:256, 100:356])
        assert example.captions == ["photo", "rembg's bundled", "u2net_human_ft"]
        assert len(example.masks) == 2
        assert example.masks[1][120, 125] > 200, "her face"

    def test_other_photos_are_refused(self, tmp_path):
        """A missing one, and one of another content, are named with their package."""
        listed = self.listed(tmp_path)
        Image.new("RGB", (9, 9)).save(tmp_path / "faces" / "a.png")
        with pytest.raises(DataError, match=r"a\.png: not the photo of kit 1\.0"):
            example_pictures.people("bundled", tmp_path, listed)
        with pytest.raises(DataError, match=r"no such file; --photos is the unpacked kit 1\.0"):
            example_pictures.people("bundled", tmp_path / "faces", listed)

    def test_photos_need_a_model_beside_ours(self, tmp_path):
        """Nothing is drawn, and the missing option is named."""
        arguments = ["card", "--folder", str(tmp_path), "--photos", str(tmp_path)]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 1
        assert "--before" in result.output


class TestReports:
    def test_report_on_other_weights_is_refused(self, tmp_path):
        """A report may only describe the weights that are bundled."""
        (tmp_path / "model_cards" / "results").mkdir(parents=True)
        path = tmp_path / "model_cards" / "results" / "some_photos.json"
        path.write_text(json.dumps({"models": {"after": {"sha256": "0a11"}}}))
        (found,) = card.read_reports(tmp_path, "0a11")
        assert found["title"] == "Some photos"
        with pytest.raises(DataError, match="judges weights with SHA-256 0a11"):
            card.read_reports(tmp_path, "ffff")
        path.write_text("[]")
        with pytest.raises(DataError, match=r"not a report\.json"):
            card.read_reports(tmp_path, "0a11")

    def test_reports_on_crops_may_judge_other_weights(self, tmp_path):
        """In results/crop the official weights stand beside the bundled ones, which must fit."""
        folder = tmp_path / "model_cards" / "results" / "crop"
        folder.mkdir(parents=True)
        path = folder / "small_figures.self.json"
        path.write_text(json.dumps({"models": {"after": {"sha256": "1", "kind": "onnx"}}}))
        (found,) = card.read_reports(tmp_path, "0a11", Path("results/crop"))
        assert (found["title"], found["file"]) == ("Small figures", "results/crop/" + path.name)
        path.write_text(json.dumps({"models": {"after": {"sha256": "1", "kind": "bundled"}}}))
        with pytest.raises(DataError, match="judges weights with SHA-256 1"):
            card.read_reports(tmp_path, "0a11", Path("results/crop"))

    def test_crop_table(self, reports):
        """Which weights, from which crop to which, what it gains and costs; trusted masks apart."""
        models = {
            name: {"spec": f"../u2netp.onnx?crop={crop}", "options": {"crop": crop}}
            for name, crop in (("before", "off"), ("after", "self"))
        }
        table = tables.crop_table([{**reports[0], "models": models}])
        line = "| Photos | 10 | u2netp.onnx: off → self | 0.750 → 0.856 ["
        assert line in table
        assert table.endswith("| 42 % | × 1.0 |")
        doubts = {"doubt about the mask": {"none": {**reports[0]["overall"], "pictures": 7}}}
        table = tables.crop_table([{**reports[0], "models": models, "slices": doubts}])
        assert line in table
        assert "\n| … without doubt about the mask | 7 | u2netp.onnx: off → self | 0.750" in table


@pytest.mark.skipif(not (CHECKOUT / "README.md").is_file(), reason="needs the checkout")
class TestCommitted:
    def test_documents_are_up_to_date(self):
        """Model card and README say what the bundled weights' record and reports say."""
        result = CliRunner().invoke(app, ["card", "--folder", str(CHECKOUT), "--check"])
        assert result.exit_code == 0, result.output

    def test_outdated_documents_are_noticed_and_rewritten(self, tmp_path):
        """--check fails on a changed card; the command without it puts the card right."""
        shutil.copytree(CHECKOUT / "model_cards", tmp_path / "model_cards")
        shutil.copy(CHECKOUT / "README.md", tmp_path)
        written = tmp_path / card.CARD
        expected = written.read_text("utf-8")
        written.write_text(expected.replace("u2net_human_ft", "something else"), "utf-8")
        command = ["card", "--folder", str(tmp_path)]
        assert CliRunner().invoke(app, [*command, "--check"]).exit_code == 1
        assert CliRunner().invoke(app, command).exit_code == 0
        assert written.read_text("utf-8") == expected

    def test_pictures_of_other_weights_are_noticed(self, tmp_path):
        """--check names the sheet, and what redraws it."""
        shutil.copytree(CHECKOUT / "model_cards", tmp_path / "model_cards")
        shutil.copy(CHECKOUT / "README.md", tmp_path)
        file = tmp_path / "model_cards" / "drawn.json"
        record = json.loads(file.read_text("utf-8"))
        record["people.jpg"]["weights"] = "0a11"
        file.write_text(json.dumps(record), "utf-8")
        result = CliRunner().invoke(app, ["card", "--folder", str(tmp_path), "--check"])
        assert result.exit_code == 1
        assert "people.jpg shows other weights" in result.output
        assert "--before and --photos" in result.output

    def test_the_front_picture_names_its_photos(self):
        """Each with its package and terms; the front page shows the picture."""
        text = (CHECKOUT / card.CARD).read_text("utf-8")
        photos = example_pictures.front_photos(CHECKOUT / "model_cards")
        assert [photo["sheet"] for photo in photos] == [*["people.jpg"] * 3, "options.jpg"]
        for photo in photos:
            assert f"`{photo['file']}` of {photo['package']}. Terms: {photo['terms']}." in text
        assert "](people.jpg)" in text
        assert 'src="model_cards/people.jpg"' in (CHECKOUT / "README.md").read_text("utf-8")

    def test_known_failures_are_those_drawn(self):
        """The table's shares are what the weights marked when the pictures were drawn."""
        text = (CHECKOUT / card.CARD).read_text("utf-8").split("## Known failures")[1]
        marked = example_pictures.drawn(CHECKOUT / "model_cards")["examples.jpg"]["marked"]
        before, after = marked["coffee, nobody"]
        assert f"| coffee, nobody | {100 * before:.1f} % | {100 * after:.1f} % |" in text
        assert len(marked) == 12

    def test_card_is_a_valid_model_card(self):
        """huggingface_hub loads the committed file."""
        loaded = ModelCard.load(CHECKOUT / card.CARD)
        assert loaded.data.model_name == weights.MODEL_NAME

    def test_checksums_are_those_of_the_files(self):
        """The checksums in the card belong to the files in the package."""
        text = (CHECKOUT / card.CARD).read_text("utf-8")
        content = weights.bundled().read()
        assert f"| `{hashlib.sha256(content).hexdigest()}` |" in text

    def test_links_lead_somewhere(self):
        """Every relative link in the card is a file of the repository."""
        text = (CHECKOUT / card.CARD).read_text("utf-8")
        links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
        for link in links:
            assert (CHECKOUT / card.CARD.parent / link).is_file(), link
