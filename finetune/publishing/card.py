"""python -m finetune card: model card and README's tables, from provenance and reports.

    python -m finetune evaluate --before minmax:u2netp.onnx --after bundled … --out report
    cp report/report.json model_cards/results/photos.json
    npm pack material-kit@2.0.4 && tar xzf material-kit-2.0.4.tgz
    python -m finetune card --before minmax:u2netp.onnx --photos package

Reports on the option `crop` (--before 'bundled?crop=off' --after 'bundled?crop=self') belong into
``model_cards/results/crop``. All numbers in the documents come from this command. ``--before``
redraws the pictures, too; ``--photos`` is the unpacked package with the front picture's photos.
``--check`` tests whether all are up to date.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from u2net_human_plugin import weights
from u2net_human_plugin.errors import DataError
from u2net_human_plugin.onnx_reader import read_graph
from u2net_human_plugin.settings import Settings, settings_of, stored_settings

from ..evaluation.report import METRICS
from ..evaluation.tables import crop_table, slice_table, tables
from ..files import write_text
from .example_pictures import draw, drawn, front_photos, outdated_sheets
from .provenance import Records, read_provenance, training_runs
from .readme import (
    against_rembg,
    fill,
    is_against_rembg,
    named_sources,
    photos_of,
    render_front,
    render_results,
)

CARD = Path("model_cards/u2net_human_ft.md")
_RESULTS = Path("results")
_CROP_RESULTS = _RESULTS / "crop"
#: Of `python -m finetune benchmark plugin`, not of an evaluation.
_BENCHMARK = "benchmark.json"
#: A slice of fewer pictures is too small for a statement.
_ENOUGH = 5


def card(
    folder: Annotated[Path, typer.Option(help="root of the checkout")] = Path(),
    before: Annotated[
        str | None, typer.Option(help="redraw the pictures, with this model beside ours")
    ] = None,
    photos: Annotated[
        Path | None,
        typer.Option(help="redraw those of real photos, too: the unpacked package they come with"),
    ] = None,
    check: Annotated[
        bool, typer.Option(help="write nothing; fail if anything is outdated")
    ] = False,
) -> None:
    """Write the model card and README's tables from provenance and reports; draw pictures."""
    if photos and not before:
        raise DataError("--photos: name the model that is drawn beside ours, too, with --before.")
    if before and not check:
        draw(folder / CARD.parent, before, photos)
    checksum = weights.bundled().sha256
    assert checksum is not None
    provenance = read_provenance(folder, checksum)
    reports = read_reports(folder, checksum)
    crops = read_reports(folder, checksum, _CROP_RESULTS)
    readme = (folder / "README.md").read_text("utf-8")
    readme = fill(readme, "front", render_front(reports, crops, _benchmark(folder)))
    readme = fill(readme, "results", render_results(provenance, reports))
    readme = fill(readme, "crop", crop_table(crops))
    texts = {
        folder / CARD: render_card(folder, provenance, reports, crops),
        folder / "README.md": readme,
    }
    outdated = [
        path
        for path, text in texts.items()
        if not path.is_file() or path.read_text("utf-8") != text
    ]
    if check:
        stale = outdated_sheets(folder / CARD.parent)
        for path in outdated:
            typer.echo(f"{path} is outdated: run `python -m finetune card`.", err=True)
        for name in stale:
            how = "with --before" + (" and --photos" if name != "examples.jpg" else "")
            typer.echo(
                f"{name} shows other weights: run `python -m finetune card` {how}.", err=True
            )
        if outdated or stale:
            raise typer.Exit(1)
        return
    for path in outdated:
        write_text(path, texts[path])
        print(path)


def read_reports(folder: Path, onnx_sha256: str, results: Path = _RESULTS) -> list[dict[str, Any]]:
    """The reports in ``model_cards/results``, by file name, each with a "title" and "file".

    Raises:
        DataError: a report judges other weights than the bundled ones, or is none.
    """
    reports = []
    for path in sorted((folder / CARD.parent / results).glob("*.json")):
        if path.name == _BENCHMARK:
            continue
        try:
            report = json.loads(path.read_text("utf-8"))
            judged = report["models"]["after"]["sha256"]
            foreign = results == _CROP_RESULTS and report["models"]["after"]["kind"] != "bundled"
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: not a report.json of `python -m finetune evaluate` ({error!r})."
            ) from None
        if judged != onnx_sha256 and not foreign:
            raise DataError(
                f"{path}: judges weights with SHA-256 {judged}, but the bundled ones have "
                f"{onnx_sha256}; run `python -m finetune evaluate --after bundled` again."
            )
        # The part of the name after a full stop distinguishes reports on the same pictures.
        title = path.stem.partition(".")[0].replace("_", " ").capitalize()
        file = (results / path.name).as_posix()
        reports.append({**report, "title": title, "file": file})
    return reports


