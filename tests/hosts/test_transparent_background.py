"""u2net_human_ft in transparent-background, as code sees it: ``Remover`` and ``process``."""

from __future__ import annotations

import pickle
import shutil
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from places import LITE

from u2net_human_plugin import HumanSegmenter, Options
from u2net_human_plugin.errors import DataError, HostError, OptionError, WeightsError
from u2net_human_plugin.hosts import transparent_background as adapter
from u2net_human_plugin.network import load_torch
from u2net_human_plugin.preprocess import SIZE
from u2net_human_plugin.u2net import U2Net
from u2net_human_plugin.weights import MODEL_NAME, WeightsFile, bundled

#: What one grey level is in a mask from 0 to 1.
LEVEL = 1 / 255


@pytest.fixture(scope="module")
def host():
    """The host's module ``transparent_background.Remover``, with our adapter in it."""
    import_module("transparent_background")
    module = sys.modules["transparent_background.Remover"]
    adapter.patch(module)
    return module


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home directory that stays empty unless somebody writes into it."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    monkeypatch.delenv("TRANSPARENT_BACKGROUND_FILE_PATH", raising=False)
    return folder


@pytest.fixture(scope="module")
def remover(host):
    return host.Remover(mode=MODEL_NAME)


@pytest.fixture(scope="module")
def picture(astronaut) -> Image.Image:
    """Neither square nor even, so that axes cannot be mixed up unseen."""
    return astronaut.resize((301, 227)).crop((0, 0, 301, 203))


@pytest.fixture(scope="module")
def mask(picture) -> np.ndarray:
    """What both hosts should find in the picture: (H,W) uint8."""
    return np.asarray(HumanSegmenter().mask(picture))


def mask_of(remover, picture) -> np.ndarray:
    found = np.asarray(remover.process(picture, type="map"))
    assert found.shape[2] == 3
    assert found.dtype == np.uint8
    return found[..., 0]


def test_mask_is_the_pipelines_own(remover, picture, mask):
    """The host's map is the pipeline's mask to the last bit, for Pillow images and arrays."""
    assert 0.2 < mask.mean() * LEVEL < 0.9
    np.testing.assert_array_equal(mask_of(remover, picture), mask)
    np.testing.assert_array_equal(mask_of(remover, np.asarray(picture)), mask)


def test_process_uses_what_the_model_answers(remover, picture):
    """The transform, then the model give (1,1,H,W) float32 in 0…1, as ``process`` expects it."""
    alpha = remover.model(remover.transform(picture).unsqueeze(0).to(remover.device))
    assert alpha.shape == (1, 1, picture.height, picture.width)
    assert alpha.dtype == torch.float32
    assert alpha.min() >= 0
    assert alpha.max() <= 1


def test_remover_can_be_sent_to_another_process(remover, picture, mask):
    """Pickled and unpickled, as multiprocessing does, a Remover gives the same mask."""
    copy = pickle.loads(pickle.dumps(remover))  # noqa: S301 - our own
    np.testing.assert_array_equal(mask_of(copy, picture), mask)


def test_same_masks_as_in_rembg(remover, astronaut):
    """Both hosts give the same mask: IoU above 0.999, mean difference below one grey level."""
    rembg = import_module("rembg")
    sessions = import_module("rembg.sessions")
    import_module("u2net_human_plugin.hosts.rembg").patch(sessions)
    session = rembg.new_session(MODEL_NAME)

    pictures = [astronaut, astronaut.resize((90, 1200)), Image.new("RGB", (64, 48), "gray")]
    if ultralytics := find_spec("ultralytics"):
        assets = Path(ultralytics.origin).parent / "assets"
        pictures += [Image.open(assets / name) for name in ("bus.jpg", "zidane.jpg")]
    for picture in pictures:
        theirs = np.asarray(rembg.remove(picture, session=session, only_mask=True))
        ours = mask_of(remover, picture)
        union = ((ours > 127) | (theirs > 127)).sum()
        assert union == 0 or ((ours > 127) & (theirs > 127)).sum() / union > 0.999
        assert np.abs(ours.astype(int) - theirs).mean() < 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "CMYK", "1", "I;16", "F"])
