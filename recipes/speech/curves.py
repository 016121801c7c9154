"""Draw curves.png and print the tables of README.md from the two metrics files: python recipes/speech/curves.py

metrics-teacher.jsonl and metrics-student.jsonl are copied from the run folders of the bundled voice.
"""

from pathlib import Path

from wavedistill.evaluation.curves import curve_table, plot_curves, read_curve

FOLDER = Path(__file__).parent
TEACHER, STUDENT = FOLDER / "metrics-teacher.jsonl", FOLDER / "metrics-student.jsonl"
TERMS = ("kl_nats", "stft", "mel", "pitch", "amplitude_std", "real_std")


def main():
    bits = read_curve(TEACHER, "bits", "valid")
    loss = {kind: read_curve(STUDENT, "loss", kind) for kind in ("train", "valid")}
    terms = {name: read_curve(STUDENT, name, "valid") for name in TERMS}
    panels = {"teacher: bits per sample": {"valid": bits}, "student: loss": loss, "student: terms (valid)": terms}
    plot_curves(panels, FOLDER / "curves.png")
    print(curve_table({"bits (valid)": bits}), curve_table({"loss": loss["valid"], **terms}), sep="\n\n")


if __name__ == "__main__":
    main()
