"""What an exact density is good for: recordings compressed without loss, sounds scored,
restored and morphed."""

from wavedistill.applications.compression import compress, decompress
from wavedistill.applications.gap_filling import RestoreConfig
from wavedistill.applications.morphing import MorphConfig, morph
from wavedistill.applications.restoration import restore
from wavedistill.applications.scoring import score

__all__ = ["MorphConfig", "RestoreConfig", "compress", "decompress", "morph", "restore", "score"]
