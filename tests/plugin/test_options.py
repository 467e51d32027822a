"""Options: what is accepted, what is refused and how, and what passes by unseen."""

from __future__ import annotations

import inspect
import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from u2net_human_plugin import options
from u2net_human_plugin.errors import OptionError
from u2net_human_plugin.options import Options


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings that are logged, in a process that has not logged any."""
    monkeypatch.setattr(options, "_warned", set())
    messages: list[str] = []
    monkeypatch.setattr(caplog.handler, "emit", lambda record: messages.append(record.getMessage()))
    return messages


def test_options_are_immutable_and_hashable() -> None:
    """One Options object can be shared between threads and used as a dictionary key."""
    shared = Options(crop="self")
    with pytest.raises(FrozenInstanceError):
        shared.crop = "off"  # type: ignore[misc]
    assert len({shared, Options(crop="self"), Options(crop="yolo")}) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("crop", "Yolo", id="another case"),
        pytest.param("crop", "yolov8n.pt", id="a file name"),
        pytest.param("crop", None, id="null for an option without it"),
        pytest.param("crop", ["yolo"], id="a list"),
        pytest.param("persons", "every", id="no such choice"),
        pytest.param("persons", 2, id="a number for a word"),
        pytest.param("max_persons", 0, id="nobody"),
        pytest.param("max_persons", 1.5, id="a broken number of people"),
        pytest.param("max_persons", True, id="a truth value for a number"),
        pytest.param("min_person", -0.1, id="less than nothing"),
        pytest.param("min_person", 1, id="more than a picture holds"),
        pytest.param("min_person", float("nan"), id="not a number"),
        pytest.param("persons", False, id="a truth value for a word"),
        pytest.param("crop", True, id="on, for an option that has no such value"),
        pytest.param("flip", 1, id="a number for a switch"),
    ],
)
def test_a_wrong_value_is_an_error_that_lists_the_valid_ones(name: str, value: object) -> None:
    """The message shows option and value, and every option with the values it accepts."""
    with pytest.raises(OptionError, match=name) as caught:
        Options(**{name: value})  # type: ignore[arg-type]
    for expected in ('"off", "self" or "yolo"', '"all", "largest" or "center"', "min_person: a"):
        assert expected in str(caught.value)


def test_a_long_wrong_value_is_cut_in_the_message() -> None:
    """A remote caller's megabyte does not end up in the log."""
    with pytest.raises(OptionError) as caught:
        Options().updated({"crop": "x" * 1_000_000})
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["refine", "flip"])
def test_truth_values_are_on_and_off(name: str) -> None:
    """As JSON and Python write them, for one picture, in code, and as text in a variable."""
    for value, word in {True: "on", False: "off"}.items():
        assert getattr(Options(**{name: value}), name) == word  # type: ignore[arg-type]
        for given in (value, str(value), str(value).lower()):
            assert getattr(Options().updated({name: given}), name) == word
        environment = {f"U2NET_HUMAN_{name.upper()}": str(value).lower()}
        assert getattr(Options.from_environment(environment), name) == word
    assert hash(Options(flip=True)) == hash(Options(flip="on"))  # type: ignore[arg-type]
    assert Options(crop=False) == Options(crop="off")  # type: ignore[arg-type]


def test_updated_picks_our_options_out_of_a_hosts_keywords() -> None:
    """Ours are taken, numbers may be strings, None means not given, the rest passes."""
    keywords = {
        "crop": "self",
        "persons": None,
        "max_persons": "2",
        "min_person": 0.05,
        "alpha_matting": True,
        "bgcolor": None,
        "input": "crop",
    }
    start = Options(persons="center", refine="on")
    assert start.updated(keywords) == Options("self", "center", 2, 0.05, "on")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("crops", "crop"),
        ("corp", "crop"),
        ("crp", "crop"),
        ("Crop", "crop"),
        ("U2NET_HUMAN_CROP", "crop"),
        ("person", "persons"),
        ("max-persons", "max_persons"),
        ("maxpersons", "max_persons"),
        ("max_person", "max_persons"),
        ("min_persons", "min_person"),
        ("refined", "refine"),
    ],
)
def test_a_plain_misspelling_is_an_error(key: str, meant: str) -> None:
    """A key that is plainly one of ours names the option that was meant."""
    with pytest.raises(OptionError, match=f'"{key}"; did you mean "{meant}"'):
        Options().updated({key: "self"})


@pytest.mark.parametrize(
    "key",
    [
        "model_path",
        "providers",
        "device",
        "resize",
        "mode",
        "jit",
        "fast",
        "url",
        "ckpt",
        "threshold",
        "session_options",
        "drop",
        "cropping_strategy",
        "prop",
        "sam_prompt",
        "vitmatte_model",
        "person_detector",
        "decontaminate_method",
        "refine_foreground",
        "max_size",
        "min_size",
        "max_workers",
        "weights",
        "yolo_weights",
        "u2net_human",
        "home",
        "size",
        "input",
        "output",
        "data",
        "callback",
        "format",
        "port",
        "host",
        "log_level",
        "threads",
    ],
)
def test_keys_of_a_host_pass_unseen(key: str) -> None:
    """Options of hosts, and plausible ones of later versions, are none of our business."""
    assert Options().updated({key: object()}) == Options()


