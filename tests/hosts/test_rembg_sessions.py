"""The model through rembg's functions: new_session, remove, and what may be given to them.

All snippets run in one child interpreter that has the installed wheel and rembg.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.process

Ask = Callable[..., Any]

#: Executes one snippet per line of JSON and answers with its variable ``answer``.
CHILD = """
import io, json, os, sys, warnings
out, sys.stdout = sys.stdout, sys.stderr
import numpy as np
import rembg
from PIL import Image
from u2net_human_plugin import HumanSegmenter
from u2net_human_plugin.errors import OptionError, WeightsError

opened = []
sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
session = rembg.new_session("u2net_human_ft")
astronaut = Image.open(sys.argv[1])
astronaut.load()

def refusal(function, *args, **keywords):
    try:
        function(*args, **keywords)
    except (OptionError, WeightsError) as error:
        return f"{type(error).__name__}: {error}"

for line in sys.stdin:
    names = {**globals(), "answer": None}
    try:
        exec(json.loads(line), names)
        answer = {"answer": names["answer"]}
    except Exception:
        import traceback
        answer = {"failure": traceback.format_exc()}
    print(json.dumps(answer), file=out, flush=True)
"""


@pytest.fixture(scope="module")
def ask(
    installed_python: Path,
    clean_environment: dict[str, str],
    astronaut: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Ask]:
    """``ask("answer = 1 + x", x=1) == 2``, computed by the child, which knows what CHILD names."""
    folder = tmp_path_factory.mktemp("sessions")
    astronaut.resize((160, 160)).save(folder / "astronaut.png")
    child = subprocess.Popen(
        [installed_python, "-c", CHILD, folder / "astronaut.png"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment,
        cwd=folder,
    )
    assert child.stdin
    assert child.stdout

    def run(code: str, **values: Any) -> Any:
        assert child.stdin
        assert child.stdout
        given = "".join(f"{name} = {value!r}\n" for name, value in values.items())
        print(json.dumps(given + code), file=child.stdin, flush=True)
        answer = json.loads(child.stdout.readline() or '{"failure": "the child has died"}')
        if "failure" in answer:
            pytest.fail(answer["failure"])
        return answer["answer"]

    yield run
    child.stdin.close()
    assert child.wait(timeout=60) == 0


def test_a_session_is_one_of_rembgs_own(ask: Ask) -> None:
    """It has what others use of rembg's sessions: base class, names, inner_session."""
    assert ask("""
from rembg.sessions.base import BaseSession
base, mine = vars(BaseSession), type(session)
answer = [isinstance(session, BaseSession), session.model_name, mine.name(),
          type(session.inner_session).__name__, session.inner_session.get_inputs()[0].name != ""]
if hasattr(mine, "is_local"):
    assert (mine.is_local(), mine.requires_credentials(), mine.has_usage_cost()) == (True, 0, 0)
""") == [True, "u2net_human_ft", "u2net_human_ft", "InferenceSession", True]


