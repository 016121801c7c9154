"""Copy the tables of results/*.md to the pages that show them: python recipes/wide/pages.py"""

from pathlib import Path

from wavedistill.evaluation.pages import ANCHORS, ReportTables
from wavedistill.text import fill_block

ROOT = Path(__file__).parents[2]
VOICES = {"speech-24k": "", "speech-22k": "-22k"}  # student -> what the names of its reports end with
METRICS = ["system", "PESQ-wb", "LSD 8-12 kHz dB", "F0 cents", "V/UV %", "DistillMOS", "x real time", "n"]


def main(root: Path = ROOT) -> None:
    for student, ending in VOICES.items():
        heard = [student, *ANCHORS[:3]]
        for name in ("report", "unheard"):
            tables = ReportTables(Path(__file__).parent / "results" / f"{name}{ending}.md")
            about = f"{tables.title[0].upper()}{tables.title[1:]}."
            quality = tables.rows("Quality", heard, METRICS)
            excerpts = tables.rows("Quality on the teachers' excerpts", [f"{student}-teacher", *heard], METRICS)
            nats = [tables.section("Nats per sample")] if name == "report" else []
            bits = tables.section("Held-out bits per 16-bit sample")
            fill_block(root / f"checkpoints/{student}/README.md", name, "\n\n".join([about, quality, *nats]))
            fill_block(root / f"checkpoints/{student}-teacher/README.md", name, "\n\n".join([about, excerpts, bits]))
            fill_block(root / "docs" / "results.md", f"wide-{name}{ending}", f"{about}\n\n{quality}")


if __name__ == "__main__":
    main()
