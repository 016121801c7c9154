"""Copy the tables of results/*.md to the pages that show them: python recipes/wide/pages.py"""

from pathlib import Path

from wavedistill.evaluation.pages import ANCHORS, ReportTables
from wavedistill.text import fill_block

ROOT = Path(__file__).parents[2]
EXCERPTS = "Quality on the teachers' excerpts"
HEARD = ["speech-24k", *ANCHORS[:3]]
METRICS = ["system", "PESQ-wb", "LSD 8-12 kHz dB", "F0 cents", "V/UV %", "DistillMOS", "x real time", "n"]


def main(root: Path = ROOT) -> None:
    for name in ("report", "unheard"):
        tables = ReportTables(Path(__file__).parent / "results" / f"{name}.md")
        about = f"{tables.title[0].upper()}{tables.title[1:]}."
        quality = tables.rows("Quality", HEARD, METRICS)
        student = [about, quality, tables.section("Nats per sample")] if name == "report" else [about, quality]
        excerpts = tables.rows(EXCERPTS, ["speech-24k-teacher", *HEARD], METRICS)
        teacher = [about, excerpts, tables.section("Held-out bits per 16-bit sample")]
        fill_block(root / "checkpoints" / "speech-24k" / "README.md", name, "\n\n".join(student))
        fill_block(root / "checkpoints" / "speech-24k-teacher" / "README.md", name, "\n\n".join(teacher))
        fill_block(root / "docs" / "results.md", f"wide-{name}", f"{about}\n\n{quality}")


if __name__ == "__main__":
    main()
