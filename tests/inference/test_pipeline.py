"""Reading, computing and writing at the same time: nothing out of order, lost, cut short or running at the end."""

from __future__ import annotations

import errno
import os
import threading

import numpy as np
import pytest
import soundfile
import torch
from helpers.tiny_models import speech_like, tiny_student

from wavedistill import Vocoder, save_audio, synthesize
from wavedistill.audio.mel import LogMelSpectrogram
from wavedistill.errors import WavedistillError
from wavedistill.inference.batch.pipeline import input_seed, run_pipeline
from wavedistill.inference.batch.plan import ExecutionConfig

PATIENCE = 30.0
ONE_BY_ONE = ExecutionConfig(batch_seconds=1e-9)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert {thread for thread in threading.enumerate() if thread.name.startswith(("read", "write"))} <= before


@pytest.fixture
def folder(tmp_path):
    for index in range(6):
        save_audio(tmp_path / "in" / f"{index}.wav", speech_like(0.2 + 0.05 * index, seed=index), 8000)
    return tmp_path / "in"


def outputs(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.wav")}


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_every_part_in_order(count):
    written = []
    run_pipeline(range(count), lambda part: part + 1, lambda loaded: 10 * loaded, written.append)
    assert written == [10 * (part + 1) for part in range(count)]


def test_the_next_part_is_read_and_the_last_written_meanwhile():
    is_read, is_written = ([threading.Event() for _ in range(4)] for _ in range(2))

    def compute(part: int) -> int:
        assert part == 3 or is_read[part + 1].wait(PATIENCE), "the next part was not read meanwhile"
        assert part == 0 or is_written[part - 1].wait(PATIENCE), "the last part was not written meanwhile"
        return part

    def read(part: int) -> int:
        is_read[part].set()
        return part

    run_pipeline(range(4), read, compute, lambda part: is_written[part].set())


def test_steps_run_where_they_belong():
    names = {}

    def note(step: str):
        return lambda part: names.setdefault(step, threading.current_thread())

    run_pipeline(range(2), note("read"), note("compute"), note("write"))
    assert names["compute"] is threading.current_thread()  # Ctrl-C reaches it, and the GPU's context is its own
    assert len(set(names.values())) == 3


def test_three_parts_are_in_memory_at_most():
    lock = threading.Lock()
    counts = {"now": 0, "most": 0}

    def read(part: int) -> int:
        with lock:
            counts["now"] += 1
            counts["most"] = max(counts["most"], counts["now"])
        return part

    def write(part: int) -> None:
        threading.Event().wait(0.01)  # slow, so that reading could run ahead
        with lock:
            counts["now"] -= 1

    run_pipeline(range(20), read, lambda part: part, write)
    assert counts["now"] == 0 and 2 <= counts["most"] <= 3


@pytest.mark.parametrize("step", ["read", "compute", "write"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_stops_the_job_with_everything_before_it_written(step, error):
    written = []
    computed = []

    def fails(name: str, part: int) -> int:
        if name == step and part == 3:
            raise error("part 3")
        return part

    def compute(part: int) -> int:
        computed.append(part)
        return fails("compute", part)

    with pytest.raises(error, match="part 3"):
        run_pipeline(
            range(9), lambda part: fails("read", part), compute, lambda part: written.append(fails("write", part))
        )
    assert written == [0, 1, 2]
    assert max(computed) <= 4  # the part that was being computed when the write failed


def test_a_write_under_way_is_finished_when_ctrl_c_comes():
    begun = threading.Event()
    finished = []

    def compute(part: int) -> int:
        if part == 1:
            assert begun.wait(PATIENCE)
            raise KeyboardInterrupt
        return part

    def write(part: int) -> None:
        begun.set()
        threading.Event().wait(0.2)
        finished.append(part)

    with pytest.raises(KeyboardInterrupt):
        run_pipeline(range(3), lambda part: part, compute, write)
    assert finished == [0]


def test_ctrl_c_leaves_whole_files_and_the_job_can_be_continued(folder, tmp_path, monkeypatch):
    voice = Vocoder(tiny_student())
    synthesize(folder, voice, tmp_path / "whole", execution=ONE_BY_ONE)
    render = Vocoder.render
    calls = []

    def interrupted(self, *args, **options):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return render(self, *args, **options)

    monkeypatch.setattr(Vocoder, "render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        synthesize(folder, voice, tmp_path / "out", execution=ONE_BY_ONE)
    kept = outputs(tmp_path / "out")
    assert len(kept) == 3 and kept.items() <= outputs(tmp_path / "whole").items()
    assert not list((tmp_path / "out").glob(".*"))
    assert len(synthesize(folder, voice, tmp_path / "out", execution=ONE_BY_ONE).written) == 3
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")


def test_a_full_disk_stops_the_computing_too(folder, tmp_path, monkeypatch):
    replace = os.replace
    render = Vocoder.render
    files = []
    batches = []

    def full(source, target):
        files.append(target)
        if len(files) > 2:  # the settings file and one output
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    def counted(self, *args, **options):
        batches.append(1)
        return render(self, *args, **options)

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(Vocoder, "render", counted)
    with pytest.raises(WavedistillError, match="No space left"):
        synthesize(folder, Vocoder(tiny_student()), tmp_path / "out", execution=ONE_BY_ONE)
    assert len(batches) <= 3  # one written, one that could not be, one computed meanwhile
    assert len(outputs(tmp_path / "out")) == 1
    assert not list((tmp_path / "out").glob(".*"))


def test_a_batch_whose_missing_input_cannot_be_used_is_not_computed(folder, tmp_path, monkeypatch):
    """Its header was good, so it is in a batch; the others of the batch are done, nothing is computed for it."""
    save_audio(folder / "silent.wav", torch.zeros(3000), 8000)
    voice = Vocoder(tiny_student())
    assert len(synthesize(folder, voice, tmp_path / "out").written) == 6
    monkeypatch.setattr(Vocoder, "render", lambda *args, **options: pytest.fail("computed again"))
    report = synthesize(folder, voice, tmp_path / "out")
    assert len(report.skipped) == 6 and "silent" in report.failures[0].reason


@pytest.mark.gpu
def test_on_a_gpu_the_files_hold_what_it_computed(folder, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    voice = Vocoder(tiny_student().to("cuda"))
    synthesize(folder, voice, tmp_path / "out", execution=ONE_BY_ONE)
    for path in sorted(folder.glob("*.wav")):
        recording = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        mel = LogMelSpectrogram(voice.mel_config)(recording)
        expected = voice.render(mel.unsqueeze(0), [input_seed(0, path.stem)])[0, : len(recording)]
        written = soundfile.read(tmp_path / "out" / path.name, dtype="float32")[0]
        np.testing.assert_allclose(written, expected.cpu().clamp(-1, 1), atol=1.01 / 32768)
