"""``python -m u2net_human_plugin doctor``: what is installed, what is active, what is wrong.

Each host is imported in a new interpreter, started as the host's own command starts one. That shows
whether the start-up hook really runs. It also protects the doctor from a host that ends its
interpreter at import, as rembg does without onnxruntime.
"""

from __future__ import annotations

import json
import os
import platform
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Literal

from . import __version__, _startup, speed
from .errors import MissingExtraError, OptionError, PluginError, WeightsError
from .options import ENVIRONMENT_PREFIX, Options, unknown_variables
from .settings import Settings, stored_settings
from .weights import find_weights

#: "wrong" makes the exit status 1; "note" does not.
State = Literal["ok", "note", "wrong"]

#: Each host, by the name it is imported under, and the module whose import adds the model.
HOSTS = {"rembg": "rembg.sessions", "transparent_background": "transparent_background.Remover"}
#: Libraries whose versions the report names.
PACKAGES = ("numpy", "pillow", "torch", "ultralytics")
#: Seconds in which a host must be imported.
_SECONDS = 300
#: Marks the line of our answer among all that a host may print.
_ANSWER = "u2net-human-plugin doctor: "

# Runs in the new interpreter. Its arguments are a host, the module to import, and the mark.
_LOOK_INSIDE = """
import json, sys
hooked, problem = "u2net_human_plugin._startup" in sys.modules, None
if hooked:
    hooked = sys.modules["u2net_human_plugin._startup"].installed()
host, module, mark = sys.argv[1:]
try:
    __import__(module)
except BaseException as error:
    problem = f"{type(error).__name__}: {error}"
from u2net_human_plugin.hosts import status
print("\\n" + mark + json.dumps([hooked, problem, status()[host]]))
"""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    state: State
    text: str


