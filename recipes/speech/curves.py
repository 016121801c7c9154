"""Draw curves.png and fill the tables of README.md from the three metrics files: python recipes/speech/curves.py"""

from pathlib import Path

from wavedistill.evaluation.curves import curve_table, fill_block, plot_curves, read_curve

FOLDER = Path(__file__).parent
TEACHER, STUDENT, FLOW = (FOLDER / f"metrics-{who}.jsonl" for who in ("teacher", "student", "flow"))
TERMS = ("kl_nats", "stft", "mel", "pitch", "amplitude_std", "real_std")


def main() -> None:
    bits, flow = (read_curve(path, "bits", "valid") for path in (TEACHER, FLOW))
    loss = {kind: read_curve(STUDENT, "loss", kind) for kind in ("train", "valid")}
    terms = {name: read_curve(STUDENT, name, "valid") for name in TERMS}
    panels = {"bits per sample (valid)": {"teacher": bits, "flow": flow}, "student: loss": loss, "student: terms (valid)": terms}
    plot_curves(panels, FOLDER / "curves.png")
    tables = [curve_table({"teacher's bits": bits}), curve_table({"student's loss": loss["valid"], **terms}), curve_table({"flow's bits": flow})]
    fill_block(FOLDER / "README.md", "curves", "\n\n".join(tables))


if __name__ == "__main__":
    main()