def test_the_mask_is_that_of_the_pipeline(ask: Ask) -> None:
    """One mask, "L", of the picture's size, equal to HumanSegmenter's; and it finds someone."""
    assert ask("""
masks = session.predict(astronaut)
mask = rembg.remove(astronaut, session=session, only_mask=True)
assert mask.tobytes() == masks[0].tobytes() == HumanSegmenter().mask(astronaut).tobytes()
answer = [len(masks), mask.mode, mask.size, bool(0.3 < np.asarray(mask).mean() / 255 < 0.8)]
""") == [1, "L", [160, 160], True]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_every_mode_of_pillow(ask: Ask, mode: str) -> None:
    """A cut-out of the right size, with the mask as its alpha; P with transparency included."""
    assert ask(
        """
picture = astronaut.convert("RGB").convert("P" if mode == "PA" else mode).convert(mode)
if mode == "P":
    picture.info["transparency"] = 0
before = picture.tobytes()
mask = HumanSegmenter().mask(picture)
cutout = rembg.remove(picture, session=session)
assert picture.tobytes() == before, "the caller's picture was changed"
opaque = np.asarray(picture) != 0 if mode == "P" else np.ones((160, 160), bool)
difference = np.abs(np.asarray(cutout)[..., 3].astype(int) - np.asarray(mask))
answer = [cutout.mode, cutout.size, mask.size, bool(difference[opaque].max() <= 1)]
""",
        mode=mode,
    ) == ["RGBA", [160, 160], [160, 160], True]


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_greys(ask: Ask, mode: str) -> None:
    """16 and 32 bits give nearly the mask of the same picture in 8 bits.

    rembg's own cut-out of such a picture is rembg's affair; the mask is ours.
    """
    assert ask(
        """
grey = np.asarray(astronaut.convert("L"))
deep = {"I;16": grey.astype(np.uint16) * 257, "I": grey.astype(np.int32) * 257,
        "F": grey.astype(np.float32) / 255}[mode]
picture = Image.fromarray(deep)
mask = rembg.remove(picture, session=session, only_mask=True)
wanted = session.predict(Image.fromarray(grey))[0]
difference = np.abs(np.asarray(mask, float) - np.asarray(wanted, float))
answer = [picture.mode, mask.mode, bool(difference.mean() < 1)]
""",
        mode=mode,
    ) == [mode, "L", True]


@pytest.mark.parametrize(
    "kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "16-bit PNG", "CMYK JPEG", "array", "grey array"]
)
def test_bytes_and_arrays(ask: Ask, kind: str) -> None:
    """Encoded bytes give PNG bytes, an array gives an array; both with the mask as alpha."""
    assert ask(
        """
stream, format = io.BytesIO(), kind.split()[-1]
if "array" in kind:
    array = np.asarray(astronaut if kind == "array" else astronaut.convert("L"))
    given = Image.fromarray(array)
    cutout = rembg.remove(array, session=session)
    assert isinstance(cutout, np.ndarray)
    mask = rembg.remove(array, session=session, only_mask=True)
else:
    picture = astronaut.convert("CMYK") if kind == "CMYK JPEG" else astronaut
    if kind == "16-bit PNG":
        picture = Image.fromarray(np.asarray(astronaut.convert("L")).astype(np.uint16) * 257)
    picture.save(stream, format)
    data = stream.getvalue()
    given = Image.open(io.BytesIO(data))
    mask = np.asarray(Image.open(io.BytesIO(rembg.remove(data, session=session, only_mask=True))))
    if kind != "16-bit PNG":
        cutout = np.asarray(Image.open(io.BytesIO(rembg.remove(data, session=session))))
assert np.array_equal(mask, HumanSegmenter().mask(given))
if kind != "16-bit PNG":
    assert cutout.shape == (160, 160, 4), cutout.shape
    visible = cutout[..., 3] > 0
    assert 0.2 < visible.mean() < 0.9
answer = bool(0.3 < mask.mean() / 255 < 0.8)
""",
        kind=kind,
    )


def test_exif_orientation_is_rembgs_and_applied_once(ask: Ask) -> None:
    """A picture stored on its side comes out upright, and so does its mask."""
    assert ask("""
wide = astronaut.resize((160, 100))
stream = io.BytesIO()
exif = Image.Exif()
exif[0x0112] = 6  # to be shown turned by 90 degrees
wide.transpose(Image.Transpose.ROTATE_90).save(stream, "PNG", exif=exif)
mask = Image.open(io.BytesIO(rembg.remove(stream.getvalue(), session=session, only_mask=True)))
answer = [mask.size, mask.tobytes() == session.predict(wide)[0].tobytes()]
""") == [[160, 100], True]


