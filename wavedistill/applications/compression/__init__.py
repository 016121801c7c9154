"""Lossless compression: predictors that adapt, a small trained network for the density, and a container."""

from wavedistill.applications.compression.folders import Report, compress, decompress

__all__ = ["Report", "compress", "decompress"]