def test_every_keyword_that_rembg_passes_today_goes_through() -> None:
    """The command hands all of its own parameters to new_session and predict."""
    command = pytest.importorskip("rembg.commands.i_command").i_command
    bg = pytest.importorskip("rembg.bg")
    names = {parameter.name for parameter in command.params}
    names |= set(inspect.signature(bg.remove).parameters)
    assert {"alpha_matting", "only_mask", "post_process_mask"} <= names
    assert Options().updated(dict.fromkeys(names, "yolo")) == Options()


def test_from_environment() -> None:
    """Each option has a variable; unset and empty ones leave the default."""
    environment = {
        "U2NET_HUMAN_CROP": "self",
        "U2NET_HUMAN_PERSONS": "largest",
        "U2NET_HUMAN_MAX_PERSONS": " 3 ",
        "U2NET_HUMAN_MIN_PERSON": "0.01",
        "U2NET_HUMAN_REFINE": "",
        "U2NET_HUMAN_WEIGHTS": "not one of these",
    }
    assert Options.from_environment(environment) == Options("self", "largest", 3, 0.01)
    assert Options.from_environment({}) == Options()


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that take no options, such as `rembg s`, read the environment."""
    monkeypatch.setenv("U2NET_HUMAN_MAX_PERSONS", "7")
    assert Options.from_environment().max_persons == 7


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("U2NET_HUMAN_CROP", "on"),
        ("U2NET_HUMAN_PERSONS", "2"),
        ("U2NET_HUMAN_MAX_PERSONS", "two"),
        ("U2NET_HUMAN_MIN_PERSON", "5%"),
        ("U2NET_HUMAN_REFINE", "yes"),
        ("U2NET_HUMAN_CROP", "true"),
    ],
)
def test_a_wrong_environment_variable_is_named(variable: str, value: str) -> None:
    """The error names the variable, its value and the valid ones."""
    with pytest.raises(OptionError, match=f"{variable}='{value}': expected"):
        Options.from_environment({variable: value})


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("U2NET_HUMAN_PERSON", "U2NET_HUMAN_PERSONS"),
        ("U2NET_HUMAN_CROPS", "U2NET_HUMAN_CROP"),
        ("u2net_human_crop", "U2NET_HUMAN_CROP"),
        ("U2NET_HUMAN_WEIGHT", "U2NET_HUMAN_WEIGHTS"),
        ("U2NET_HUMAN_YOLO", "U2NET_HUMAN_YOLO_WEIGHTS"),
        ("U2NET_HUMAN_" + "X" * 100_000, "U2NET_HUMAN_"),
    ],
)
def test_an_unknown_variable_is_logged_with_the_nearest_name(
    variable: str, meant: str, warned: list[str]
) -> None:
    """Once in a process, however many sessions are made; the value is not repeated."""
    for _ in range(3):
        assert Options.from_environment({variable: "secret"}) == Options()
    (message,) = warned
    assert f"{variable[:60]} is no setting; did you mean {meant}" in message
    assert "secret" not in message


def test_variables_that_mean_something_or_hold_nothing_are_not_logged(warned: list[str]) -> None:
    """All that other modules read, empty ones, and those of others."""
    ours = ("PLUGIN", "WEIGHTS", "YOLO_WEIGHTS", "CROP", "FLIP", "SOMETHING")
    environment = {f"U2NET_HUMAN_{name}": "" for name in ours}
    environment |= {"U2NET_HUMAN_WEIGHTS": "a.onnx", "U2NET_HUMAN_PLUGIN": "off", "U2NET_HOME": "/"}
    Options.from_environment(environment)
    assert warned == []


def test_every_variable_that_is_read_somewhere_is_known() -> None:
    """The names that the package's code mentions; a new one must be known to options.py."""
    sources = Path(options.__file__).parent.rglob("*.py")
    code = "\n".join(path.read_text("utf-8") for path in sources)
    names = set(re.findall(r"U2NET_HUMAN_[A-Z_]*[A-Z]", code))
    assert {"U2NET_HUMAN_WEIGHTS", "U2NET_HUMAN_YOLO_WEIGHTS", "U2NET_HUMAN_PLUGIN"} <= names
    assert options.unknown_variables(dict.fromkeys(names, "x")) == []


def test_unknown_keys_are_logged_once_and_not_for_ever(warned: list[str]) -> None:
    """Not ours and not the host's: a warning each; a stranger's millions end at some point."""
    for _ in range(2):
        options.warn_of_unknown({"crop": 1, "alpha_matting": 1, "blur": 1}, {"alpha_matting"})
    (message,) = warned
    assert "'blur' is no option, and was ignored. The options: crop, persons, " in message
    options.warn_of_unknown((f"{number}\n{'x' * 10**6}" for number in range(1000)), ())
    assert len(warned) == len(options._warned) == 20
    assert all(len(message) < 700 and "\n" not in message for message in warned)


@pytest.mark.parametrize(
    ("chosen", "chooses"),
    [
        pytest.param(Options(), False, id="default"),
        pytest.param(Options(crop="self"), False, id="cropping alone keeps everyone"),
        pytest.param(Options(persons="all"), True, id="persons asked for"),
        pytest.param(Options(max_persons=1), True, id="a number of people"),
        pytest.param(Options(min_person=0.1), True, id="a minimum size"),
    ],
)
def test_chooses_persons(chosen: Options, chooses: bool) -> None:
    """Only options about people make people vanish from a mask."""
    assert chosen.chooses_persons is chooses
