"""Commands killed at random times, run into full disks and forbidden folders, under a clock that jumps, side by side.

    cd tests && python -m reliability.kill --times 100

A job that was interrupted in any of these ways, and is then typed again, must end with the files of an undisturbed one,
byte for byte (but for times that are measured), must not make anything again that was finished, and leaves nothing half
written; an error must be one line.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from reliability.isolated import Ended, last_line  # noqa: E402
from reliability.jobs import Job, make_jobs  # noqa: E402
from wavedistill.text import markdown_table  # noqa: E402

KILLS_IN_A_ROW = 4
DAY = 86400.0


@dataclass
class Trial:
    """One way of disturbing one job.

    Attributes:
        disturbed: how many times it was.
        problems: what was not as it must be.
    """

    job: str
    way: str
    disturbed: int = 0
    problems: list[str] = field(default_factory=list)


class Undisturbed:
    """A job that was run once without disturbance: what it gives, and how long it takes."""

    def __init__(self, job: Job) -> None:
        self.job = job
        job.clear()
        ended = job.run()
        if ended.code:
            raise RuntimeError(f"{job.name} fails undisturbed:\n{ended.output}")
        self.seconds = ended.seconds
        self.result = job.result()
        self.largest = max(path.stat().st_size for path in job.out.rglob("*") if path.is_file())
        self.size = sum(path.stat().st_size for path in job.out.rglob("*") if path.is_file())

    def check_end(self, trial: Trial, finished: dict[str, tuple[int, int]]) -> None:
        """Type the command again, and compare what is there then; ``finished`` must not have been made again."""
        ended = self.job.run()
        if ended.code:
            trial.problems.append(f"typed again it fails: {last_line(ended)}")
            return
        result = self.job.result()
        different = sorted(
            name for name in result.keys() | self.result.keys() if result.get(name) != self.result.get(name)
        )
        trial.problems += [f"{name} is not what it is undisturbed" for name in different]
        now = self.job.finished()
        trial.problems += [f"{name} was made again" for name, file in finished.items() if now.get(name) != file]

    def check_error(self, trial: Trial, ended: Ended) -> None:
        """A disturbed command ends with one line that says what is wrong, and nothing half written."""
        if ended.crashed:
            trial.problems.append(f"traceback: {last_line(ended)}")
        elif ended.code != 2 or "error: " not in ended.output:
            trial.problems.append(f"no error is shown (exit code {ended.code}): {last_line(ended)}")
        trial.problems += [f"{path.name} stays" for path in self.job.out.rglob(".*.tmp")]


def kill(work: Undisturbed, times: int, chance: random.Random) -> Trial:
    """SIGKILL at random times of its processor time, some in a row, then to the end."""
    trial = Trial(work.job.name, "killed")
    while trial.disturbed < times:
        work.job.clear()
        finished: dict[str, tuple[int, int]] = {}
        for _ in range(min(KILLS_IN_A_ROW, times - trial.disturbed)):
            moment = chance.uniform(0.0, work.seconds)
            ended = work.job.begin().wait(watch=lambda seconds, moment=moment: seconds >= moment)
            if ended.stopped:
                trial.disturbed += 1
            elif ended.code:
                trial.problems.append(f"not killed, but failed: {last_line(ended)}")
            else:  # it was quicker than the first time: no kill
                break
            now = work.job.finished()
            trial.problems += [f"{name} was made again" for name in finished if now.get(name) != finished[name]]
            finished = now
        work.check_end(trial, finished)
    return trial


def fill_disk(work: Undisturbed, times: int, chance: random.Random) -> Trial:
    """A file system of memory that is too small, at random sizes, and is then made larger (needs root)."""
    trial = Trial(work.job.name, "disk full")
    for _ in range(times):
        work.job.clear()
        work.job.out.mkdir()
        size = 4096 * chance.randint(1, max(2, round(0.8 * work.size / 4096)))
        mounted = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(work.job.out)]
        if os.geteuid() or subprocess.run(mounted, capture_output=True).returncode:
            trial.way += " (not run: no file system can be mounted here)"
            return trial
        try:
            work.check_error(trial, work.job.run())
            finished = work.job.finished()
            subprocess.run(["mount", "-o", "remount,size=256m", str(work.job.out)], check=True)
            trial.disturbed += 1
            work.check_end(trial, finished)
        finally:
            subprocess.run(["umount", str(work.job.out)], check=True)
    return trial


def limit_files(work: Undisturbed, times: int, chance: random.Random) -> Trial:
    """Files may not be larger than some size below their largest: a full disk without root."""
    trial = Trial(work.job.name, "file too large for the disk")
    for _ in range(times):
        work.job.clear()
        most = chance.randint(work.largest // 2, work.largest - 1)
        limits = (resource.RLIMIT_FSIZE, (most, most))
        work.check_error(trial, work.job.run(before=lambda limits=limits: resource.setrlimit(*limits)))
        trial.disturbed += 1
        work.check_end(trial, work.job.finished())
    return trial


def forbid(work: Undisturbed, times: int, chance: random.Random) -> Trial:
    """The output folder becomes read-only in mid-run, as soon as something finished lies in it."""
    trial = Trial(work.job.name, "folder made read-only")
    for _ in range(times):
        work.job.clear()
        with ExitStack() as undone:
            ended = work.job.begin(_obey_permissions).wait(
                watch=lambda seconds, undo=undone: _make_read_only(work.job, undo)
            )
        work.check_error(trial, ended)
        trial.disturbed += 1
        work.check_end(trial, work.job.finished())
    return trial


def _obey_permissions() -> None:
    """Root gives up its capabilities, one of which is to write everywhere (capset(2))."""
    if os.geteuid() == 0:
        version_3 = 0x20080522
        header, none = (ctypes.c_uint32 * 2)(version_3, 0), (ctypes.c_uint32 * 6)()
        if ctypes.CDLL(None, use_errno=True).capset(header, none):
            raise OSError(ctypes.get_errno(), "capset")


def _make_read_only(job: Job, undo: ExitStack) -> bool:
    if job.finished():
        for folder in [job.out, *(path for path in job.out.rglob("*") if path.is_dir())]:
            if folder.stat().st_mode & 0o200:
                folder.chmod(0o555)
                undo.callback(folder.chmod, 0o755)
    return False


def turn_back_clock(work: Undisturbed, times: int, chance: random.Random) -> Trial:
    """Killed half-way; then the clock is a day behind, so that all files lie in the future."""
    trial = Trial(work.job.name, "clock a day back")
    for _ in range(times):
        work.job.clear()
        moment = chance.uniform(0.3, 0.9) * work.seconds
        work.job.begin().wait(watch=lambda seconds, moment=moment: seconds >= moment)
        finished = work.job.finished()
        ended = work.job.run(before=_a_day_ago)
        trial.disturbed += 1
        if ended.code:
            trial.problems.append(f"it fails: {last_line(ended)}")
        work.check_end(trial, finished)
    return trial


def _a_day_ago() -> None:
    now = time.time
    time.time = lambda: now() - DAY


def run_twice_at_once(work: Undisturbed, times: int, chance: random.Random) -> Trial:
    """Two processes on one folder: both end well, or one is told that another works there."""
    trial = Trial(work.job.name, "two at once")
    for _ in range(times):
        work.job.clear()
        both = [work.job.begin() for _ in range(2)]
        ended = [one.wait() for one in both]
        trial.disturbed += 1
        codes = sorted(one.code for one in ended)
        told = [one for one in ended if one.code == 2 and "another process is" in one.output]
        if codes != [0, 0] and not (codes == [0, 2] and told):
            trial.problems.append(f"exit codes {codes}: {' / '.join(map(last_line, ended))}")
        work.check_end(trial, work.job.finished())
    return trial


WAYS: list[Callable[[Undisturbed, int, random.Random], Trial]] = [
    *(kill, fill_disk, limit_files, forbid, turn_back_clock, run_twice_at_once)
]


def run_trials(folder: Path, kills: int, others: int, seed: int = 0, names: list[str] | None = None) -> list[Trial]:
    """Every way on every job: ``kills`` kills of all jobs together, ``others`` disturbances of each other way."""
    jobs = make_jobs(folder)
    chosen = names or list(jobs)
    trials = []
    for number, name in enumerate(chosen):
        work = Undisturbed(jobs[name])
        share = kills * (number + 1) // len(chosen) - kills * number // len(chosen)
        for way in WAYS:
            trial = way(work, share if way is kill else others, random.Random(f"{seed}/{name}/{way.__name__}"))
            trials.append(trial)
            told = "; ".join(trial.problems) or "as undisturbed"
            print(f"{trial.job}, {trial.way}, {trial.disturbed} times: {told}", file=sys.stderr, flush=True)
    return trials


def table(trials: list[Trial]) -> str:
    """One line a job and way."""
    rows = [[trial.job, trial.way, trial.disturbed, len(trial.problems)] for trial in trials]
    return markdown_table(["job", "what happened", "times", "problems"], rows, left=2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100, metavar="N", help="kills, of all jobs together")
    parser.add_argument("--others", type=int, default=5, metavar="N", help="disturbances of each other kind and job")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--job", action="append", metavar="NAME", help="may be repeated (default: all)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trials = run_trials(Path(folder), args.times, args.others, args.seed, args.job)
    print(table(trials))
    return int(any(trial.problems for trial in trials))


if __name__ == "__main__":
    sys.exit(main())
