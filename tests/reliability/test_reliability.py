"""Short versions of what docs/reliability.md measures at length; each script says itself what it holds."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from helpers.processes import begin, run


def check(*command: str) -> None:
    done = run("-m", *command)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_broken_files_are_refused_in_words(tmp_path):
    check("reliability.fuzz", "--cases", "54", "--seed", "7", "--keep", str(tmp_path))


@pytest.mark.slow
def test_interrupted_commands_end_with_the_same_bytes():
    check("reliability.kill", "--times", "4", "--others", "1", "--job", "prepare", "--job", "synthesize")


@pytest.mark.slow
@pytest.mark.parametrize("job", ["train", "distill"])
def test_interrupted_training_ends_with_the_same_bytes(job):
    check("reliability.kill", "--times", "6", "--others", "1", "--job", job)


@pytest.mark.slow
def test_a_crowd_is_served_or_refused_in_words():
    check("reliability.crowd", "--users", "6", "--minutes", "0.1", "--student", "speech-student")


def test_a_killed_pool_leaves_no_process_behind(tmp_path):
    code = (
        "import time; from wavedistill.data.parallel import over_processes\n"
        "if __name__ == '__main__':\n"
        "    with over_processes(abs, range(100), 2) as results:\n"
        "        list(results); print('ready', flush=True); time.sleep(60)"
    )
    script = tmp_path / "pool.py"
    script.write_text(code)
    with begin(str(script)) as parent:
        assert parent.stdout.readline() == "ready\n"
        workers = [int(pid) for pid in children(parent.pid)]
        parent.send_signal(signal.SIGKILL)
    assert len(workers) >= 2
    end = time.monotonic() + 60
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < end, "processes of the pool outlive their parent"
        time.sleep(0.05)


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