def test_pictures_of_every_mode(remover, picture, mode):
    """Pillow images that are not RGB are made RGB first and give a full cut-out."""
    given = Image.new("I;16", picture.size, 4000) if mode == "I;16" else picture.convert(mode)
    cutout = remover.process(given)
    assert cutout.mode == "RGBA"
    assert cutout.size == picture.size
    assert np.array_equal(np.asarray(cutout)[..., 3], np.asarray(HumanSegmenter().mask(given)))


@pytest.mark.parametrize("shape", ["grey", "grey with an axis", "rgba", "not contiguous"])
def test_arrays_of_every_layout(remover, picture, shape):
    """uint8 arrays with 1, 3 or 4 channels give RGBA arrays; memory layout plays no part."""
    rgb = np.asarray(picture)
    given = {
        "grey": rgb[..., 0],
        "grey with an axis": rgb[..., :1],
        "rgba": np.asarray(picture.convert("RGBA")),
        "not contiguous": np.asfortranarray(rgb)[:, ::-1],
    }[shape]
    cutout = remover.process(given)
    assert isinstance(cutout, np.ndarray)
    assert cutout.shape == (*rgb.shape[:2], 4)
    if shape == "rgba":
        np.testing.assert_array_equal(cutout[..., 3], mask_of(remover, picture))


@pytest.mark.parametrize(
    "given",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 2), np.uint8),
        np.zeros((8, 1, 3), np.uint8),
        Image.new("RGB", (100, 1)),
        "picture.jpg",
    ],
    ids=["floats", "two channels", "one wide", "one high", "a path"],
)
def test_what_process_could_not_finish_is_refused(remover, given):
    """What the host would fail on later, or misread, gets an error that names it."""
    with pytest.raises(DataError, match=r"\(8, 8|1 x 8|100 x 1|a str"):
        remover.process(given)


@pytest.mark.parametrize(
    ("orientation", "deep"), [*((number, False) for number in range(1, 9)), (6, True)]
)
def test_people_are_looked_for_upright(remover, picture, orientation, deep):
    """EXIF orientation: the mask is that of the upright picture, turned as the file is."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = picture.copy()
    if deep:
        stored = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    stored.info["exif"] = exif.tobytes()
    upright = ImageOps.exif_transpose(stored)

    found = Image.fromarray(mask_of(remover, stored))
    assert found.size == stored.size
    found.info["exif"] = exif.tobytes()
    expected = HumanSegmenter().mask(upright)
    np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(found)), expected)


def test_damaged_exif_is_no_orientation(remover, picture, mask):
    """EXIF data that cannot be read leaves the picture as it is stored."""
    picture = picture.copy()
    picture.info["exif"] = b"Exif\x00\x00II*\x00\xff\xff\xff\xff"
    np.testing.assert_array_equal(mask_of(remover, picture), mask)


def test_options_reach_the_pipeline(host, astronaut, monkeypatch):
    """Options come as keywords or from the environment and act as in HumanSegmenter."""
    small = Image.new("RGB", (900, 700), "white")
    small.paste(astronaut.resize((200, 200)), (60, 400))
    expected = np.asarray(HumanSegmenter(options=Options(crop="self")).mask(small))
    assert not np.array_equal(expected, HumanSegmenter(options=Options(crop="off")).mask(small))

    by_keyword = host.Remover(mode=MODEL_NAME, crop="self")
    np.testing.assert_array_equal(mask_of(by_keyword, small), expected)
    monkeypatch.setenv("U2NET_HUMAN_CROP", "self")
    np.testing.assert_array_equal(mask_of(host.Remover(MODEL_NAME), small), expected)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"crop": "sometimes"}, '"off", "self" or "yolo"'),
        ({"person": "all"}, 'did you mean "persons"'),
        ({"crp": "off"}, 'did you mean "crop"'),
        ({"resise": "static"}, 'no option "resise"; did you mean "resize"\\?'),
        (
            {"quality": 3},
            r'no option "quality"\. The options: crop.* It also takes jit, device, ckpt',
        ),
        ({"resize": "huge"}, "static or dynamic"),
        ({"device": "gpu"}, "device='gpu'.*cuda"),
    ],
)
def test_wrong_options_are_errors(host, keywords, message):
    """A wrong value or name is refused with the valid ones."""
    with pytest.raises(OptionError, match=message):
        host.Remover(mode=MODEL_NAME, **keywords)


def test_unknown_mode_lists_the_known_ones(host):
    """Instead of a bare KeyError: the host's modes from its configuration, and ours."""
    with pytest.raises(OptionError, match=f"'u2net': .*base, fast, base-nightly, {MODEL_NAME}"):
        host.Remover(mode="u2net")


