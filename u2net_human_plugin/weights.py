"""Which weights file is used, where it comes from, and whether it is intact.

The first of these is used:

1. a path given in code;
2. the file that the environment variable ``U2NET_HUMAN_WEIGHTS`` names;
3. ``u2net_human_ft.onnx`` in rembg's model directory;
4. the bundled file.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from .errors import WeightsError

MODEL_NAME = "u2net_human_ft"
ENVIRONMENT_VARIABLE = "U2NET_HUMAN_WEIGHTS"
_BUNDLED = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class WeightsFile:
    """A weights file that has been chosen but not read yet."""

    path: Path
    #: Why this file: "given", "environment", "model directory" or "bundled".
    origin: str
    #: The SHA-256, hexadecimal, that the content must have; None for a user's own file.
    sha256: str | None = None

    def read(self) -> bytes:
        """Return the file's content, checked against :attr:`sha256` if that is not None.

        Raises:
            WeightsError: the file is missing, cannot be read, or has another SHA-256; names the
                file and the remedy.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise WeightsError(
                f"{self.path}: cannot be read ({error.strerror}); weights were looked for here "
                f"because of: {self.origin}. {self._remedy()}"
            ) from None
        if self.sha256 is not None:
            found = hashlib.sha256(content).hexdigest()
            if found != self.sha256:
                raise WeightsError(
                    f"{self.path}: damaged: its SHA-256 is {found}, expected {self.sha256}. "
                    f"{self._remedy()}"
                )
        return content

    def _remedy(self) -> str:
        return {
            "environment": f"Correct or unset {ENVIRONMENT_VARIABLE}.",
            "bundled": "Reinstall it: pip install --force-reinstall --no-deps WHEEL_OR_CLONE.",
            "model directory": "Replace or remove the file.",
        }.get(self.origin, "Check the path.")


def find_weights(path: str | os.PathLike[str] | None = None) -> WeightsFile:
    """Choose the weights file in the order of this module's docstring.

    Args:
        path: a file given in code. Only a trusted caller may pass one: host adapters never hand
            on a path from a host's free-form options. None chooses one of the others.

    Returns:
        The file, not read yet. A path that is given or that the environment names is not checked;
        :meth:`WeightsFile.read` raises if there is no such file.
    """
    if path is not None:
        return WeightsFile(_expanded(path), "given")
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        return WeightsFile(_expanded(named), "environment")
    for candidate in model_directory_files():
        if os.path.isfile(candidate):  # noqa: PTH113 - Path.is_file raises in a closed folder
            return WeightsFile(candidate, "model directory")
    return bundled()


def bundled() -> WeightsFile:
    """The file inside this package, with its checksum; onnxruntime and torch both read it.

    The repository's ``model_cards/provenance.json`` says how it was made and what was measured.
    """
    content = json.loads((_BUNDLED / f"{MODEL_NAME}.json").read_text("utf-8"))
    # While an export replaces the bundled files, they have other names for a moment.
    name = content.get("files", {}).get("onnx", f"{MODEL_NAME}.onnx")
    return WeightsFile(_BUNDLED / name, "bundled", content["sha256"]["onnx"])


def model_directory_files() -> list[Path]:
    """Where a user's own weights are looked for: rembg's new model directory, then its old one.

    These are rembg's own rules, without importing rembg: a user of transparent-background gets
    the same weights from the same place, and need not have rembg.
    """
    file = f"{MODEL_NAME}.onnx"
    data_home = os.getenv("XDG_DATA_HOME")
    legacy = os.getenv("U2NET_HOME") or Path(data_home or "~", ".u2net")
    home = (
        os.getenv("U2NET_HOME")
        or os.getenv("REMBG_HOME")
        or (Path(data_home, "rembg") if data_home else "~/.rembg")
    )
    return [
        _expanded(home) / "models" / MODEL_NAME / file,
        _expanded(legacy) / file,
    ]


def _expanded(path: str | os.PathLike[str]) -> Path:
    """``path`` with its leading ~ replaced; unchanged for a user without a home.

    ``Path.expanduser`` would raise; many containers run as such a user.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111
