"""Measuring models: `evaluate`, its metrics, intervals and reports. Imports :mod:`..data`."""
