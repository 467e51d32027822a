"""Options: what is accepted, what is refused and how, and what passes by unseen."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError

import pytest

from u2net_human_plugin.errors import OptionError
from u2net_human_plugin.options import Options


def test_options_are_immutable_and_hashable() -> None:
    """One Options object can be shared between threads and used as a dictionary key."""
    options = Options(crop="self")
    with pytest.raises(FrozenInstanceError):
        options.crop = "off"  # type: ignore[misc]
    assert len({options, Options(crop="self"), Options(crop="yolo")}) == 2


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
        pytest.param("refine", False, id="a truth value for a word"),
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
        ("U2NET_HUMAN_REFINE", "true"),
    ],
)
def test_a_wrong_environment_variable_is_named(variable: str, value: str) -> None:
    """The error names the variable, its value and the valid ones."""
    with pytest.raises(OptionError, match=f"{variable}='{value}': expected"):
        Options.from_environment({variable: value})


@pytest.mark.parametrize(
    ("options", "chooses"),
    [
        pytest.param(Options(), False, id="default"),
        pytest.param(Options(crop="self"), False, id="cropping alone keeps everyone"),
        pytest.param(Options(persons="all"), True, id="persons asked for"),
        pytest.param(Options(max_persons=1), True, id="a number of people"),
        pytest.param(Options(min_person=0.1), True, id="a minimum size"),
    ],
)
def test_chooses_persons(options: Options, chooses: bool) -> None:
    """Only options about people make people vanish from a mask."""
    assert options.chooses_persons is chooses
