"""Settings that belong to weights: read from the file, checked, and obeyed by the pipeline."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from places import LITE, bundled_size
from red import red_network

from u2net_human_plugin import doctor
from u2net_human_plugin.errors import WeightsError
from u2net_human_plugin.network import OnnxNetwork, TorchNetwork
from u2net_human_plugin.segmenter import HumanSegmenter
from u2net_human_plugin.settings import Settings, settings_of, stored_settings
from u2net_human_plugin.weights import WeightsFile, bundled

#: With the size that the bundled file, whose copies the tests change, fixes.
OTHER = Settings(
    size=bundled_size(), haze=0.05, sure=0.98, floor=0.7, margin=0.3, licence="CC0-1.0, für alle"
)


def with_metadata(path: Path, settings: str) -> Path:
    """A copy of the bundled file with this text as its settings."""
    model = onnx.load(bundled().path)
    model.metadata_props.add(key="settings", value=settings)
    onnx.save(model, path)
    return path


class TestValues:
    def test_json_holds_every_value(self) -> None:
        """What was written is what is read, the licence's umlaut as well."""
        assert Settings.from_json(OTHER.to_json(), "x") == OTHER
        assert json.loads(OTHER.to_json()) == dataclasses.asdict(OTHER)

    def test_what_is_left_out_has_its_default(self) -> None:
        """Also in a file of a version that knew fewer; a whole number stands for a float."""
        assert Settings.from_json("{}", "x") == Settings()
        assert Settings.from_json('{"margin": 1}', "x") == Settings(margin=1.0)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("[]", "no JSON object"),
            ("{", "no JSON object"),
            ('{"flor": 0.5}', "'flor', which this version does not know; expected size, haze"),
            ('{"floor": "0.5"}', "floor='0.5': expected a number"),
            ('{"floor": NaN}', "0 < haze < floor"),
            ('{"floor": 0.995}', "0 < haze < floor <= sure < 1"),
            ('{"haze": 0}', "0 < haze"),
            ('{"size": 385}', "multiple of 32"),
            ('{"size": true}', "size=True: expected a whole number"),
            ('{"small": 1.5}', "small=1.5"),
            ('{"margin": Infinity}', "margin=inf"),
            ('{"min_crop": 0}', "min_crop=0"),
            ('{"licence": null}', "licence=None: expected text"),
        ],
    )
    def test_what_is_wrong_is_named(self, text: str, says: str) -> None:
        """With the file, the value and what to do."""
        with pytest.raises(WeightsError, match=r"mine\.onnx: .*calibrate") as caught:
            Settings.from_json(text, "mine.onnx")
        assert says in str(caught.value)

    def test_the_size_that_a_file_fixes_stands_above_the_stored_one(self) -> None:
        """An input of 320 pixels takes no others."""
        assert settings_of(OTHER, 320) == dataclasses.replace(OTHER, size=320)
        assert settings_of(OTHER, None) == OTHER
        assert settings_of(None, 320) == Settings(size=320)


class TestFiles:
    def test_both_runtimes_read_the_same_file(self, tmp_path: Path) -> None:
        """The metadata of one ONNX file, in onnxruntime, in torch, and without either."""
        file = WeightsFile(with_metadata(tmp_path / "w.onnx", OTHER.to_json()), "given")
        assert OnnxNetwork(file).settings == TorchNetwork(file).settings == OTHER
        assert stored_settings(file.path) == OTHER

    def test_damaged_settings_are_an_error_that_names_the_file(self, tmp_path: Path) -> None:
        """In both runtimes: a wrong threshold would be a wrong mask that nobody notices."""
        file = WeightsFile(with_metadata(tmp_path / "w.onnx", '{"floor": 2}'), "given")
        for network in (OnnxNetwork, TorchNetwork):
            with pytest.raises(WeightsError, match=r"w\.onnx: settings: .*floor=2"):
                network(file)

    def test_a_checkpoints_settings_lie_in_its_json_twin(self, tmp_path: Path) -> None:
        """Under "settings"; without them, or without a twin, the defaults hold."""
        file = WeightsFile(tmp_path / "w.pth", "given")
        shutil.copy(LITE, file.path)
        assert TorchNetwork(file).settings == Settings()
        twin = tmp_path / "w.json"
        twin.write_text(json.dumps({"step": 3}))
        assert stored_settings(file.path) is None
        twin.write_text(json.dumps({"step": 3, "settings": dataclasses.asdict(OTHER)}))
        assert TorchNetwork(file).settings == OTHER
        twin.write_text("{")
        with pytest.raises(WeightsError, match=r"w\.json: should describe w\.pth"):
            TorchNetwork(file)

    def test_weights_without_settings_have_the_defaults(self) -> None:
        """The official network fixes its own size: checked with the lite one in torch."""
        network = TorchNetwork(WeightsFile(LITE, "given"))
        assert network.settings == Settings()


