"""Draw curves.png and fill the tables of README.md from the metrics files: python recipes/speech/curves.py"""

from pathlib import Path

from wavedistill.evaluation.curves import curve_table, fill_block, plot_curves, read_curve

FOLDER = Path(__file__).parent
TEACHER, STUDENT, FAST, FLOW = (FOLDER / f"metrics-{who}.jsonl" for who in ("teacher", "student", "student-fast", "flow"))
TERMS = ("kl_nats", "stft", "mel", "pitch", "amplitude_std", "real_std")


def main() -> None:
    bits, flow = (read_curve(path, "bits", "valid") for path in (TEACHER, FLOW))
    students = {path: {name: read_curve(path, name, "valid") for name in ("loss", *TERMS)} for path in (STUDENT, FAST)}
    losses = {"student": students[STUDENT]["loss"], "fast student": students[FAST]["loss"]}
    panels = {"bits per sample (valid)": {"teacher": bits, "flow": flow}, "students: loss (valid)": losses}
    plot_curves(panels | {"student: terms (valid)": {name: students[STUDENT][name] for name in TERMS}}, FOLDER / "curves.png")
    tables = [curve_table({"teacher's bits": bits})]
    tables += [curve_table({f"{who}'s {name}" if name == "loss" else name: curve for name, curve in students[path].items()})
               for who, path in (("student", STUDENT), ("fast student", FAST))]  # fmt: skip
    fill_block(FOLDER / "README.md", "curves", "\n\n".join([*tables, curve_table({"flow's bits": flow})]))


if __name__ == "__main__":
    main()
