"""Which weights file is used, where it comes from, and whether it is intact.

In this order: a path given in code, the file named by ``U2NET_HUMAN_WEIGHTS``,
``u2net_human_ft.onnx`` in rembg's model directory, the bundled file.
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
    #: Hexadecimal SHA-256 the content must have, or None for a user's own file.
    sha256: str | None = None

    def read(self) -> bytes:
        """Return the file's content, checked against :attr:`sha256` if that is known.

        Raises:
            WeightsError: the file is missing, unreadable or damaged.
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
    """Choose the weights file by the order in this module's docstring.

    Only a trusted caller may pass ``path``: host adapters never hand on one that came
    from a host's free-form options.
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
    """The file inside this package, for onnxruntime and torch alike, and its checksum.

    How it was made, and what was measured, is in ``model_cards/provenance.json`` of the
    repository.
    """
    content = json.loads((_BUNDLED / f"{MODEL_NAME}.json").read_text("utf-8"))
    # While an export replaces the set, its files lie under other names for a moment.
    name = content.get("files", {}).get("onnx", f"{MODEL_NAME}.onnx")
    return WeightsFile(_BUNDLED / name, "bundled", content["sha256"]["onnx"])


def model_directory_files() -> list[Path]:
    """Where a user's own weights are looked for, in rembg's model directories, old and new.

    The directories follow rembg's own rules without importing it, because
    transparent-background users get the same weights from the same place.
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
    """``path`` with a leading ~ replaced, where it is known what home that is.

    ``Path.expanduser`` raises for users without one, as in many containers.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111
