"""What an exact density is good for: sounds scored and morphed."""

from wavedistill.applications.morphing import MorphConfig, morph
from wavedistill.applications.scoring import score

__all__ = ["MorphConfig", "morph", "score"]
