import subprocess
import sys

import pytest

from wavedistill.errors import WavedistillError
from wavedistill.training.lock import run_lock


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
