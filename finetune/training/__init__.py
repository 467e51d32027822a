"""From a data set to weights: `train`, `average`, `ensemble`, and `compose` for composites.

Imports :mod:`..data` and the metrics of :mod:`..evaluation`.
"""