def render_card(
    folder: Path,
    provenance: Records,
    reports: Sequence[Mapping[str, Any]],
    crops: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The whole model card: YAML front matter and Markdown."""
    from huggingface_hub import ModelCard, ModelCardData

    data = ModelCardData(
        language="en",
        license="other",
        license_name="apache-2.0-trained-on-data-for-academic-exchange",
        license_link="LICENSE",
        library_name="onnx",
        pipeline_tag="image-segmentation",
        tags=["background-removal", "portrait-matting", "u2net", "rembg", "transparent-background"],
        model_name=weights.MODEL_NAME,
        eval_results=list(_eval_results(against_rembg(reports))) or None,
    )
    runs = training_runs(provenance)
    parts = folder / CARD.parent
    log = next((name for name in ("training_log.md",) if (parts / name).is_file()), None)
    content = ModelCard.from_template(
        data,
        template_path=str(parts / "u2net_human_ft.md.jinja"),
        provenance=provenance[weights.MODEL_NAME],
        averaged=sum("share" in record for record in provenance.values()),
        settings=_bundled_settings(),
        runs=runs,
        reports=[
            {
                **report,
                "tables": tables(named_sources(report)),
                "photos": list(named_sources(report)["slices"].get("source", ())),
                "command": evaluation_command(report),
                "against_rembg": is_against_rembg(report),
            }
            for report in reports
        ],
        weakest=weakest(against_rembg(reports)),
        crop=crop_table(crops) if crops else None,
        crop_commands=[evaluation_command(report) for report in crops],
        front=front_photos(parts),
        drawn=drawn(parts),
        log=log,
        sources=list(_sources(parts, runs)),
    ).content
    return str(content).rstrip("\n") + "\n"


def _benchmark(folder: Path) -> dict[str, Any] | None:
    """The report of `benchmark plugin`, if there is one."""
    path = folder / CARD.parent / "results" / _BENCHMARK
    report: dict[str, Any] | None = json.loads(path.read_text("utf-8")) if path.is_file() else None
    return report


def _bundled_settings() -> Settings:
    file = weights.bundled()
    content = file.read()
    return settings_of(stored_settings(file.path, content), read_graph(content).input_shape[2])


def weakest(reports: Sequence[Mapping[str, Any]], count: int = 5) -> str:
    """A table of the slices with the lowest IoU; slices of fewer than five pictures left out."""
    found = [
        (scores["iou"]["after"]["mean"], f"{report['title']}, {title}: {photos_of(name)}", scores)
        for report in reports
        for title, groups in report["slices"].items()
        for name, scores in groups.items()
        if scores["pictures"] >= _ENOUGH and name != "unknown"
    ]
    lowest = sorted(found, key=lambda entry: entry[:2])[:count]
    if not lowest:
        return "Not measured yet."
    return slice_table("slice", {name: scores for _, name, scores in lowest})


def evaluation_command(report: Mapping[str, Any]) -> str:
    """The command line that wrote ``report``."""
    settings = report["settings"]
    words = ["python", "-m", "finetune", "evaluate", "--manifest", settings["manifest"]]
    words += ["--split", settings["split"]]
    for source in settings["sources"]:
        words += ["--source", source]
    for name in ("limit", "crop"):
        if settings[name] is not None:
            words += [f"--{name}", str(settings[name])]
    for model in ("before", "after"):
        words += [f"--{model}", report["models"][model]["spec"]]
    words += ["--consistency", str(settings["consistency"])]
    return shlex.join(words)


def _eval_results(reports: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    from huggingface_hub import EvalResult

    for report in reports:
        for source, scores in report["slices"].get("source", {}).items():
            for metric, (title, _) in METRICS.items():
                if metric in scores and metric != "missed":
                    yield EvalResult(
                        task_type="image-segmentation",
                        dataset_type=source,
                        dataset_name=f"{report['title']}: {source}",
                        dataset_split=report["settings"]["split"],
                        metric_type=metric,
                        metric_name=title,
                        metric_value=round(scores[metric]["after"]["mean"], 4),
                    )


def _sources(folder: Path, runs: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The sources of the training pictures; terms as known, or as the manifest states them."""
    known = json.loads((folder / "sources.json").read_text("utf-8"))
    used: dict[str, Any] = {}
    for run in runs:
        for name, entry in run["data"]["sources"].items():
            pictures = max(entry["pictures"], used.get(name, entry)["pictures"])
            used[name] = {**entry, "pictures": pictures}
    for name, entry in used.items():
        unknown = {
            "title": name,
            "what": "no description",
            "from": "from a user's manifest",
            "terms": entry["licence"] or "none stated",
        }
        yield {**unknown, **known.get(name, {}), "pictures": entry["pictures"]}
