"""What an exact density is good for."""

from wavedistill.applications.compression import compress, decompress

__all__ = ["compress", "decompress"]
