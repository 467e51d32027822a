"""How good a model is: `evaluate`, its metrics, intervals and reports. Imports :mod:`..data`."""
