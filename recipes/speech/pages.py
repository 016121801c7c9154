"""Copy the tables of results/report.md to README.md and docs/results.md: python recipes/speech/pages.py"""

from pathlib import Path

from wavedistill.text import fill_block

ROOT = Path(__file__).parents[2]
REPORT = Path(__file__).parent / "results" / "report.md"
SYSTEMS = ("original", "speech-student", "WORLD", "Griffin-Lim")
METRICS = ("system", "PESQ-wb", "DistillMOS", "F0 cents", "V/UV %", "x real time")
SECTIONS = ("Quality", "Held-out bits per 16-bit sample", "Nats per sample")


def main(root: Path = ROOT) -> None:
    report = REPORT.read_text(encoding="utf-8")
    sections = dict(part.split("\n\n", 1) for part in report.split("\n## ")[1:])
    rows = [line.strip("| ").split(" | ") for line in sections["Quality"].strip().splitlines()]
    columns = [rows[0].index(name) for name in METRICS]
    short = [row for row in rows if row[0] in ("system", "---", *SYSTEMS)]
    table = ["| " + " | ".join(row[column] for column in columns) + " |" for row in short]
    fill_block(root / "README.md", "results", "\n".join(table))
    parts = [f"### {title}\n\n{sections[title].strip()}" for title in SECTIONS]
    notes = "\n".join(line for line in report.splitlines() if line.startswith("* "))
    fill_block(root / "docs" / "results.md", "results", "\n\n".join([*parts, "### Notes", notes]))


if __name__ == "__main__":
    main()