def test_rembgs_own_options(ask: Ask) -> None:
    """Each does to our mask what it does to any."""
    assert (
        ask("""
small = astronaut.resize((96, 96))
def remove(**options):
    return rembg.remove(small.copy(), session=session, **options)
mask = np.asarray(remove(only_mask=True))
processed = np.asarray(remove(only_mask=True, post_process_mask=True))
assert set(np.unique(processed)) == {0, 255}
plain, put = remove(), remove(putalpha=True)
assert np.array_equal(np.asarray(put)[..., 3], mask)
assert np.array_equal(np.asarray(put)[..., :3], np.asarray(small))
green = np.asarray(remove(bgcolor=(0, 255, 0, 255)))
assert (green[mask == 0] == (0, 255, 0, 255)).all()
matted = remove(alpha_matting=True, alpha_matting_erode_size=2)
unmixed = remove(decontaminate=True)
answer = [(image.mode, image.size) for image in (plain, matted, unmixed)]
""")
        == [["RGBA", [96, 96]]] * 3
    )


@pytest.mark.parametrize("color", ["black", "white"])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_tiny_pictures(ask: Ask, size: tuple[int, int], color: str) -> None:
    """No NaN, no division by zero, and an alpha channel of the right size."""
    assert ask(
        "answer = rembg.remove(Image.new('RGB', size, color), session=session).size",
        size=size,
        color=color,
    ) == list(size)


def test_our_options_come_with_the_session_or_with_one_picture(ask: Ask) -> None:
    """Those of the picture win; rembg's keywords, present and future, pass."""
    assert ask("""
chosen = rembg.new_session("u2net_human_ft", persons="largest", crop="self", tomorrow=True)
answer = [chosen._segmenter.options.persons, chosen._segmenter.options.crop]
chosen.predict(astronaut, persons="center", alpha_matting=True, tomorrow=[1])
assert chosen._segmenter.options.persons == "largest"
""") == ["largest", "self"]


@pytest.mark.parametrize(
    ("option", "lists"),
    [
        ({"crop": "yolov8"}, '"off", "self" or "yolo"'),
        ({"persons": 3}, '"all", "largest" or "center"'),
        ({"max_person": 1}, 'did you mean "max_persons"'),
        ({"croop": "off"}, 'did you mean "crop"'),
        ({"min_person": "NaN"}, "min_person"),
    ],
)
def test_a_wrong_option_is_an_error(ask: Ask, option: dict[str, Any], lists: str) -> None:
    """In new_session and in remove, with the valid values."""
    for call in ("rembg.new_session, 'u2net_human_ft'", "rembg.remove, astronaut, session=session"):
        said = ask(f"answer = refusal({call}, **option)", option=option)
        assert said.startswith("OptionError: ")
        assert lists in said


def test_an_option_that_rembg_has_too_is_rembgs(ask: Ask) -> None:
    """A later rembg's own `flip`, whose command would hand flip=False to every session."""
    assert ask("""
real, made = rembg.bg.remove, []
for remove in (real, lambda data, flip=False: None):
    rembg.bg.remove = remove
    made.append(rembg.new_session("u2net_human_ft", flip=True)._segmenter.options.flip)
rembg.bg.remove = real
answer = made
""") == ["on", "off"]