class TestDoctor:
    def test_what_holds_and_where_it_comes_from(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The file's own settings; for a file without any, the defaults and its own size."""
        own = with_metadata(tmp_path / "own.onnx", OTHER.to_json())
        monkeypatch.setenv("U2NET_HUMAN_WEIGHTS", str(own))
        assert doctor._settings().text == f"stored with the weights: {OTHER}"
        assert "floor 0.7" in str(OTHER)
        assert "licence: CC0-1.0, für alle" in str(OTHER)
        monkeypatch.setenv("U2NET_HUMAN_WEIGHTS", str(red_network(tmp_path / "red.onnx")))
        assert doctor._settings().text == f"the defaults: {Settings(size=64)}"

    def test_damaged_settings_are_damaged_weights(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also where there is no onnxruntime to find out."""
        own = with_metadata(tmp_path / "own.onnx", '{"floor": 2}')
        monkeypatch.setenv("U2NET_HUMAN_WEIGHTS", str(own))
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        found = doctor._weights()
        assert found.state == "wrong"
        assert "floor=2" in found.text


class Fixed:
    """A network that always says the same."""

    def __init__(self, alpha: Any, settings: Settings) -> None:
        self.alpha, self.settings = np.asarray(alpha, np.float32), settings
        self.sizes: list[int] = []

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.sizes.append(batch.shape[-1])
        return np.repeat(self.alpha[None], len(batch), 0)


class TestPipeline:
    PICTURE = Image.new("RGB", (96, 64), (200, 100, 50))

    def mask(self, alpha: Any, **settings: Any) -> np.ndarray:
        network = Fixed(alpha, Settings(**settings))
        return np.asarray(
            HumanSegmenter(network=network, crop="off", refine="off").mask(self.PICTURE)
        )

    def test_the_floor_comes_from_the_weights(self) -> None:
        """Somebody at 0.97 stays above a floor of 0.95 and goes below one of 0.98."""
        alpha = np.full((32, 48), 0.97)
        assert self.mask(alpha).min() > 240
        assert not self.mask(alpha, floor=0.98).any()

    def test_sureness_comes_from_the_weights(self) -> None:
        """Beside somebody at 1, one at 0.98 goes if the bar is 0.99, and stays if it is 0.97."""
        alpha = np.zeros((32, 48))
        alpha[8:24, 4:16], alpha[8:24, 32:44] = 1, 0.98
        assert self.mask(alpha)[32, 76] == 0
        assert self.mask(alpha, sure=0.97)[32, 76] > 240

    def test_haze_comes_from_the_weights(self) -> None:
        """What a haze of 0.05 joins to a person stays unless haze counts from 0.1 on."""
        alpha = np.full((32, 48), 0.05)
        alpha[8:24, 4:16], alpha[8:24, 32:44] = 1, 0.5
        assert self.mask(alpha)[32, 76] > 100
        assert self.mask(alpha, haze=0.1)[32, 76] == 0

    def test_the_size_comes_from_the_weights(self) -> None:
        """The network is shown a square of that side."""
        network = Fixed(np.zeros((4, 4)), Settings(size=160))
        HumanSegmenter(network=network).mask(self.PICTURE)
        assert set(network.sizes) == {160}
