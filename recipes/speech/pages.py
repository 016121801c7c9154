"""Copy the tables of results/report.md to the pages that show them: python recipes/speech/pages.py"""

from pathlib import Path

from wavedistill.evaluation.pages import ANCHORS, ReportTables
from wavedistill.text import fill_block

ROOT = Path(__file__).parents[2]
BITS, NATS = "Held-out bits per 16-bit sample", "Nats per sample"
METRICS = ["system", "PESQ-wb", "DistillMOS", "F0 cents", "V/UV %", "x real time"]


def main(root: Path = ROOT) -> None:
    tables = ReportTables(Path(__file__).parent / "results" / "report.md")
    docs, cards = root / "docs" / "results.md", root / "checkpoints"
    about = f"{tables.title[0].upper()}{tables.title[1:]}."
    fill_block(root / "README.md", "results", tables.rows("Quality", ["speech-student", *ANCHORS[:3]], METRICS))
    parts = [f"### {title}\n\n{tables.section(title)}" for title in ("Quality", BITS, NATS)]
    fill_block(docs, "results", "\n\n".join([about, *parts, "### Notes", tables.notes]))
    fill_block(docs, "teacher", tables.differences("speech-student − speech-teacher"))
    fill_block(docs, "speakers", tables.rows("Quality by speaker", ["original", "speech-student"]))
    for name, others in (("student", NATS), ("flow", BITS), ("teacher", "Quality on the teachers' excerpts")):
        first = tables.section(BITS) if name == "teacher" else tables.rows("Quality", [f"speech-{name}", *ANCHORS])
        card = cards / f"speech-{name}" / "README.md"
        fill_block(card, "results", "\n\n".join([about, first, tables.section(others)]))


if __name__ == "__main__":
    main()
