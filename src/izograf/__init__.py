"""Izograf: train, compare, compress and serve conditional image generators."""

__version__ = "0.1.0"