def test_errors_where_a_web_server_is_loaded(ask: Ask, tmp_path: Path) -> None:
    """The same errors are also Starlette's and click's, and can be sent to another process.

    A wrong option is the caller's mistake. What the environment asks for and what the machine
    lacks is the server's own fault, and the names of its files are for its log alone.
    """
    pytest.importorskip("starlette")
    pytest.importorskip("click")
    missing = str(tmp_path / "missing.onnx")
    code = """
import logging, pickle, click, starlette.exceptions
from u2net_human_plugin.errors import MissingExtraError
logged = []
logging.getLogger("u2net_human_plugin.options").addFilter(
    lambda record: logged.append(record.getMessage()))
def raised(expected, variables=(), **keywords):
    os.environ.update(variables)
    try:
        rembg.new_session("u2net_human_ft", **keywords)
    except expected as error:
        copy = pickle.loads(pickle.dumps(error))
        for each in (error, copy):
            assert isinstance(each, (starlette.exceptions.HTTPException, click.ClickException))
            assert str(each) == each.format_message() == error.args[0]
        assert type(copy) is type(error)
        return [type(error).__name__, error.status_code, str(error), error.detail, copy.detail]
    finally:
        for name in dict(variables):
            del os.environ[name]
answer = [
    raised(OptionError, crop="cut"),
    raised(OptionError, {"U2NET_HUMAN_CROP": "cut"}),
    raised(WeightsError, {"U2NET_HUMAN_WEIGHTS": missing}),
]
present, sys.modules["ultralytics"] = sys.modules.get("ultralytics"), None
answer.append(raised(MissingExtraError, crop="yolo"))
answer.append(logged)
del sys.modules["ultralytics"]
if present:
    sys.modules["ultralytics"] = present
for name in [name for name in sys.modules if name.startswith("starlette")]:
    del sys.modules[name]
"""
    *answers, logged = ask(code, missing=missing)
    assert [answer[:2] for answer in answers] == [
        ["RembgOptionError", 400],
        ["RembgVariableError", 500],
        ["RembgWeightsError", 500],
        ["RembgMissingExtraError", 500],
    ]
    option, variable, weights, extra = answers
    assert option[2].startswith("crop='cut': expected")
    assert variable[2].startswith("U2NET_HUMAN_CROP='cut': expected")
    assert extra[2].startswith("ultralytics is not installed")
    for _, _, sentence, *details in (option, variable, extra):
        assert details == [sentence] * 2
    assert weights[2].startswith(f"{missing}: cannot be read")
    assert (
        weights[3:]
        == ["u2net_human_ft is not set up rightly on this server; its log says what is wrong."] * 2
    )
    assert [message.count(missing) for message in logged] == [1]


@pytest.mark.parametrize("keyword", ["model_path", "weights", "detector", "network", "ckpt"])
def test_no_keyword_chooses_a_file(ask: Ask, keyword: str, tmp_path: Path) -> None:
    """It is refused, with the way that is meant for it, and the file is never opened."""
    file = str(tmp_path / "trap.onnx")
    Path(file).write_bytes(b"not a network")
    for call in ("rembg.new_session, 'u2net_human_ft'", "rembg.remove, astronaut, session=session"):
        said = ask(f"answer = refusal({call}, **option)", option={keyword: file})
        assert said.startswith(f"OptionError: {keyword} cannot be given as a keyword")
        assert "U2NET_HUMAN_WEIGHTS" in said
    assert ask("answer = [name for name in opened if 'trap' in name]") == []


def test_nothing_is_done_with_an_unknown_keyword(ask: Ask) -> None:
    """Whatever it sounds like, no file of that name is opened."""
    names = ["yolo", "yolo_weights", "model", "path", "file", "config", "url", "sam_model", "onnx"]
    option = {name: f"trap-{name}" for name in names}
    ask("rembg.new_session('u2net_human_ft', **option).predict(astronaut, **option)", option=option)
    assert ask("answer = [name for name in opened if 'trap' in name]") == []


def test_all_sessions_share_one_network(ask: Ask) -> None:
    """A thousand sessions with different extras, as a server makes them, cost next to nothing."""
    assert ask("""
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
if sys.platform != "linux":
    resident = lambda: 0
keep = [rembg.new_session("u2net_human_ft", note="warm-up")]
before = resident()
keep += [rembg.new_session("u2net_human_ft", note=str(number) * 9) for number in range(1000)]
answer = [(resident() - before) / 1e6 < 5, len({id(item.inner_session) for item in keep})]
""") == [True, 1]