def test_graphical_interface_lists_the_mode(host, home):
    """The host's window offers every mode that load_config, as it knows it, returns."""
    gui = sys.modules["transparent_background.gui"]
    config = home / "config.yaml"
    config.write_text((Path(host.__file__).parent / "config.yaml").read_text())
    assert [*gui.load_config(config)] == ["base", "fast", "base-nightly", MODEL_NAME]


def test_resize_makes_no_difference(host, picture, mask):
    """The pipeline has its own way to shrink a picture; the host's two are accepted."""
    for resize in ("static", "dynamic"):
        remover = host.Remover(mode=MODEL_NAME, resize=resize)
        np.testing.assert_array_equal(mask_of(remover, picture), mask)


def test_jit_runs_torchscript_and_writes_nothing(host, picture, tmp_path, monkeypatch):
    """--jit: a TorchScript network in memory, the same mask, no file beside the checkpoint."""
    monkeypatch.chdir(tmp_path)
    checkpoint = tmp_path / "mine.pth"
    shutil.copy(LITE, checkpoint)
    mask = np.asarray(HumanSegmenter(network=load_torch(WeightsFile(LITE, "given"))).mask(picture))
    before = sorted(tmp_path.rglob("*"))
    remover = host.Remover(mode=MODEL_NAME, jit=True, ckpt=str(checkpoint), resize="dynamic")
    found = mask_of(remover, picture)
    assert np.abs(found.astype(int) - mask).mean() < 1
    network = remover.transform.args[0].network
    assert isinstance(network._run, torch.jit.ScriptFunction)
    assert sorted(tmp_path.rglob("*")) == before


def test_traced_network_takes_batches():
    """A trace made with one image answers a batch of three as the untraced network does."""
    plain, traced = load_torch(bundled()), load_torch(bundled(), traced=True)
    side = plain.size or SIZE
    batch = np.random.default_rng(0).normal(size=(3, 3, side, side)).astype(np.float32)
    np.testing.assert_allclose(traced(batch), plain(batch), atol=1e-5)


def test_absent_gpu_is_said_and_the_cpu_taken(host, picture, mask, caplog):
    """CUDA asked for and absent: a warning that names it, and the same mask."""
    if torch.cuda.is_available():
        pytest.skip("this machine has the GPU whose absence is tested")
    remover = host.Remover(mode=MODEL_NAME, device="cuda:0")
    assert remover.device == "cpu"
    assert "cuda:0 is not available" in caplog.text
    np.testing.assert_array_equal(mask_of(remover, picture), mask)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_gives_the_same_mask(host, picture, mask):
    """On CUDA torch runs the network; the mask stays within a grey level on average."""
    remover = host.Remover(mode=MODEL_NAME)
    assert remover.device == "cuda:0"
    assert np.abs(mask_of(remover, picture).astype(int) - mask).mean() < 1


