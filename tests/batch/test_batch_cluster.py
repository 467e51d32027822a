"""`python -m u2net_human_plugin batch` and `cut_out`, on clusters of Ray on this machine."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from u2net_human_plugin import HumanSegmenter
from u2net_human_plugin.batch.actor import count_people
from u2net_human_plugin.preprocess import SIZE
from u2net_human_plugin.weights import ENVIRONMENT_VARIABLE

pytest.importorskip("ray", reason="needs the extra ray")
parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra ray")
psutil = pytest.importorskip("psutil", reason="needs psutil, of the extra train")

MODULE = ("-m", "u2net_human_plugin", "batch")
#: One look at each picture: these tests are about pictures that get lost.
QUICK = {"U2NET_HUMAN_CROP": "off", "U2NET_HUMAN_REFINE": "off"}
#: Seconds after which no process is left of a command that has ended, however it did. If it was
#: killed, or Ray did not start at once, two agents of Ray's look for a minute for whom to tell.
GONE = 150
AGENT = re.compile(r"^ray::\w+Agent|[/\\](dashboard[/\\]agent|agent[/\\]main)\.py")
BROKEN = b"\xff\xd8\xff\xe0 and no more"


@pytest.fixture
def photos(tmp_path, astronaut):
    """``photos(count)``: a folder of small pictures, in two folders, and one more for each name."""

    def make(count, *names):
        small = astronaut.resize((96, 96))
        for name in (*(f"{i % 2}/{i:04}.jpg" for i in range(count)), *names):
            file = tmp_path / "photos" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            small.save(file)
        return tmp_path / "photos"

    return make


@pytest.fixture
def batch(launch, tmp_path):
    """Runs the command from photos to out, with two actors."""

    def run(*more, source="photos", dest="out", env=None, **keywords):
        arguments = (*MODULE, source, dest, "--actors", "2", *more)
        env = {**QUICK, **(env or {})}
        return launch(*arguments, env=env, cwd=tmp_path, **{"timeout": 900, **keywords})

    return run


def table(folder):
    rows = parquet.read_table(folder / "cutouts.parquet").to_pylist()
    return {row["source"]: row for row in rows}


def outputs(folder):
    """Names and times of the files under their final names."""
    files = (file for file in folder.rglob("*.*") if not file.relative_to(folder).parts[0] < "/")
    return {str(f.relative_to(folder)): f.stat().st_mtime_ns for f in files if f.suffix == ".png"}


def check_whole(folder):
    for name in outputs(folder):
        with Image.open(folder / name) as image:
            image.load()


@pytest.mark.slow
def test_folder(photos, batch, tmp_path, astronaut):
    """Folders are kept, two of one name stay two, the rest goes on; then only what is missing."""
    folder = photos(4, "a/same.jpg", "a/same.png", "a/deep/er.webp")
    folder.joinpath("a/broken.jpg").write_bytes(BROKEN)
    folder.joinpath("notes.txt").write_text("no picture")
    astronaut.save(folder / "large.png")
    done = batch(check=False)
    assert done.returncode == 1, done.stderr
    assert "8 cut-outs made, 1 failed" in done.stdout
    assert "a/broken.jpg  " in done.stdout
    assert "notes.txt" in done.stdout
    first = outputs(tmp_path / "out")
    assert set(first) == {
        *("0/0000.png", "1/0001.png", "0/0002.png", "1/0003.png", "large.png"),
        *("a/same.jpg.png", "a/same.png.png", "a/deep/er.png"),
    }
    rows = table(tmp_path / "out")
    assert list(rows) == sorted(rows), "frames of a video stay in order"
    assert rows["a/broken.jpg"]["error"].startswith("OSError: ")
    large = rows["large.png"]
    assert (large["output"], large["width"], large["height"]) == ("large.png", 512, 512)
    assert (large["error"], len(large["sha256"])) == (None, 64)
    assert large["seconds"] > 0
    mask = HumanSegmenter(crop="off", refine="off").mask(astronaut)
    with Image.open(tmp_path / "out" / "large.png") as cutout:
        alpha = cutout.getchannel("A")
    assert np.abs(np.asarray(alpha, int) - np.asarray(mask, int)).max() <= 1
    assert large["share"] == pytest.approx(np.asarray(mask).mean() / 255, abs=0.01)
    assert large["people"] == count_people(mask) > 0

    # Mended, and one lost: just these two are made.
    Image.new("RGB", (50, 50)).save(folder / "a" / "broken.jpg")
    tmp_path.joinpath("out", "large.png").unlink()
    done = batch()
    assert "9 pictures, 7 of them done already." in done.stdout
    assert "2 cut-outs made, 0 failed" in done.stdout
    second = outputs(tmp_path / "out")
    assert {name for name in second if second[name] != first.get(name)} == {
        "a/broken.png",
        "large.png",
    }
    wait_for(lambda: not processes(tmp_path), GONE)
    assert "0 cut-outs made, 0 failed" in batch().stdout
    done = batch(source="photos/a", check=False)
    assert done.returncode == 2
    assert "holds the cut-outs of" in done.stderr


def workers(process):
    """The actors' processes below the driver."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if "MapWorker" in " ".join(child.cmdline()):
                    found.append(child)
    return found