@pytest.mark.parametrize(
    "providers",
    [
        pytest.param(None, id="null"),
        pytest.param(["CPUExecutionProvider"], id="named"),
        pytest.param(["CPUExecutionProvider"] * 50, id="many times"),
        pytest.param([], id="empty"),
        pytest.param(
            [("CPUExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})],
            id="with settings, from code",
        ),
    ],
)
def test_providers_are_honoured(ask: Ask, providers: Any) -> None:
    """As a list of names, or of names with settings; without a warning where they exist."""
    assert ask(
        """
with warnings.catch_warnings():
    warnings.simplefilter("error")
    made = rembg.new_session("u2net_human_ft", providers=providers)
made.predict(astronaut)
answer = made.inner_session.get_providers()
""",
        providers=providers,
    ) == ["CPUExecutionProvider"]


@pytest.mark.parametrize(
    "providers",
    [
        pytest.param("CUDAExecutionProvider", id="not a list"),
        pytest.param(["CUDA"], id="no such provider"),
        pytest.param([5], id="a number"),
        pytest.param([["CPUExecutionProvider", {"device_id": 0}]], id="settings from JSON"),
        pytest.param([{"name": "CPUExecutionProvider"}], id="a dictionary"),
    ],
)
def test_wrong_providers_are_an_error(ask: Ask, providers: Any) -> None:
    """The message lists the providers that there are; older servers give them to remove()."""
    for call in ("rembg.new_session, 'u2net_human_ft'", "rembg.remove, astronaut, session=session"):
        said = ask(f"answer = refusal({call}, providers=providers)", providers=providers)
        assert said.startswith("OptionError: providers: ")
        assert "CPUExecutionProvider" in said


def test_an_accelerator_that_is_not_there(ask: Ask) -> None:
    """A RuntimeWarning says so, and the CPU does the work."""
    names = ask("import onnxruntime; answer = onnxruntime.get_available_providers()")
    if "CUDAExecutionProvider" in names:
        pytest.skip("needs a machine without CUDA")
    assert ask("""
wanted = ["CUDAExecutionProvider", "CPUExecutionProvider"]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    made = rembg.new_session("u2net_human_ft", providers=wanted)
assert made.predict(astronaut)[0].tobytes() == session.predict(astronaut)[0].tobytes()
answer = [(item.category.__name__, str(item.message)[:78]) for item in caught]
""") == [
        [
            "RuntimeWarning",
            "CUDAExecutionProvider was requested, but u2net_human_ft runs on the CPU. Most ",
        ]
    ]


def test_session_options_are_honoured(ask: Ask) -> None:
    """Another number of threads makes another network; something else than options an error."""
    assert ask("""
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
Session = type(session)
one, same = (Session("u2net_human_ft", options) for _ in range(2))
assert one.inner_session is same.inner_session is not session.inner_session
answer = [one.inner_session.get_session_options().intra_op_num_threads,
          refusal(Session, "u2net_human_ft", {"intra_op_num_threads": 1})[:24]]
""") == [1, "OptionError: sess_opts={"]


def test_eight_threads_share_one_session(ask: Ask) -> None:
    """Their masks are, bit for bit, those of sequential use."""
    assert ask("""
from concurrent.futures import ThreadPoolExecutor
pictures = [astronaut.rotate(angle) for angle in range(0, 360, 40)]
wanted = [session.predict(picture)[0].tobytes() for picture in pictures]
with ThreadPoolExecutor(8) as pool:
    got = pool.map(lambda picture: session.predict(picture)[0].tobytes(), pictures)
answer = list(got) == wanted
""")


def test_a_users_own_weights(ask: Ask, tmp_path: Path) -> None:
    """The model directory, then the environment variable, replace the bundled file."""
    home = tmp_path / "models" / "u2net_human_ft" / "u2net_human_ft.onnx"
    home.parent.mkdir(parents=True)
    damaged = tmp_path / "damaged.onnx"
    assert ask(
        """
import shutil
bundled = type(session).download_models()
shutil.copy(bundled, home)
with open(bundled, "rb") as source, open(damaged, "wb") as target:
    target.write(source.read(100_000))
try:
    os.environ["U2NET_HOME"] = os.path.dirname(os.path.dirname(os.path.dirname(home)))
    answer = [type(session).download_models() == home]
    mine = rembg.new_session("u2net_human_ft")
    answer += [mine.inner_session is not session.inner_session]
    os.environ["U2NET_HUMAN_WEIGHTS"] = damaged
    said = refusal(rembg.new_session, "u2net_human_ft")
    answer += [damaged in said, said.split(":")[0]]
finally:
    os.environ.pop("U2NET_HOME", None)
    os.environ.pop("U2NET_HUMAN_WEIGHTS", None)
""",
        home=str(home),
        damaged=str(damaged),
    ) == [True, True, True, "WeightsError"]
