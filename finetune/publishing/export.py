"""python -m finetune export: make a checkpoint the weights that both hosts use.

    python -m finetune export runs/first/u2net_finetuned.pth --manifest data

writes ``u2net_human_ft.onnx`` and ``u2net_human_ft.json`` (checksum, training record, measured
scores) into rembg's model directory, where `rembg -m u2net_human_ft` and
transparent-background look first.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

import u2net_human_plugin
from u2net_human_plugin import weights
from u2net_human_plugin.errors import PluginError, WeightsError

from ..evaluation.evaluate import make_report
from ..evaluation.measure import Settings, choose_rows, measure
from ..files import file_sha256, write_text
from ..predictors import load_predictor
from . import weight_set
from .provenance import PROVENANCE, flat
from .regressions import objections
from .settings_file import export_settings

NAME = weights.MODEL_NAME


class WorseError(PluginError):
    """The new weights are worse than those that they would replace."""


def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="u2net_finetuned.pth, or any U²-Net or ensemble")
    ],
    out: Annotated[
        Path | None, typer.Option(help="folder to write to  [default: rembg's model directory]")
    ] = None,
    bundle: Annotated[bool, typer.Option(help="replace the weights inside this checkout")] = False,
    manifest: Annotated[
        str | None, typer.Option(help="pictures on which the new weights must not be worse")
    ] = None,
    split: Annotated[str, typer.Option(help="which of them; val: what train held back")] = "val",
    replaces: Annotated[
        str | None,
        typer.Option(help="model to compare with  [default: what is there, or the bundled one]"),
    ] = None,
    decoder: Annotated[
        str | None, typer.Option(help="half or full  [default: full for full, else half]")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="terms of the weights, to be stored in the file")
    ] = None,
    force: Annotated[bool, typer.Option(help="write them even if worse or not compared")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="compare on so many pictures")] = None,
    workers: Annotated[int, typer.Option(min=1, help="pictures in work at a time")] = 1,
) -> None:
    """Write ONNX and provenance, unless the weights are worse than those they replace."""
    folder = _destination(out, bundle)
    if manifest is None and not force:
        raise typer.BadParameter(
            "name pictures to compare on with --manifest, or write unseen weights with --force."
        )
    with tempfile.TemporaryDirectory(prefix="finetune-export-") as staging:
        record = build(checkpoint, Path(staging), decoder, licence)
        files = {"onnx": Path(staging) / f"{NAME}.onnx"}
        if manifest is not None:
            # Consistency does not count for the decision, and costs ten passes a picture.
            settings = Settings(manifest, split, consistency=0, limit=limit, workers=workers)
            before = replaces or _present(folder)
            record["gate"] = compare(files["onnx"], before, settings, force)
        record = portable(record)
        if bundle:  # users need only the checksum; the provenance stays in the repository
            story = Path(u2net_human_plugin.__file__).parents[1] / PROVENANCE
            records = flat({**record, "sha256": _checksums(files)})
            write_text(story, json.dumps(records, indent=1, ensure_ascii=False) + "\n")
            record = {"name": NAME}
        description = weight_set.install(folder, NAME, files, record)
    print(f"{description.with_suffix('.onnx')}\n{description}")


def build(
    checkpoint: Path, folder: Path, decoder: str | None = None, licence: str | None = None
) -> dict[str, Any]:
    """Write the .onnx of ``checkpoint`` into ``folder``; return its record.

    The file holds the settings that are stored with the checkpoint, else the defaults.

    Raises:
        WeightsError: the checkpoint is no U²-Net, or ``decoder`` does not exist.
        RuntimeError: onnxruntime's answer differs from torch's.
    """
    from u2net_human_plugin.checkpoint import load_network
    from u2net_human_plugin.u2net import Ensemble

    from ..training import checkpoints
    from .onnx_file import write_onnx

    model = load_network(checkpoint)
    if isinstance(model, Ensemble):
        variant, chosen = "ensemble", decoder or "half"
    else:
        variant, chosen = model.variant, decoder or ("full" if model.variant == "full" else "half")
        if chosen not in ("half", "full"):
            raise WeightsError(f"--decoder {chosen}: expected half or full.")
        model.decoder = "full" if chosen == "full" else "half"
    if not all(bool(values.isfinite().all()) for values in model.state_dict().values()):
        raise WeightsError(
            f"{checkpoint}: holds weights that are not finite; the training that wrote it "
            "diverged. Export an earlier checkpoint, or train again at a lower --lr."
        )
    chosen_settings = export_settings(checkpoint, model.size, licence)
    difference = write_onnx(model, folder / f"{NAME}.onnx", chosen_settings)
    return {
        "name": NAME,
        "variant": variant,
        "decoder": chosen,
        "settings": asdict(chosen_settings),
        "made_from": checkpoint.name,
        "exported": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "version": u2net_human_plugin.__version__,
        "command": ["python", "-m", "finetune", *sys.argv[1:]],
        "difference_from_torch": difference,
        "training": checkpoints.record_of(checkpoint),
        "gate": None,
    }


def compare(onnx: Path, before: str, settings: Settings, force: bool) -> dict[str, Any]:
    """Measure new weights against ``before`` and return the report, with any objections.

    Pictures whose mask, by the manifest's flags, lacks somebody are left out: on them, a model
    that marks everybody would be wrong.

    Raises:
        WorseError: they are worse (:func:`.regressions.objections`) and not forced, or
            a picture could not be measured.
    """
    models = {"before": load_predictor(before), "after": load_predictor(str(onnx))}
    rows = choose_rows(settings)
    judges = [row for row in rows if not row.has_unlabelled_person]
    report = make_report(measure(judges, models, settings), models, settings)
    found = objections(report)
    found += [f"{failure['image']}: {failure['error']}" for failure in report["failures"]]
    if found and not force:
        raise WorseError(
            f"the new weights are worse than {before}; nothing was written (--force writes them "
            "anyway):\n" + "\n".join(f"  {reason}" for reason in found)
        )
    return {**report, "objections": found, "forced": bool(found)}


def _checksums(files: Mapping[str, Path]) -> dict[str, str]:
    return {suffix: file_sha256(path) for suffix, path in files.items()}


def portable(value: Any) -> Any:
    """``value`` with every absolute path in it cut to its last part.

    The record is published with the weights, the paths of this machine are not.
    """
    if isinstance(value, dict):
        return {key: portable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [portable(entry) for entry in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value


def _destination(out: Path | None, bundle: bool) -> Path:
    if not bundle:
        return out or weights.model_directory_files()[0].parent
    package = Path(u2net_human_plugin.__file__).parent
    if out is not None or not (package.parent / "pyproject.toml").is_file():
        raise typer.BadParameter(
            "--bundle is for a checkout of the repository, and without --out; "
            f"the package in use is {package}."
        )
    return package / "weights"


def _present(folder: Path) -> str:
    """The weights that would be replaced, as a model to load."""
    present = weight_set.read(folder, NAME).get("onnx")
    path = present[0] if present else folder / f"{NAME}.onnx"
    return str(path) if path.is_file() else "bundled"