def processes(folder):
    """Titles of the processes that work in a folder: those of a command that was run there."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline())[:200])
    return found


def wait_for(condition, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


@pytest.fixture
def driver(installed_python, clean_environment, tmp_path):
    """Starts the command in the background, with these additions to the environment."""
    command = [installed_python, *MODULE, "photos", "out", "--actors", "2"]
    processes = []

    def start(**env):
        log = (tmp_path / "log").open("w")
        environment = {**clean_environment, **QUICK, **env}
        # Where tests run in the background, Ctrl+C is ignored, and would be below.
        usual = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
        signal.signal(signal.SIGINT, usual)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def make_endless(picture):
    """Let whoever reads this picture wait, so that no machine is too fast for a test."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs named pipes")
    picture.unlink()
    os.mkfifo(picture)


def write_bright(path):
    """A network that takes brightness for people, at once, where the bundled one needs a second."""
    onnx = pytest.importorskip("onnx", reason="needs the extra train")
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["input", "channels"], ["bright"], keepdims=1),
            helper.make_node("Sigmoid", ["bright"], ["alpha"]),
        ],
        "bright",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 3, SIZE, SIZE))],
        [helper.make_tensor_value_info("alpha", TensorProto.FLOAT, (1, 1, SIZE, SIZE))],
        [helper.make_tensor("channels", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    onnx.save(model, path)
    return str(path)


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_killed(count, photos, batch, tmp_path, driver):
    """A killed worker and a killed driver lose nothing, and the next run does what is missing."""
    last = photos(count) / "1" / f"{count - 1:04}.jpg"
    picture = last.read_bytes()
    make_endless(last)
    out = tmp_path / "out"
    many = count > 100  # for so many the time is better spent on files than in a network
    env = {ENVIRONMENT_VARIABLE: write_bright(tmp_path / "bright.onnx")} if many else {}
    process = driver(**env)
    wait_for(lambda: len(outputs(out)) >= 3 or process.poll() is not None)
    assert process.poll() is None, (tmp_path / "log").read_text()
    at_work = workers(process)
    assert len(at_work) == 2
    at_work[0].kill()
    wait_for(lambda: (out / ".rows").exists() and len(outputs(out)) >= count // 4, seconds=1800)
    assert process.poll() is None, "a killed worker ends nothing"
    at_work = workers(process)
    process.kill()
    process.wait()
    wait_for(lambda: not any(child.is_running() for child in at_work), 60)
    wait_for(lambda: all(AGENT.search(title) for title in processes(tmp_path)), 60)
    check_whole(out)
    first = outputs(out)
    assert count // 4 <= len(first) < count

    last.unlink()
    last.write_bytes(picture)
    done = batch(env=env, timeout=1800)
    known = int(re.search(r"(\d+) of them done already", done.stdout)[1])
    assert 0 < known <= len(first)
    assert f"{count - known} cut-outs made, 0 failed" in done.stdout
    second = outputs(out)
    assert sum(second[name] == first[name] for name in first) == known, "nothing twice"
    assert len(second) == count == len(table(out))
    check_whole(out)
    assert sorted(file.name for file in out.iterdir()) == ["0", "1", "cutouts.parquet"]
    if many:
        wait_for(lambda: not processes(tmp_path), GONE)


@pytest.mark.parametrize(
    ("sent", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_stopped(sent, status, photos, tmp_path, driver):
    """Ctrl+C, and a service that is stopped: what is made is kept, and no process stays."""
    photos(16)
    make_endless(tmp_path / "photos" / "1" / "0015.jpg")
    out = tmp_path / "out"
    process = driver()
    wait_for(lambda: (out / ".rows").exists() or process.poll() is not None)
    assert process.poll() is None, (tmp_path / "log").read_text()
    process.send_signal(sent)
    assert process.wait(60) == status
    assert "batch: stopped; the same command goes on" in (tmp_path / "log").read_text()
    wait_for(lambda: not processes(tmp_path), GONE)
    kept = table(out)
    assert len(kept) >= 8
    assert all(row["error"] is None for row in kept.values())
    assert not (out / ".rows").exists()


#: Read at the start of every interpreter: a picture that kills the process that opens it.
POISON = """
import io, os, signal
from PIL import Image
usual = Image.open
def opened(file, *rest):
    if isinstance(file, io.BytesIO) and file.getvalue().startswith(b"poison"):
        os.kill(os.getpid(), signal.SIGKILL)
    return usual(file, *rest)
Image.open = opened
"""


@pytest.mark.slow
def test_a_picture_that_kills(photos, batch, tmp_path):
    """A picture that its process dies of is given up, and blamed; its neighbours are made."""
    photos(6).joinpath("0", "0003.jpg").write_bytes(b"poison")
    tmp_path.joinpath("usercustomize").mkdir()
    tmp_path.joinpath("usercustomize", "sitecustomize.py").write_text(POISON)
    done = batch(env={"PYTHONPATH": str(tmp_path / "usercustomize")}, check=False)
    assert done.returncode == 1, done.stderr
    assert "6 cut-outs made, 1 failed" in done.stdout
    assert table(tmp_path / "out")["0/0003.jpg"]["error"] == (
        "the process that had it died, 3 times."
    )


def test_bad_arguments(photos, launch, tmp_path):
    """What cannot start ends with 2 and one line that says why; nothing is written."""
    photos(1)
    tmp_path.joinpath("file").write_text("")
    for arguments, says in {
        ("nowhere", "out"): "nowhere: there is no such folder",
        ("photos", "file"): "file: is a file",
        ("photos", "."): "holds the pictures themselves",
        ("photos", "photos"): "holds the pictures themselves",
        ("photos", "out", "--actors", "0"): "--actors 0: expected",
        ("photos", "out", "--gpus-per-actor", "-1"): "--gpus-per-actor -1.0: expected",
    }.items():
        done = launch(*MODULE, *arguments, cwd=tmp_path, check=False)
        assert done.returncode == 2, arguments
        assert says in done.stderr, done.stderr
        assert done.stderr.startswith("batch: ")
        assert done.stderr.count("\n") == 1
    wrong = {"U2NET_HUMAN_CROP": "everywhere"}
    done = launch(*MODULE, "photos", "out", cwd=tmp_path, check=False, env=wrong)
    assert (done.returncode, "U2NET_HUMAN_CROP='everywhere'" in done.stderr) == (2, True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "photos"]


#: One's own pipeline on one's own cluster, which a command then joins.
PIPELINE = """
import subprocess, sys
from u2net_human_plugin.batch import Recipe, cut_out
from u2net_human_plugin.batch.cluster import cluster

here = cluster(actors=2)
ray = here.__enter__()
files = ray.data.read_binary_files("photos", include_paths=True)
made = cut_out(files, Recipe.from_environment("mask"), actors=2)
rows = made.take_all()
assert len(rows) == 5, len(rows)
assert sum(row["error"] is None for row in rows) == 4
images = ray.data.read_images("photos/0", include_paths=True)
row = cut_out(images).sort("path").take(1)[0]
assert row["path"].endswith("0000.jpg")
assert (row["image"].shape, row["width"], row["error"]) == ((96, 96, 3), 96, None)
assert row["cutout"].startswith(b"\\x89PNG")
command = [sys.executable, "-m", "u2net_human_plugin", "batch", "photos", "out"]
address = ray.get_runtime_context().gcs_address
done = subprocess.run([*command, "--ray-address", address, "--format", "webp"])
assert done.returncode == 1
assert ray.is_initialized() and ray.nodes()[0]["Alive"]
done = subprocess.run([*command, "--ray-address", "127.0.0.1:1"], capture_output=True, text=True)
assert done.returncode == 2, done
assert "batch: --ray-address 127.0.0.1:1: no Ray cluster there" in done.stderr, done.stderr
here.__exit__(None, None, None)
assert not ray.is_initialized()
"""


@pytest.mark.slow
def test_pipeline(photos, launch, tmp_path):
    """`cut_out` is a step of somebody's own pipeline; the command joins a running cluster."""
    photos(4).joinpath("1", "broken.jpg").write_bytes(BROKEN)
    launch("-c", PIPELINE, env=QUICK, cwd=tmp_path, timeout=900)
    names = {str(f.relative_to(tmp_path / "out")) for f in (tmp_path / "out").rglob("*.webp")}
    assert names == {"0/0000.webp", "0/0002.webp", "1/0001.webp", "1/0003.webp"}


#: Read at the start of every interpreter: of Ray's first agent, too late for its raylet.
LATE = """
import os, sys, time
if any("dashboard/agent.py" in word.replace(os.sep, "/") for word in sys.orig_argv):
    try:
        os.close(os.open(os.environ["LATE"], os.O_CREAT | os.O_EXCL))
        time.sleep(20)
    except FileExistsError:
        pass
"""

#: What is said, how often it was started, and what is left of the first start.
STARTED = """
import psutil
from u2net_human_plugin.batch.cluster import cluster

with cluster(actors=1) as ray:
    assert ray.get(ray.remote(lambda: 1).remote()) == 1
    mine = psutil.Process().children(recursive=True)
    assert sum("gcs_server" in process.name() for process in mine) == 1
assert not [p for p in psutil.Process().children(recursive=True) if p.status() != "zombie"]
"""


@pytest.mark.slow
def test_late(launch, tmp_path):
    """A process of Ray that takes too long to start ends Ray, and Ray is started once more."""
    tmp_path.joinpath("usercustomize").mkdir()
    tmp_path.joinpath("usercustomize", "sitecustomize.py").write_text(LATE)
    env = {"PYTHONPATH": str(tmp_path / "usercustomize"), "LATE": str(tmp_path / "late")}
    done = launch("-c", STARTED, env=env, cwd=tmp_path, timeout=600)
    assert tmp_path.joinpath("late").exists()
    assert "Ray did not start, attempt 1 of" in done.stderr
    wait_for(lambda: not processes(tmp_path), GONE)


@pytest.fixture
def s3(tmp_path):
    """An S3 on this machine with the bucket "photos": its client, and the environment for it."""
    server = pytest.importorskip("moto.server", reason="needs moto[server], of the extra dev")
    boto3 = pytest.importorskip("boto3", reason="needs boto3, which moto brings")
    del server
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with (tmp_path / "s3.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:

            def answers():
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    return True
                return False

            wait_for(answers)
            client = boto3.client(
                "s3",
                endpoint_url=environment["AWS_ENDPOINT_URL"],
                region_name="us-east-1",
                aws_access_key_id="test",
                aws_secret_access_key="test",  # noqa: S106 - of a server of our own
            )
            client.create_bucket(Bucket="photos")
            yield client, {**os.environ, **environment}
        finally:
            process.terminate()
            process.wait(30)


@pytest.mark.slow
def test_s3(s3, photos, batch):
    """From a bucket to a bucket; a second run finds everything done; a glob in a bucket."""
    client, environment = s3
    folder = photos(3)
    folder.joinpath("1", "broken.jpg").write_bytes(BROKEN)
    for file in folder.rglob("*.jpg"):
        client.upload_file(str(file), "photos", f"in/{file.relative_to(folder)}")
    given = {"source": "s3://photos/in", "dest": "s3://photos/out", "env": environment}
    done = batch(**given, check=False)
    assert done.returncode == 1, done.stderr
    assert "3 cut-outs made, 1 failed" in done.stdout
    keys = {e["Key"] for e in client.list_objects_v2(Bucket="photos", Prefix="out/")["Contents"]}
    assert {key for key in keys if not key.endswith("/")} == {
        *("out/0/0000.png", "out/1/0001.png", "out/0/0002.png", "out/cutouts.parquet")
    }
    done = batch(**{**given, "dest": "s3://photos"}, check=False)
    assert (done.returncode, "holds the pictures themselves" in done.stderr) == (2, True)
    done = batch(**{**given, "source": "s3://photos/in/*/0*.jpg"})
    assert "3 pictures, 3 of them done already." in done.stdout
