"""Draw results/curves.png and fill the tables of README.md from the metrics files: python recipes/notes/curves.py"""

from pathlib import Path

from wavedistill.text import fill_block
from wavedistill.training.curves import curve_table, plot_curves, read_curve

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
TEACHER, STUDENT = (RESULTS / f"metrics-{who}.jsonl" for who in ("teacher", "student"))
TERMS = ("kl_nats", "stft", "pitch", "amplitude_std", "real_std")


def main() -> None:
    bits = read_curve(TEACHER, "bits", "valid")
    terms = {name: read_curve(STUDENT, name, "valid") for name in TERMS}
    plot_curves(
        {"teacher: bits per sample (valid)": {"": bits}, "student: terms (valid)": terms}, RESULTS / "curves.png"
    )
    fill_block(FOLDER / "README.md", "curves", f"{curve_table({'teacher: bits': bits})}\n\n{curve_table(terms)}")


if __name__ == "__main__":
    main()
