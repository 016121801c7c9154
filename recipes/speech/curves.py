"""Draw results/curves.png and fill the tables of README.md from the metrics files: python recipes/speech/curves.py"""

from pathlib import Path

from wavedistill.text import fill_block
from wavedistill.training.curves import curve_table, plot_curves, read_curve

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
STUDENTS = {
    "student": "student",
    "fast student": "student-fast",
    "student, stage 2": "student-2",
    "fast student, stage 2": "student-fast-2",
}
TERMS = ("kl_nats", "stft", "mel", "pitch", "amplitude_std", "real_std")


def curve(run: str, name: str) -> list[tuple[int, float]]:
    return read_curve(RESULTS / f"metrics-{run}.jsonl", name, "valid")


def main() -> None:
    bits = curve("teacher", "bits")
    flow = curve("flow", "bits")
    students = {who: {name: curve(run, name) for name in ("loss", *TERMS)} for who, run in STUDENTS.items()}
    panels = {"bits per sample (valid)": {"teacher": bits, "flow": flow}}
    for name in ("loss", "kl_nats", "stft"):
        panels[f"students: {name} (valid)"] = {who: curves[name] for who, curves in students.items()}
    plot_curves(panels, RESULTS / "curves.png")
    tables = [curve_table({"teacher's bits": bits})]
    tables += [
        curve_table({f"{who}: {name}" if name == "loss" else name: values for name, values in curves.items()})
        for who, curves in students.items()
    ]
    fill_block(FOLDER / "README.md", "curves", "\n\n".join([*tables, curve_table({"flow's bits": flow})]))


if __name__ == "__main__":
    main()
