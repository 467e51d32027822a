"""The start of a run: its pictures, its weights, and the state in which it was stopped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accelerate import Accelerator
from torch import nn

from u2net_human_plugin.checkpoint import load_checkpoint
from u2net_human_plugin.errors import DataError
from u2net_human_plugin.semantic import SemanticNet
from u2net_human_plugin.u2net import (
    FULL_RESOLUTION_PARTS,
    SaliencyNetwork,
    U2Net,
    fold_batch_norm,
)

from ..data.manifest import Row
from . import checkpoints
from .bank import Bank, decode
from .checkpoints import LAST
from .config import TrainConfig
from .forgetting import HEAD_LR_FACTOR, Remembering, with_answers
from .progress import progress
from .run import no_run, resumable
from .training_rows import TrainingRow
from .widen import widened

#: The learning rate of a semantic network's encoder, which knows ImageNet, as a share of --lr.
ENCODER_LR_FACTOR = 0.25


def saved_state(
    config: TrainConfig, data: dict[str, Any], wanted: bool, finish: bool
) -> dict[str, Any] | None:
    """The state to resume from, or None for a new run."""
    last = config.out / LAST
    if wanted and last.is_file():
        return resumable(last, config, data)
    if finish:
        raise no_run(config.out)
    if last.is_file():
        raise DataError(
            f"{last}: a run is there already; add --resume to go on with it, or choose "
            "another --out."
        )
    return None


def initial_network(config: TrainConfig) -> SaliencyNetwork:
    """The network before its first step.

    Raises:
        DataError: the weights are of another variant, or --remember is not for this one.
        WeightsError: they are not those of such a network.
    """
    network: SaliencyNetwork
    if config.init is None:
        network = (
            SemanticNet() if config.variant == "semantic" else U2Net(config.variant, config.decoder)
        )
    else:
        network = load_checkpoint(config.init, config.decoder, classifiers=True)
        if isinstance(network, U2Net) and (network.variant, config.variant) == ("lite", "wide"):
            network = widened(network, "wide", config.decoder)
        if network.variant != config.variant:
            raise DataError(
                f"{config.init}: holds the {network.variant} network but --variant is "
                f"{config.variant}; name the variant that the weights belong to."
            )
    if config.batch_norm == "frozen":
        fold_batch_norm(network)
    if isinstance(network, U2Net) and config.decoder == "half":
        for name in FULL_RESOLUTION_PARTS:
            network.get_submodule(name).requires_grad_(False)
    return network


def with_memory(network: SaliencyNetwork, config: TrainConfig) -> nn.Module:
    """The network, with the second head that --remember asks for.

    Raises:
        DataError: it has no place for one.
    """
    if config.remember is None:
        return network
    if not isinstance(network, U2Net):
        raise DataError(
            f"--remember is for U²-Net, not for --variant {config.variant}; leave it out."
        )
    return Remembering(network)


def has_batch_norm(network: SaliencyNetwork) -> bool:
    """Whether it has batch normalisation that is not folded."""
    return any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Parameter groups; "factor" is the ratio of their learning rate to --lr."""
    network = model.network if isinstance(model, Remembering) else model
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = []
    if isinstance(network, SemanticNet):
        encoder = list(network.encoder())
        groups.append({"params": encoder, "factor": ENCODER_LR_FACTOR})
        known = set(map(id, encoder))
        trained = [parameter for parameter in trained if id(parameter) not in known]
    groups.append({"params": trained, "factor": 1.0, "lr": config.lr})
    if isinstance(model, Remembering):
        groups.append({"params": list(model.head.parameters()), "factor": HEAD_LR_FACTOR})
    return groups


def bank_of(rows: Sequence[TrainingRow], config: TrainConfig, accelerator: Accelerator) -> Bank:
    """The pictures, decoded by one process while the others wait."""
    main = accelerator.is_main_process
    with progress("pictures", len(rows), shown=main) as advance:
        bank = decode(
            rows, config.stored_side, config.pictures, progress=lambda done: advance(done, "")
        )
    if config.remember is None:
        return bank
    network = fold_batch_norm(load_checkpoint(config.remember, "half"))
    size = network.size or config.size
    with progress("answers to remember", len(rows), shown=main) as advance:
        return with_answers(
            *(bank, network, config.remember, size, accelerator.device),
            progress=lambda done: advance(done, ""),
        )


def describe(training: list[Row], held: list[Row]) -> dict[str, Any]:
    """The description of the run's data, for its record."""
    sources: dict[str, dict[str, Any]] = {}
    for row in training:
        entry = sources.setdefault(row.source, {"licences": set(), "pictures": 0})
        entry["licences"].add(row.licence)
        entry["pictures"] += 1
    for entry in sources.values():
        entry["licence"] = "; ".join(sorted(entry.pop("licences")))
    return {
        "sha256": checkpoints.data_hash(training, held),
        "training": len(training),
        "held_back": len(held),
        "sources": sources,
    }
