"""What an exact density is good for: recordings compressed without loss, sounds scored and morphed."""

from wavedistill.applications.compression import compress, decompress
from wavedistill.applications.morphing import MorphConfig, morph
from wavedistill.applications.scoring import score

__all__ = ["MorphConfig", "compress", "decompress", "morph", "score"]
