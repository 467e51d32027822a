"""From a data set to weights: `train`, `average`, and `compose`, which renders composites.

Imports :mod:`..data`, and of :mod:`..evaluation` the metrics.
"""
