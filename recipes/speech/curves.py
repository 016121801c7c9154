"""Draw results/curves.png and fill the tables of README.md from the metrics files: python recipes/speech/curves.py"""

from pathlib import Path

from wavedistill.text import fill_block
from wavedistill.training.curves import curve_table, plot_curves, read_curve

FOLDER = Path(__file__).parent
TERMS = ("kl_nats", "stft", "mel", "pitch", "amplitude_std", "real_std")


def curve(run: str, name: str) -> list[tuple[int, float]]:
    return read_curve(FOLDER / "results" / f"metrics-{run}.jsonl", name, "valid")


if __name__ == "__main__":
    bits = {run: curve(run, "bits") for run in ("teacher", "flow")}
    student = {name: curve("student", name) for name in ("loss", *TERMS)}
    panels = {"bits per sample (valid)": bits}
    for name in ("loss", "kl_nats", "stft"):
        panels[f"student: {name} (valid)"] = {"student": student[name]}
    plot_curves(panels, FOLDER / "results" / "curves.png")
    tables = [curve_table({"teacher's bits": bits["teacher"]})]
    tables.append(curve_table({"student: loss": student["loss"]} | {name: student[name] for name in TERMS}))
    tables.append(curve_table({"flow's bits": bits["flow"]}))
    fill_block(FOLDER / "README.md", "curves", "\n\n".join(tables))
