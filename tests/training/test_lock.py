import subprocess
import sys

import pytest
from helpers.training_toy import ToyDataset, ToyTask, recipe

from wavedistill.errors import WavedistillError
from wavedistill.training.lock import run_lock
from wavedistill.training.loop import fit


def test_a_run_folder_takes_one_process_and_is_free_again_when_it_dies(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from wavedistill.training.lock import run_lock\n"
        "with run_lock(Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "in\n"
    with pytest.raises(WavedistillError, match="another process"), run_lock(tmp_path / "run"):
        pass
    other.kill()
    other.wait()
    other.stdout.close()
    with run_lock(tmp_path / "run"):
        pass


def test_training_takes_the_lock(tmp_path):
    options = recipe(tmp_path / "run")
    with run_lock(tmp_path / "run"), pytest.raises(WavedistillError, match="another process"):
        fit(ToyTask(options.model, 0.1), ToyDataset(), ToyDataset(), options)


def test_the_lock_keeps_out_of_the_errors_of_what_it_guards(tmp_path):
    with pytest.raises(BlockingIOError), run_lock(tmp_path / "run"):
        raise BlockingIOError("somebody else's")