def test_cpu_by_its_other_name(host):
    """cpu:0 is the CPU, where onnxruntime runs the network."""
    remover = host.Remover(mode=MODEL_NAME, device="cpu:0")
    assert remover.device == "cpu"
    assert remover.transform.args[0].network.__class__.__name__ == "OnnxNetwork"


def test_without_onnxruntime_torch_takes_over(host, picture, mask, monkeypatch):
    """An environment without onnxruntime gets the same mask: torch reads the same file."""
    monkeypatch.setattr("u2net_human_plugin.device.find_spec", {}.get)
    remover = host.Remover(mode=MODEL_NAME)
    assert remover.transform.args[0].network.__class__.__name__ == "TorchNetwork"
    assert np.abs(mask_of(remover, picture).astype(int) - mask).mean() < 1


@pytest.mark.parametrize("kind", ["official", "finetuned", "onnx", "official onnx"])
def test_users_own_checkpoint(host, picture, tmp_path, kind, request):
    """--ckpt takes every kind of U²-Net file and uses it, not the bundled weights."""
    torch.manual_seed(0)
    model = U2Net("full" if kind == "official" else "lite")
    # A network without training answers 0.5 everywhere; this one has an opinion.
    torch.nn.init.normal_(model.side2.weight, std=1.0)
    state = model.state_dict()
    path = tmp_path / "mine.pth"
    if kind == "finetuned":
        torch.save({"model": state, "step": 7, "arguments": {}}, path)
    elif kind == "onnx":
        path = tmp_path / "mine.onnx"
        path.write_bytes(bundled().read())
    elif kind == "official onnx":
        path = request.getfixturevalue("official_onnx")
    else:
        torch.save(state, path)
    # An ONNX file has to give in onnxruntime, which the host's CPU gets, what it gives in torch.
    network = load_torch(WeightsFile(path, "given"))
    expected = HumanSegmenter(network=network).mask(picture)
    found = mask_of(host.Remover(mode=MODEL_NAME, ckpt=str(path)), picture)
    assert np.abs(found.astype(int) - np.asarray(expected)).mean() < 1
    if "onnx" not in kind:
        assert not np.array_equal(found, HumanSegmenter().mask(picture))


class _CreatesFile:
    """Pickled, a call of ``Path.touch`` at load time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("absent", r"mine\.pth: .*(no such file|cannot be read)"),
        ("folder", r"mine\.pth: cannot be read"),
        ("text", r"mine\.pth: cannot be read as a plain tensor file.*expected a U²-Net"),
        ("text.onnx", r"mine\.onnx: onnxruntime cannot load it.*expected an ONNX file"),
        ("inspyrenet", r"mine\.pth: not a U²-Net \(it holds backbone.*expected a U²-Net"),
        ("tensor", r"mine\.pth: holds a Tensor.*expected a U²-Net"),
        ("pickle", r"mine\.pth: cannot be read as a plain tensor file"),
    ],
)
def test_wrong_checkpoint_is_named(host, tmp_path, kind, message):
    """A wrong --ckpt gets an error saying what it is and what was expected; no code in it runs."""
    path = tmp_path / f"mine.{'onnx' if kind.endswith('onnx') else 'pth'}"
    if kind == "folder":
        path.mkdir()
    elif kind.startswith("text"):
        path.write_text("not a network")
    elif kind == "inspyrenet":
        torch.save({"backbone.patch_embed.proj.weight": torch.zeros(1)}, path)
    elif kind == "tensor":
        torch.save(torch.zeros(3), path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"model": _CreatesFile(tmp_path / "created")}))
    with pytest.raises(WeightsError, match=message):
        host.Remover(mode=MODEL_NAME, ckpt=str(path))
    assert not (tmp_path / "created").exists()


def test_nothing_is_written_or_downloaded(host, home, picture, monkeypatch):
    """Our mode needs no configuration file, no network and no writable home."""

    def no_network(*_arguments: object) -> None:
        raise AssertionError("our mode went to the network")

    monkeypatch.setattr("socket.socket.connect", no_network)
    host.Remover(mode=MODEL_NAME).process(picture)
    assert not list(home.iterdir())


def test_own_modes_run_as_without_us(host, picture, tmp_path, capsys):
    """The host's mode, with a stand-in checkpoint: the same attributes, types and result."""
    torch.manual_seed(0)
    base_size = [64, 64]
    checkpoint = tmp_path / "stand-in.pth"
    network = host.InSPyReNet_SwinB(64, False, base_size, threshold=None)
    torch.save(network.state_dict(), checkpoint)

    plain = object.__new__(host.Remover)
    host.Remover.__init__.__wrapped__(plain, "fast", ckpt=str(checkpoint), device="cpu")
    said = capsys.readouterr().out
    ours = host.Remover("fast", ckpt=str(checkpoint), device="cpu")
    assert (
        capsys.readouterr().out
        == said
        == "Settings -> Mode=fast, Device=cpu, Torchscript=disabled\n"
    )
    checkpoint.unlink()

    assert {name: type(value) for name, value in vars(ours).items()} == {
        name: type(value) for name, value in vars(plain).items()
    }
    assert type(ours.model) is type(network)
    assert ours.meta == plain.meta
    expected = host.Remover.process.__wrapped__(plain, picture, type="map")
    np.testing.assert_array_equal(ours.process(picture, type="map"), expected)
    with pytest.raises(TypeError, match="crop"):
        host.Remover("fast", crop="self")


