"""What ``prepare`` made of a folder of recordings, in words: how many, in which split, and what is still wanting."""

from __future__ import annotations

from dataclasses import dataclass, field

FEWEST_TEST_CLIPS = 6
"""From here on ``wavedistill evaluate`` compares two systems at all."""
ENOUGH_TEST_CLIPS = 20
"""From here on it sees differences that an ear does."""


@dataclass(frozen=True)
class PrepareReport:
    """What became of the recordings; written as report.json beside the manifest."""

    manifest: str
    accepted: int
    seconds: float
    refused: dict[str, str] = field(default_factory=dict)
    """Source file -> reason."""
    clips: dict[str, int] = field(default_factory=dict)
    """Split -> accepted recordings."""
    with_text: int = 0
    """Accepted recordings that have a text."""
    renewed: int = 0
    """Accepted recordings that took the place of others of the same name, prepared before."""

    def summary(self) -> str:
        """One line or two: how many recordings, where they are, and how they are divided."""
        split = ", ".join(f"{count} {name}" for name, count in self.clips.items())
        renewed = f"; {self.renewed} made anew, since their files changed" if self.renewed else ""
        return (
            f"{self.accepted} recordings, {self.seconds / 60:.1f} min in {self.manifest}; {len(self.refused)} refused"
            f"{renewed}\n"
            f"split: {split} (by a hash of the text, or of the file's name); {self.with_text} with text"
        )

    def advice(self) -> list[str]:
        """What to do where too few clips are held out, or none has a text; empty if all is well."""
        found = []
        test = self.clips.get("test", 0)
        if test < ENOUGH_TEST_CLIPS:
            found.append(
                f"{test} of {self.accepted} recordings are held out for testing. `wavedistill evaluate` needs "
                f"{FEWEST_TEST_CLIPS} to conclude anything, and {ENOUGH_TEST_CLIPS} to see small differences. "
                + self._how_to_hold_out_more(test)
            )
        if not self.with_text:
            found.append(
                "no recording has a text. Put it into NAME.txt beside NAME.wav: then a sentence that was recorded "
                "twice stays in one split, and evaluate counts word errors (in English)."
            )
        return found

    def _how_to_hold_out_more(self, test: int) -> str:
        wanted = min(ENOUGH_TEST_CLIPS, max(FEWEST_TEST_CLIPS, self.accepted // 4))
        if wanted <= test:
            return f"A quarter is held out already: record more, {4 * ENOUGH_TEST_CLIPS} at best."
        if self.accepted < 2 * FEWEST_TEST_CLIPS:
            return f"Record more: {2 * FEWEST_TEST_CLIPS} at least, {4 * ENOUGH_TEST_CLIPS} at best."
        return f"To hold out more, type the same command with --test-clips {wanted}: what is prepared is kept."
