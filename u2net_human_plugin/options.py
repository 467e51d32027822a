"""The options of the pipeline, the same in every host, and where their values come from.

From the strongest to the weakest: a value given for one picture, a value given when the
session was made, an environment variable (``U2NET_HUMAN_CROP`` and so on), the default.

A value may be written as in JSON and Python: true and false for "on" and "off".

No option names a file, a module or a URL: hosts such as rembg's HTTP server hand a remote
caller's values to :meth:`Options.updated`.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import os
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .errors import OptionError

Crop = Literal["off", "self", "yolo"]
Persons = Literal["all", "largest", "center"]
Refine = Literal["on", "off", "matting"]
Switch = Literal["on", "off"]

log = logging.getLogger(__name__)

ENVIRONMENT_PREFIX = "U2NET_HUMAN_"
#: What else of ours is read from the environment, by other modules.
_OTHER_VARIABLES = ("PLUGIN", "WEIGHTS", "YOLO_WEIGHTS")
#: From this similarity (difflib's ratio) on a key is one of ours misspelt: "crops" and
#: "crp" for "crop" have 0.86 and more, "drop" 0.75.
_PLAINLY = 0.85
#: No longer key is a misspelt one: our prefix and the longest option are 22 characters.
_LONGEST = 30

#: Different warnings that one process logs at most.
_WARNINGS = 20
_warned: set[str] = set()
#: What JSON and Python write for a switch.
_SWITCH = {True: "on", False: "off"}

#: What each option accepts, in the words of the error messages.
_ACCEPTED = {
    "crop": '"off", "self" or "yolo"',
    "persons": '"all", "largest" or "center"',
    "max_persons": "a whole number from 1",
    "min_person": "a share of the picture, from 0 up to but not including 1",
    "refine": '"on", "off" or "matting"',
    "flip": '"on" or "off"',
}


@dataclass(frozen=True)
class Options:
    """How people are located and which of them are kept. Immutable and hashable.

    Raises:
        OptionError: a value that does not exist; the message lists those that do.
    """

    #: Where the network looks: "off", once at the whole picture; "self", if nobody in it is
    #: large, at its parts as well and closer at the small figures found; "yolo", likewise, and
    #: always closer at those that YOLOv8 found (needs the extra ``yolo``).
    crop: Crop = "self"
    #: Which people stay in the mask; None, everything the network finds. With any
    #: other value a picture in which no person is found gets an empty mask. "largest" is by
    #: the box's area, "center" by the distance of its centre from the picture's in units of
    #: the box's own size: somebody large a little aside wins against somebody small behind.
    persons: Persons | None = None
    #: Keep at most this many people, the largest (or most central) first; None, no limit.
    max_persons: int | None = None
    #: Drop people whose box covers less than this share of the picture's area.
    min_person: float = 0.0
    #: "on" sharpens the mask's edge with the photo's own at full resolution; "matting" then
    #: estimates alpha along it by closed-form matting, in seconds. Where the true alpha of hair
    #: was known, that was on average no better than "on" (``python -m finetune mattes``).
    refine: Refine = "on"
    #: "on" also looks at the mirrored picture and takes the mean of both answers, in twice
    #: the time.
    flip: Switch = "off"

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if isinstance(value, bool) and check(_SWITCH[value]):
                value = _SWITCH[value]
                object.__setattr__(self, name, value)  # frozen, but not yet anybody's
            optional = name in ("persons", "max_persons")
            if not (check(value) or (optional and value is None)):
                raise _wrong(name, value)

    @property
    def chooses_persons(self) -> bool:
        """Whether some people may have to vanish from the mask."""
        return self.persons is not None or self.max_persons is not None or self.min_person > 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Options:
        """The options that the environment variables ask for; unset or empty: the default.

        A variable with our prefix that means nothing is logged as a warning, once.

        Raises:
            OptionError: a variable has a value that does not exist; the message names it.
        """
        environment = os.environ if environment is None else environment
        for name in unknown_variables(environment):
            warn_once(name)
        values = {}
        for name in _ACCEPTED:
            variable = ENVIRONMENT_PREFIX + name.upper()
            if text := environment.get(variable, "").strip():
                values[name] = _from_text(name, text, variable)
        return cls(**values)

    def updated(self, keywords: Mapping[str, Any]) -> Options:
        """These options with every value that a host's ``keywords`` give for one of them.

        Keys that are none of ours pass unseen, because hosts hand over their own options
        in the same keywords. None stands for "not given". Numbers may be strings.

        Raises:
            OptionError: one of our options has a value that does not exist, or a key is
                plainly one of ours misspelt.
        """
        values = {}
        for key, value in keywords.items():
            if key in _ACCEPTED:
                if value is not None:
                    values[key] = _from_text(key, value, key) if isinstance(value, str) else value
            elif meant := _misspelt(key):
                raise OptionError(f'There is no option "{key}"; did you mean "{meant}"? {_list()}')
        return dataclasses.replace(self, **values) if values else self


def unknown_variables(environment: Mapping[str, str] | None = None) -> list[str]:
    """One sentence for each variable with our prefix that nothing of ours reads."""
    environment = os.environ if environment is None else environment
    known = [*map(str.upper, _ACCEPTED), *_OTHER_VARIABLES]
    sentences = []
    for variable in sorted(environment):
        # Windows gives the names of variables in capitals, however they were written.
        if variable.upper().startswith(ENVIRONMENT_PREFIX) and environment[variable].strip():
            name = variable[len(ENVIRONMENT_PREFIX) :]
            if variable != ENVIRONMENT_PREFIX + name or name not in known:
                nearest = difflib.get_close_matches(name[:_LONGEST].upper(), known, 1, cutoff=0)[0]
                meant = ENVIRONMENT_PREFIX + nearest
                sentences.append(f"{variable:.60} is no setting; did you mean {meant}?")
    return sentences


def warn_of_unknown(keys: Iterable[str], other: Container[str]) -> None:
    """Log, once a key, that neither an option of ours nor ``other`` explains one of ``keys``."""
    for key in keys:
        if key not in _ACCEPTED and key not in other:
            names = ", ".join(_ACCEPTED)
            warn_once(f"{key!r:.60} is no option, and was ignored. The options: {names}.")


def warn_once(sentence: str) -> None:
    """Log a warning that this process has not logged yet.

    After :data:`_WARNINGS` different ones there are no more: strangers can write to a server.
    """
    if sentence not in _warned and len(_warned) < _WARNINGS:
        _warned.add(sentence)
        log.warning("u2net-human-plugin: %s", sentence)


def refuse_unknown(names: Iterable[str], owner: str, other: Iterable[str] = ()) -> None:
    """Raise OptionError if one of ``names`` is neither an option of ours nor in ``other``.

    The message has the nearest name of both, if one is near.
    """
    known = [*_ACCEPTED, *other]
    for name in sorted(set(names).difference(known)):
        nearest = difflib.get_close_matches(name[:_LONGEST], known, 1)
        meant = f'; did you mean "{nearest[0]}"?' if nearest else "."
        also = f" It also takes {', '.join(other)}." if other else ""
        raise OptionError(f'{owner} has no option "{name:.60}"{meant} {_list()}{also}')


def _from_text(name: str, text: str, shown: str) -> Any:
    try:
        if name == "max_persons":
            value: Any = int(text)
        elif name == "min_person":
            value = float(text)
        else:
            value = {"true": True, "false": False}.get(text.lower(), text)
        Options(**{name: value})
    except ValueError:  # OptionError is one, too
        raise _wrong(name, text, shown) from None
    return value


def _misspelt(key: str) -> str | None:
    """The option that ``key`` plainly means, or None.

    Plainly: the same letters in another order or case, with other separators, after
    our prefix, or one letter too many or too few. "drop" is not a misspelt "crop".
    """
    if len(key) > _LONGEST:  # a stranger's key of a megabyte would take half a minute
        return None
    plain = key.lower().removeprefix(ENVIRONMENT_PREFIX.lower()).replace("_", "").replace("-", "")
    names = {name.replace("_", ""): name for name in _ACCEPTED}
    alike = difflib.get_close_matches(plain, names, 1, _PLAINLY)
    alike += [letters for letters in names if sorted(letters) == sorted(plain)]
    return names[alike[0]] if alike else None


def _wrong(name: str, value: object, shown: str | None = None) -> OptionError:
    given = f"{value!r:.60}"
    return OptionError(f"{shown or name}={given}: expected {_ACCEPTED[name]}. {_list()}")


def _list() -> str:
    return f"The options: {'; '.join(f'{name}: {values}' for name, values in _ACCEPTED.items())}."


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_one_of(choices: object) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in get_args(choices)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "crop": _is_one_of(Crop),
    "persons": _is_one_of(Persons),
    "max_persons": lambda value: _is_number(value) and isinstance(value, int) and value >= 1,
    "min_person": lambda value: _is_number(value) and 0 <= value < 1,
    "refine": _is_one_of(Refine),
    "flip": _is_one_of(Switch),
}
