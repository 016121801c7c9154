"""A command of `wavedistill` in a process of its own, forked from this one so that it starts at once.

The parent must not have computed with torch or numba in several threads, whose pools do not survive a fork: set
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

CRASHED = 70
"""Exit code after an exception that no user is meant to read."""
LONGEST = 600.0
"""Seconds by the clock after which a command that hardly computes is taken to hang."""
_POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code; minus the number of the signal that killed it.
        output: what it printed, both streams together.
        seconds: of processor time that it took.
        megabytes: most memory it held, with what it shares with its parent.
        stopped: it was killed here, for its time or its memory, or because `Running.wait` was told to.
    """

    code: int
    output: str
    seconds: float
    megabytes: float
    stopped: bool

    @property
    def crashed(self) -> bool:
        """An exception that no user is meant to read, or a signal that nobody sent."""
        return self.code == CRASHED or (self.code < 0 and not self.stopped) or "Traceback" in self.output


class Running:
    """``wavedistill WORDS``, begun.

    Args:
        before: called in the new process first: to limit it, or to put faults into it.
    """

    def __init__(self, words: Sequence[str], before: Callable[[], None] = lambda: None) -> None:
        self._printed = tempfile.TemporaryFile()  # closed by `wait`
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _be_the_command(words, self._printed.fileno(), before)

    def wait(
        self,
        *,
        max_seconds: float = LONGEST,
        max_megabytes: float = 65536.0,
        watch: Callable[[float], bool] = lambda seconds: False,
    ) -> Ended:
        """Wait for its end.

        Args:
            max_seconds, max_megabytes: of processor time and of resident memory; it is killed beyond them.
            watch: called every few milliseconds with the processor time so far; True kills the command (SIGKILL).
        """
        began = time.monotonic()
        stopped = False
        try:
            while True:
                done, status, usage = os.wait4(self.pid, os.WNOHANG)
                if done:
                    break
                seconds, megabytes = _used(self.pid)
                too_much = seconds > max_seconds or megabytes > max_megabytes or time.monotonic() - began > LONGEST
                if not stopped and (watch(seconds) or too_much):
                    os.kill(self.pid, signal.SIGKILL)
                    stopped = True
                time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            raise
        with self._printed as printed:
            printed.seek(0)
            output = printed.read().decode(errors="replace")
        used = usage.ru_utime + usage.ru_stime
        return Ended(os.waitstatus_to_exitcode(status), output, used, usage.ru_maxrss / 1024, stopped)


def warm_up(*checkpoints: str | Path) -> None:
    """Import and compile once, in this process, what every command would else import and compile again."""
    import av  # noqa: F401
    import soundfile  # noqa: F401
    import tqdm  # noqa: F401
    import tyro  # noqa: F401
    import yaml  # noqa: F401

    import wavedistill.data.prepare  # noqa: F401
    import wavedistill.inference.batch.synthesize  # noqa: F401
    import wavedistill.training.runs  # noqa: F401
    from wavedistill.audio.mel import LogMelSpectrogram
    from wavedistill.inference.vocoder import Vocoder

    for checkpoint in checkpoints:
        vocoder = Vocoder.from_pretrained(checkpoint)
        tone = torch.sin(torch.arange(vocoder.sample_rate // 4) / 8)
        vocoder(LogMelSpectrogram(vocoder.mel_config)(0.3 * tone))


def last_line(ended: Ended) -> str:
    """The last thing that a command printed."""
    return (ended.output.strip().splitlines() or ["nothing printed"])[-1]


def _be_the_command(words: Sequence[str], printed: int, before: Callable[[], None]) -> None:
    """Never returns."""
    code = CRASHED
    try:
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        sys.stdout = open(1, "w", closefd=False)  # pytest's own would catch what is printed
        sys.stderr = open(2, "w", closefd=False)
        before()
        from wavedistill.cli import main

        code = main(list(words))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _used(pid: int) -> tuple[float, float]:
    """Seconds of processor time that a process has used, and megabytes that it holds; 0 once it has ended."""
    try:
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0, 0.0
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 2**20
