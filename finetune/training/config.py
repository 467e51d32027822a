"""The options of a training run, each declared once, with type, default, range and help.

The command line (train.py), a run's run.toml (config_file.py) and the arguments in the record of a
checkpoint are made from the fields of :class:`TrainConfig`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

import torch
import typer
from torch import nn
from typer.models import OptionInfo

from u2net_human_plugin.preprocess import SIZE
from u2net_human_plugin.u2net import Decoder, Variant

from .recipe import Recipe, recipe_of

#: Folder of the decoded pictures, in the run's folder unless there is a --cache.
PICTURES = "pictures"
#: A resumed run may differ from its start in these.
FREE = ("out", "validate_every", "save_every", "cache", "device", "full_decoder_steps")
#: Former names of options, which the command line still takes for one release.
FORMER_NAMES = {"rate": "lr", "batch": "batch_size", "iou": "iou_weight", "edge": "edge_weight"}


@dataclass(frozen=True)
class TrainConfig:
    """All that decides what a run computes and, in the last fields, how it is carried out."""

    manifests: Annotated[
        tuple[Path, ...],
        typer.Option("--manifest", help="Training data, as written by prepare; may be repeated."),
    ]
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and logs.")]
    init: Annotated[
        Path | None, typer.Option(help="Starting weights: .pth (official, ours) or official .onnx.")
    ] = None
    variant: Annotated[
        Literal[Variant, "semantic"],
        typer.Option(
            help="U²-Net: full (44.0 M), wide (6.7 M) or lite (1.13 M parameters); wide starts "
            "from lite weights, too. Or semantic (4.1 M), which starts from EfficientNet-Lite1."
        ),
    ] = "lite"
    decoder: Annotated[
        Decoder,
        typer.Option(
            help="half: end at side output d2, 2.2 times faster; full: train everything. "
            "[default: full for full, else half]"
        ),
    ] = None  # type: ignore[assignment]  # until __post_init__
    size: Annotated[
        int, typer.Option(min=32, help="Input side in pixels; the paper crops 288.")
    ] = SIZE
    batch_size: Annotated[
        int, typer.Option(min=1, help="Pictures a step, over all processes; paper: 12.")
    ] = 8
    epochs: Annotated[
        int, typer.Option(min=1, help="How often --epoch-size pictures; paper: 600,000 steps.")
    ] = 50
    epoch_size: Annotated[
        int,
        typer.Option(
            min=0,
            help="Pictures an epoch, of all kinds; 0: one a photo.",
        ),
    ] = 0
    #: A start from good weights wants less than one from nothing.
    lr: Annotated[
        float, typer.Option(min=0, help="Adam's peak learning rate; paper, from nothing: 1e-3.")
    ] = 3e-4
    warmup: Annotated[int, typer.Option(min=0, help="Steps of linear warm-up.")] = 100
    ema: Annotated[
        float, typer.Option(min=0, max=1, help="Decay of the weights' moving average.")
    ] = 0.998
    edge_weight: Annotated[
        float, typer.Option(min=0, help="Extra weight of the loss at contours; paper: 0.")
    ] = 2.0
    iou_weight: Annotated[
        float, typer.Option(min=0, help="Factor of a soft IoU loss beside BCE; paper: 0.")
    ] = 0.0
    l1_weight: Annotated[
        float, typer.Option(min=0, help="Factor of an L1 loss of alpha beside BCE; paper: 0.")
    ] = 0.0
    laplacian_weight: Annotated[
        float,
        typer.Option(
            min=0, help="Factor of a Laplacian pyramid loss of alpha beside BCE; paper: 0."
        ),
    ] = 0.0
    batch_norm: Annotated[
        Literal["frozen", "live"],
        typer.Option(help="frozen (folded; small batches) or live (batches from 16 on)."),
    ] = "frozen"
    freeze_encoder: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the run in which the encoder stays as it is."),
    ] = 0.0
    coarse: Annotated[
        dict[str, float],
        typer.Option(help="SOURCE=PIXELS: masks of this source have steps of about PIXELS."),
    ] = field(default_factory=dict)
    recipe: Annotated[
        Recipe,
        typer.Option(
            help="TOML file: how pictures are drawn, composed and changed, where that differs "
            "from the defaults in training/recipe.py."
        ),
    ] = field(default_factory=Recipe)
    side: Annotated[
        int,
        typer.Option(
            min=0,
            help="Side of the decoded pictures that batches are cut out of; 0: a tenth more than "
            "--size.",
        ),
    ] = 0
    remember: Annotated[
        Path | None,
        typer.Option(help="Weights whose answers a second head keeps giving, against forgetting."),
    ] = None
    remember_weight: Annotated[float, typer.Option(min=0, help="Factor of that head's loss.")] = 0.5
    seed: Annotated[int, typer.Option(min=0, help="Decides every random choice.")] = 0
    full_decoder_steps: Annotated[
        int, typer.Option(min=0, help="Steps that fit the rest after a half-decoder run.")
    ] = 100
    validation_pictures: Annotated[
        int, typer.Option(min=0, help="Per validation set; 0: none.")
    ] = 48
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations.")] = 200
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 50
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder for decoded pictures, which other runs find there. [default: in --out, "
            "until the run is complete]"
        ),
    ] = None
    device: Annotated[
        Literal["auto", "cpu"], typer.Option(help="auto (a GPU if there is one) or cpu.")
    ] = "auto"
    precision: Annotated[
        Literal["fp32", "bf16"],
        typer.Option(
            help="fp32, or bf16: convolutions in bfloat16, twice as fast on CPUs with AVX512-BF16 "
            "or AMX and on GPUs; weights and loss stay in float32."
        ),
    ] = "fp32"

    def __post_init__(self) -> None:
        if self.decoder is None:
            whole: Decoder = "full" if self.variant == "full" else "half"
            object.__setattr__(self, "decoder", whole)  # frozen, but not yet anybody's

    @property
    def stored_side(self) -> int:
        """Side of the decoded pictures in pixels, a multiple of 16."""
        return math.ceil((self.side or 1.1 * self.size) / 16) * 16

    @property
    def pictures(self) -> Path:
        """Folder for decoded pictures."""
        return self.cache or self.out / PICTURES

    @property
    def loss_weights(self) -> dict[str, float]:
        """What :func:`.losses.deep_supervision` is told, by its names."""
        return {
            "edge": self.edge_weight,
            "iou": self.iou_weight,
            "l1": self.l1_weight,
            "laplacian": self.laplacian_weight,
        }

    def laid_out(self, model: nn.Module) -> nn.Module:
        """``model`` with its weights in the memory layout that suits the precision, in place."""
        if self.precision == "bf16":  # the convolutions are half as fast on the usual layout
            return model.to(memory_format=torch.channels_last)
        return model

    def record(self) -> dict[str, Any]:
        """As plain JSON values."""
        plain = {**dataclasses.asdict(self), "manifests": [str(path) for path in self.manifests]}
        record: dict[str, Any] = json.loads(json.dumps(plain, default=str))
        return record

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> TrainConfig:
        """The arguments that :meth:`record` wrote down.

        Raises:
            DataError, KeyError, TypeError: they are not those of this class.
        """
        values = dict(record)
        for key in ("out", "init", "remember", "cache"):
            if values[key] is not None:
                values[key] = Path(values[key])
        values["manifests"] = tuple(map(Path, values["manifests"]))
        values["recipe"] = recipe_of(values["recipe"])
        return cls(**values)


class Option(NamedTuple):
    """A field of :class:`TrainConfig` as an option."""

    #: The field's name.
    name: str
    #: Its type, without the annotation.
    type: Any
    #: None if it is required or follows from others.
    default: Any
    #: Help and range.
    info: OptionInfo

    @property
    def key(self) -> str:
        """Its name in run.toml, and with two dashes before it on the command line."""
        given = self.info.default  # where typer keeps a name of the option's own
        return self.name.replace("_", "-") if given is ... else str(given).removeprefix("--")


def options() -> Iterator[Option]:
    """All options of a run, in the order of the fields."""
    hints = get_type_hints(TrainConfig, include_extras=True)
    for entry in dataclasses.fields(TrainConfig):
        plain, info = get_args(hints[entry.name])
        default = None if entry.default is dataclasses.MISSING else entry.default
        if entry.default_factory is not dataclasses.MISSING:
            default = entry.default_factory()
        yield Option(entry.name, plain, default, info)
