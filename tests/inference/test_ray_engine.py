"""The Ray engine beside the local one: the same files, on a Ray of two CPUs on this machine."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers.tiny_models import speech_like, tiny_student

from wavedistill import Vocoder, cli, save_audio, synthesize
from wavedistill.errors import WavedistillError
from wavedistill.inference.batch.plan import ExecutionConfig

COMMAND = ["synthesize", "in", "--checkpoint", "speech-student", "--out", "out"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return Vocoder(tiny_student()).save_pretrained(tmp_path_factory.mktemp("voice") / "tiny")


@pytest.fixture(scope="module")
def session():
    """A Ray that the engine finds running."""
    ray = pytest.importorskip("ray", reason='pip install -e ".[ray]"')
    pytest.importorskip("ray.data", reason='pip install -e ".[ray]"')
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv("RAY_worker_niceness", "0")
        environment.delenv("RAY_ADDRESS", raising=False)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield ray
        ray.shutdown()


def recordings(folder: Path, count: int, seconds: float = 0.2) -> Path:
    for index in range(count):
        save_audio(folder / f"{index}.wav", speech_like(seconds + 0.02 * index, seed=index), 8000)
    return folder


def outputs(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.wav"))}


@pytest.mark.slow
def test_same_files_as_the_local_engine_and_continued_by_either(session, checkpoint, tmp_path, monkeypatch):
    recordings(tmp_path / "in", 6)
    (tmp_path / "in" / "empty.wav").write_bytes(b"")  # seen from its header
    save_audio(tmp_path / "in" / "silent.wav", speech_like(0.2) * 1e-5, 8000)  # seen by a worker
    monkeypatch.chdir(tmp_path)
    options = {"seed": 3, "temperature": 0.8}
    here = ExecutionConfig(batch_seconds=0.7)
    on_ray = ExecutionConfig(engine="ray", batch_seconds=0.7)
    local = synthesize("in", checkpoint, "local", **options, execution=here)
    report = synthesize("in", checkpoint, "rays", **options, execution=dataclasses.replace(on_ray, workers=2))
    assert outputs(tmp_path / "rays") == outputs(tmp_path / "local") and len(report.written) == 6
    assert report.written == [tmp_path / "rays" / path.name for path in local.written]
    assert {Path(f.input).name for f in report.failures} == {"empty.wav", "silent.wav"}
    assert (tmp_path / "rays" / "failures.json").is_file()
    assert report.seconds == pytest.approx(local.seconds)

    for execution in (on_ray, here):
        for name in ("0.wav", "5.wav"):
            (tmp_path / "rays" / name).unlink()
        again = synthesize("in", checkpoint, "rays", **options, execution=execution)
        assert [path.name for path in again.written] == ["0.wav", "5.wav"] and len(again.skipped) == 4
        assert outputs(tmp_path / "rays") == outputs(tmp_path / "local")
    with pytest.raises(WavedistillError, match="another seed"):
        synthesize("in", checkpoint, "rays", **options | {"seed": 4}, execution=on_ray)


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_one_clear_error(session, checkpoint, tmp_path):
    recordings(tmp_path / "in" / "sub", 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_text("in the way")
    with pytest.raises(WavedistillError, match=r"^cannot write \S*[01].wav: ") as caught:
        execution = ExecutionConfig(engine="ray", workers=1)
        synthesize(tmp_path / "in", checkpoint, tmp_path / "out", execution=execution)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(session, checkpoint, tmp_path):
    recordings(tmp_path / "in", 50, seconds=1.5)
    out = tmp_path / "rays"
    killed = []

    def kill_one() -> None:
        deadline = time.monotonic() + 120
        while not outputs(out) and time.monotonic() < deadline:
            time.sleep(0.01)
        left = 50 - len(outputs(out))
        for worker in workers_of_this_process()[:1]:
            os.kill(worker, signal.SIGKILL)
            killed.append(left)

    thread = threading.Thread(target=kill_one)
    thread.start()
    execution = ExecutionConfig(engine="ray", workers=2, batch_seconds=1e-9)
    report = synthesize(tmp_path / "in", checkpoint, out, execution=execution)
    thread.join()
    assert killed and killed[0] > 8, "nothing was left to do when the worker was killed"
    assert report.failures == []
    synthesize(tmp_path / "in", checkpoint, tmp_path / "local", execution=ExecutionConfig(batch_seconds=1e-9))
    assert outputs(out) == outputs(tmp_path / "local")


def workers_of_this_process() -> list[int]:
    """Process ids of the Ray workers that hold a voice: grandchildren of this process, whose child is Ray's raylet."""
    parents = {}
    workers = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            command = status.with_name("cmdline").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        pid = int(status.parent.name)
        parents[pid] = int(fields["PPid"])
        if command.startswith(b"ray::MapWorker"):
            workers.append(pid)
    return [pid for pid in workers if parents.get(parents[pid]) == os.getpid()]


@pytest.mark.slow
def test_more_workers_than_there_is_room_for(session, checkpoint, tmp_path):
    recordings(tmp_path / "in", 1)
    with pytest.raises(WavedistillError, match="3 workers need as many CPUs, but Ray has 2"):
        execution = ExecutionConfig(engine="ray", workers=3)
        synthesize(tmp_path / "in", checkpoint, tmp_path / "out", execution=execution)


@pytest.mark.slow
def test_the_command_starts_a_ray_of_its_own_and_ends_it(checkpoint, tmp_path, monkeypatch, capsys):
    ray = pytest.importorskip("ray", reason='pip install -e ".[ray]"')
    ray.shutdown()  # the one of the tests before
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    recordings(tmp_path / "in", 2)
    command = ["synthesize", str(tmp_path / "in"), "--checkpoint", str(checkpoint), "--device", "cpu"]
    assert cli.main([*command, "--out", str(tmp_path / "rays"), "--engine", "ray", "--workers", "1"]) == 0
    assert "2 written" in capsys.readouterr().out
    assert not ray.is_initialized()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert cli.main([*command, "--out", str(tmp_path / "local")]) == 0
    assert outputs(tmp_path / "rays") == outputs(tmp_path / "local")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--engine", "ray", "--shard", "0/2"], "leave out --shard"),
        (["--engine", "ray", "--device", "cuda:0"], "cuda:0"),
        (["--engine", "ray", "--workers", "0"], "at least one worker"),
        (["--workers", "2"], "--engine ray"),
    ],
)
def test_options_that_do_not_go_together(options, message, capsys, monkeypatch):
    monkeypatch.setattr("wavedistill.inference.batch.ray_engine._import_ray", lambda: None)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert cli.main([*COMMAND, *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message", [(["--shard", "0/2"], "leave --shard out"), (["--engine", "ray"], "torchrun")]
)
def test_options_that_do_not_go_with_torchrun(options, message, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main([*COMMAND, *options]) == 2
    assert message in capsys.readouterr().err


def test_without_ray_the_error_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    assert cli.main([*COMMAND, "--engine", "ray"]) == 2
    assert 'pip install "wavedistill[ray]"' in capsys.readouterr().err
