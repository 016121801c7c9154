"""Where the repository's folders are."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "wavedistill"
RECIPES = ROOT / "recipes"
HELPERS = Path(__file__).parent
