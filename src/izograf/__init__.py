"""Izograf: train, compare, compress and serve conditional image generators."""

from izograf.pictures import generate_image_from_text

__all__ = ["generate_image_from_text"]
__version__ = "0.1.0"
