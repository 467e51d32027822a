"""Many pictures, on all cores or a cluster: the pipeline as a step of Ray Data (extra ``ray``).

``python -m u2net_human_plugin batch SOURCE DEST`` is the command; :func:`cut_out` is the same
work as one step of a pipeline of one's own::

    import ray
    from u2net_human_plugin.batch import cut_out

    photos = ray.data.read_images("s3://bucket/photos", include_paths=True)
    cut_out(photos).select_columns(["path", "cutout", "people"]).write_parquet("s3://bucket/out")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from u2net_human_plugin.errors import OptionError

from .actor import CutOut, Recipe
from .cluster import import_ray, places, start

if TYPE_CHECKING:
    from ray.data import Dataset

__all__ = ["CutOut", "Recipe", "cut_out"]


def cut_out(
    dataset: Dataset,
    recipe: Recipe | None = None,
    *,
    actors: int | None = None,
    gpus_per_actor: float = 0,
    batch_size: int = 8,
) -> Dataset:
    """The dataset with a cut-out beside each picture. Lazy, as everything in Ray Data.

    Args:
        dataset: rows with a column "bytes", the content of a picture's file
            (``ray.data.read_binary_files``), or "image", uint8 (H,W), (H,W,3) or (H,W,4)
            (``ray.data.read_images``). Only of "bytes" the EXIF orientation is known and
            applied.
        recipe: what is made of them; None is a PNG cut-out with the options that the
            environment asks for.
        actors: at most so many processes, each with one loaded network; None is one for each
            core of the cluster, or as many as its GPUs hold. Ray starts them as there is work
            and room: the steps before, such as reading, need cores of their own.
        gpus_per_actor: a share of a GPU, such as 0.25; 0 runs on the CPU, each process in
            one thread.
        batch_size: pictures that an actor takes at a time.

    Returns:
        The rows with the columns that :class:`CutOut` adds. A picture that cannot be read
        has an ``error`` and no ``cutout``; the others go on. Rows keep their order if
        ``ray.data.DataContext.get_current().execution_options.preserve_order`` is set.

    Raises:
        OptionError: a number that makes no sense.
        MissingExtraError: Ray is not installed.
        PluginError: Ray does not start.
    """
    ray = import_ray()
    for name, value in {"actors": actors, "batch_size": batch_size}.items():
        if value is not None and value < 1:
            raise OptionError(f"{name}={value}: expected a whole number from 1.")
    if gpus_per_actor < 0:
        raise OptionError(f"gpus_per_actor={gpus_per_actor}: expected a number from 0.")
    recipe = recipe if recipe is not None else Recipe.from_environment()
    if actors is None and not ray.is_initialized():
        start(ray)
    most = actors or places(ray.cluster_resources(), gpus_per_actor)
    return dataset.map_batches(
        CutOut,
        fn_constructor_args=[recipe, gpus_per_actor > 0],
        batch_size=batch_size,
        batch_format="numpy",
        # At least one: a pool that took all cores would leave none to the steps before, for ever.
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most),
        num_gpus=gpus_per_actor or None,
        num_cpus=None if gpus_per_actor else 1,
    )