def test_patching_twice_changes_nothing(host):
    """The adapter sees that it has been here."""
    before = host.Remover.__init__, host.Remover.process, host.console, host.parse_args
    adapter.patch(host)
    assert before == (host.Remover.__init__, host.Remover.process, host.console, host.parse_args)


def test_unfamiliar_host_is_left_alone():
    """A host without the expected names raises HostError and stays as it is."""
    module = type(sys)("transparent_background.Remover")
    module.Remover = type("Remover", (), {})
    before = dict(vars(module))
    with pytest.raises(HostError, match="load_config, parse_args, console"):
        adapter.patch(module)
    assert vars(module) == before


def test_pymatting_is_imported_for_the_output_that_needs_it(launch, astronaut, tmp_path):
    """It compiles itself for half a minute in a new environment, and a map does without."""
    pytest.importorskip("pymatting")
    astronaut.resize((64, 64)).save(tmp_path / "in.png")
    done = launch(
        "-c",
        "import sys\n"
        "from PIL import Image\n"
        "from transparent_background import Remover\n"
        "remover, picture = Remover(mode='u2net_human_ft'), Image.open('in.png')\n"
        "remover.process(picture, type='map')\n"
        "print('pymatting' in sys.modules)\n"
        "cutout = remover.process(picture, type='rgba')\n"
        "print('pymatting' in sys.modules, cutout.mode)",
    )
    assert done.stdout.splitlines()[-2:] == ["False", "True RGBA"]


def test_without_pymatting_colours_stay(host, astronaut, monkeypatch, caplog):
    """An absent one is said when the mode is set up, a broken one when it is first used."""
    picture = astronaut.resize((64, 64))
    monkeypatch.setattr(adapter, "find_spec", lambda _: None)
    assert host.Remover(mode=MODEL_NAME).matting_fn is None
    assert "pymatting cannot be imported" in caplog.text
    monkeypatch.undo()
    adapter._estimator.cache_clear()
    monkeypatch.setattr(adapter, "import_module", lambda name: import_module(f"absent.{name}"))
    cutout = np.asarray(host.Remover(mode=MODEL_NAME).process(picture))
    np.testing.assert_array_equal(cutout[..., :3], np.asarray(picture))
    assert caplog.text.count("pymatting cannot be imported") == 2
    adapter._estimator.cache_clear()
