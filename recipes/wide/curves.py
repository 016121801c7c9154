"""Draw results/curves.png and fill the tables of README.md from the metrics files: python recipes/wide/curves.py"""

from pathlib import Path

from wavedistill.text import fill_block
from wavedistill.training.curves import curve_table, plot_curves, read_curve

FOLDER = Path(__file__).parent
TERMS = ("loss", "kl_nats", "stft", "mel", "instructive", "amplitude_std", "real_std")


def curve(run: str, name: str) -> list[tuple[int, float]]:
    return read_curve(FOLDER / "results" / f"metrics-{run}.jsonl", name, "valid")


if __name__ == "__main__":
    bits = curve("teacher", "bits")
    student = {name: curve("student", name) for name in TERMS}
    panels = {"teacher: bits per sample (valid)": {"teacher": bits}}
    for name in ("loss", "kl_nats", "mel"):
        panels[f"student: {name} (valid)"] = {"student": student[name]}
    plot_curves(panels, FOLDER / "results" / "curves.png")
    fill_block(FOLDER / "README.md", "curves", f"{curve_table({'teacher bits': bits})}\n\n{curve_table(student)}")