def main(as_json: bool) -> int:
    """Print the report, as text or JSON; return the exit status: 1 if anything is wrong, else 0."""
    findings = list(examine())
    wrong = [finding for finding in findings if finding.state == "wrong"]
    if as_json:
        report = {"ok": not wrong, "findings": [asdict(finding) for finding in findings]}
        _say(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        lines = [f"{each.state:>5}  {each.name:<23}{each.text}" for each in findings]
        _say("\n".join([*lines, "", f"{len(wrong)} wrong." if wrong else "Nothing wrong."]))
    return 1 if wrong else 0


def _say(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `doctor | head` has read enough; the exit status stays right
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def examine() -> Iterator[Finding]:
    """All findings, in the order of the report."""
    place = Path(__file__).parent
    yield Finding("u2net-human-plugin", "ok", f"{__version__} in {place}")
    yield Finding("python", "ok", f"{platform.python_version()} ({sys.executable})")
    found = [f"{name} {number}" for name in PACKAGES if (number := _version(name))]
    yield Finding("libraries", "ok", ", ".join(found))
    inside = {host: _look_inside(host) for host in HOSTS if _version(host)}
    yield _hook(inside)
    for host in HOSTS:
        yield _host(host, inside.get(host))
    if not inside:
        text = f"none in this environment ({sys.prefix}); only HumanSegmenter can be used"
        yield Finding("hosts", "note", text)
    yield _options()
    for sentence in unknown_variables():
        yield Finding("options", "wrong", sentence)
    weights = _weights()
    yield weights
    if weights.state == "ok":
        yield _settings()
    yield from _onnxruntime()
    # This comes last, because it imports torch. onnxruntime would then find torch's CUDA libraries
    # here, but not in a host, which imports onnxruntime first.
    yield from _yolo()


@dataclass(frozen=True)
class _Inside:
    """A host, seen from inside an interpreter that has imported it."""

    hooked: bool = False
    problem: str | None = None
    status: str = "unknown"


def _look_inside(host: str) -> _Inside:
    # The host's interpreter gets the flags that the doctor's was started with.
    flags = [flag for flag, on in (("-S", sys.flags.no_site), ("-I", sys.flags.isolated)) if on]
    command = [sys.executable, *flags, "-c", _LOOK_INSIDE, host, HOSTS[host], _ANSWER]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return _Inside(problem=f"importing it takes more than {_SECONDS} s")
    for line in done.stdout.splitlines():
        if line.startswith(_ANSWER):
            return _Inside(*json.loads(line.removeprefix(_ANSWER)))
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return _Inside(problem=f"the interpreter ended with status {done.returncode}: {last}")


def _hook(inside: dict[str, _Inside]) -> Finding:
    name = "start-up hook"
    hooked = _startup.installed() or any(host.hooked for host in inside.values())
    if hooked and not _startup.switched_off():
        return Finding(name, "ok", "active")
    reason = _why_not_hooked()
    return Finding(name, "wrong", f"not active: {reason}")


def _why_not_hooked() -> str:
    if _startup.switched_off():
        return "switched off by the environment variable U2NET_HUMAN_PLUGIN"
    if sys.flags.no_site:
        return "the interpreter was started with -S; call u2net_human_plugin.register()"
    file = f"{__package__}.start" if sys.version_info >= (3, 15) else f"{__package__}.pth"
    folders = {Path(sysconfig.get_path("purelib")), Path(__file__).parent.parent}
    files = [path for folder in sorted(folders) if (path := folder / file).is_file()]
    if not files:
        where = " or ".join(str(folder) for folder in sorted(folders))
        return f"no {file} in {where}; install with pip, or call u2net_human_plugin.register()"
    if getattr(files[0].stat(), "st_flags", 0) & getattr(stat, "UF_HIDDEN", 0):
        return f"{files[0]} is hidden, so Python skips it; run: chflags nohidden '{files[0]}'"
    return f"Python has not run {files[0]}; call u2net_human_plugin.register()"


def _host(host: str, inside: _Inside | None) -> Finding:
    name = host.replace("_", "-")
    if inside is None:
        return Finding(name, "note", "not installed")
    state: State = "ok" if inside.status == "registered" and not inside.problem else "wrong"
    text = f"{_version(host)}, u2net_human_ft: {inside.status}"
    if inside.problem:
        text = f"{_version(host)}, cannot be imported: {' '.join(inside.problem.split())[:200]}"
    return Finding(name, state, text)


def _options() -> Finding:
    """The options that the environment sets for every session."""
    try:
        options = Options.from_environment()
    except OptionError as error:
        return Finding("options", "wrong", str(error))
    defaults = asdict(Options())
    changed = [f"{k}={v}" for k, v in asdict(options).items() if v != defaults[k]]
    text = f"from the environment: {', '.join(changed)}" if changed else "the defaults"
    return Finding("options", "ok", text)


def _yolo() -> Iterator[Finding]:
    """Whether YOLO can be used, if the environment asks for it."""
    try:
        if Options.from_environment().crop != "yolo":
            return
    except OptionError:  # _options reports it
        return
    from .yolo import import_yolo, weights_file

    name = f"{ENVIRONMENT_PREFIX}CROP=yolo"
    try:
        import_yolo()
        file = weights_file()
    except Exception as error:  # noqa: BLE001 - a broken ultralytics or torch fails in any way
        yield Finding(name, "wrong", _in_short(error))
        return
    if file.is_file():
        yield Finding(name, "ok", str(file))
    else:
        yield Finding(name, "note", f"{file} is downloaded when it is first needed")


def _weights() -> Finding:
    from .network import load_onnx

    try:
        file = find_weights()
        stored_settings(file.path, file.read())  # both can be damaged
        with suppress(ImportError):  # _onnxruntime reports a missing or broken onnxruntime
            load_onnx(file)  # a file that can be read need not be weights
    except (PluginError, OSError, ValueError) as error:
        return Finding("weights", "wrong", str(error))
    checked = f"SHA-256 {file.sha256[:12]}… matches" if file.sha256 else "your own, no checksum"
    return Finding("weights", "ok", f"{file.origin}: {file.path} ({checked})")


def _settings() -> Finding:
    """The settings with which the weights are run.

    The file may fix the size; only onnxruntime knows that.
    """
    from .network import load_onnx

    file = find_weights()
    stored = stored_settings(file.path)
    settings = stored or Settings()
    with suppress(ImportError):
        settings = load_onnx(file).settings
    where = "stored with the weights" if stored else "the defaults"
    return Finding("settings", "ok", f"{where}: {settings}")


def _onnxruntime() -> Iterator[Finding]:
    from .network import default_providers, load_onnx

    name = "onnxruntime"
    builds = sorted(
        {
            f"{dist.metadata['Name']} {dist.version}"
            for dist in distributions()
            if (dist.metadata["Name"] or "").lower().startswith("onnxruntime")
        }
    )
    try:
        wanted = default_providers()
        network = load_onnx(find_weights())
    except WeightsError:  # _weights reports it
        yield Finding(name, "note", f"{', '.join(builds)}, not tried without weights")
        return
    except MissingExtraError as error:
        yield Finding(name, "wrong" if _version("rembg") else "note", str(error))
        return
    except Exception as error:  # noqa: BLE001 - a broken onnxruntime fails in any way
        yield Finding(name, "wrong", f"{', '.join(builds)}: {_in_short(error)}")
        return
    active = network.session.get_providers()
    text = f"{', '.join(builds)}, in use: {active[0]}"
    if active[0] != wanted[0]:
        yield Finding(name, "wrong", f"{text}, although this build has {wanted[0]}")
    else:
        yield Finding(name, "ok", text)
    yield Finding("speed", *speed.finding(active[0], wanted[0]))
    if len(builds) > 1:
        yield Finding(
            name,
            "wrong",
            "several builds share one folder and the last installed wins; uninstall all "
            "of them, then install one",
        )


def _in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
