"""From a data set to weights: `train`, `interpolate`, and `compose`, which renders composites.

Imports :mod:`..data`, and of :mod:`..evaluation` the metrics.
"""
