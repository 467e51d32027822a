"""Means with their uncertainty: percentile bootstrap over pictures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
#: A mean with the ends of its 95 % interval: keys "mean", "low", "high". Of fewer than two
#: values there is no interval: "low" and "high" are None.
Estimate = dict[str, "float | None"]

RESAMPLES = 2000
_CONFIDENCE = 0.95
_SEED = 0


def estimate(values: Values, resamples: int = RESAMPLES) -> Estimate:
    """The mean of ``values`` and its 95 % interval, always the same for the same values.

    Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentiles).

    Shape:
        - values: (N,), N ≥ 1, one per picture.
    """
    mean = float(values.mean())
    if values.size < 2:
        return {"mean": mean, "low": None, "high": None}
    from scipy import stats

    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, 4_000_000 // values.size),  # at most 32 MB at a time
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return {"mean": mean, "low": float(found.low), "high": float(found.high)}


def compare(before: Values, after: Values, resamples: int = RESAMPLES) -> dict[str, Estimate]:
    """Both means and the mean of the paired difference after - before, with intervals.

    Pictures are drawn with both of their values, so that their different difficulty does not widen
    the interval of the difference.

    Shape:
        - before, after: (N,), the same pictures in the same order.
    """
    return {
        "before": estimate(before, resamples),
        "after": estimate(after, resamples),
        "difference": estimate(after - before, resamples),
    }
