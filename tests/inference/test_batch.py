"""Synthesis of folders: the same bytes however it is batched, sharded, stopped and started again."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers.tiny_models import MEL, speech_like, tiny_flow, tiny_student, tiny_teacher

from wavedistill import Vocoder, cli, save_audio, synthesize
from wavedistill.errors import WavedistillError
from wavedistill.inference.batch import inputs
from wavedistill.inference.batch.inputs import Input
from wavedistill.inference.batch.pipeline import input_seed
from wavedistill.inference.batch.plan import ExecutionConfig, MeasuredInput, deal, make_batches, padded_frames


@pytest.fixture(scope="module")
def voice() -> Vocoder:
    return Vocoder(tiny_student())


@pytest.fixture
def folder(tmp_path) -> Path:
    """Seven recordings and a mel, in sub-folders, of several formats, rates and lengths."""
    where = tmp_path / "in"
    for index, name in enumerate(["a.wav", "b.flac", "sub/c.ogg", "sub/d.mp3", "sub/deep/e.wav", "f.WAV"]):
        path = where / name
        save_audio(path.with_suffix(path.suffix.lower()), speech_like(0.3 + 0.1 * index, seed=index), 8000)
        if path.suffix.isupper():
            path.with_suffix(path.suffix.lower()).rename(path)
    save_audio(where / "g.wav", speech_like(0.4, 16000, seed=9), 16000)
    mel = Vocoder(tiny_student()).mel(speech_like(0.5, seed=8))
    np.save(where / "h.npy", mel.numpy().astype(np.float64))
    return where


def outputs(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.wav"))}


def audio_of(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32")[0]


def test_every_input_has_its_output(voice, folder, tmp_path):
    report = synthesize(folder, voice, tmp_path / "out")
    names = ["a.wav", "b.wav", "f.wav", "g.wav", "h.wav", "sub/c.wav", "sub/d.wav", "sub/deep/e.wav"]
    assert list(outputs(tmp_path / "out")) == names
    assert [str(path.relative_to(tmp_path / "out")) for path in report.written] == names
    assert report.failures == [] and report.skipped == []
    assert not (tmp_path / "out" / "failures.json").exists()
    assert report.seconds == pytest.approx(sum(len(audio_of(p)) for p in report.written) / 8000)


def test_lengths(voice, folder, tmp_path):
    synthesize(folder, voice, tmp_path / "out")
    assert len(audio_of(tmp_path / "out/a.wav")) == 2400
    assert len(audio_of(tmp_path / "out/g.wav")) == 3200  # 0.4 s, resampled from 16 kHz
    assert len(audio_of(tmp_path / "out/h.wav")) == np.load(folder / "h.npy").shape[1] * MEL.hop_length


@pytest.mark.parametrize("make", [tiny_student, tiny_flow])
def test_results_do_not_depend_on_the_batch(make, folder, tmp_path):
    voice = Vocoder(make())
    for name, seconds in {"alone": 1e-9, "pairs": 1.2, "together": 1e9}.items():
        synthesize(folder, voice, tmp_path / name, execution=ExecutionConfig(batch_seconds=seconds))
    for name in outputs(tmp_path / "alone"):
        alone = audio_of(tmp_path / "alone" / name)
        for other in ("pairs", "together"):
            np.testing.assert_allclose(audio_of(tmp_path / other / name), alone, atol=1.01 / 32768, err_msg=name)


def test_inputs_have_noise_of_their_own(voice, tmp_path):
    for name in "ab":
        save_audio(tmp_path / "in" / f"{name}.wav", speech_like(0.3), 8000)
    synthesize(tmp_path / "in", voice, tmp_path / "out")
    assert not np.array_equal(audio_of(tmp_path / "out/a.wav"), audio_of(tmp_path / "out/b.wav"))
    assert input_seed(0, "a") != input_seed(1, "a") != input_seed(0, "b")


def test_an_output_can_be_made_again_by_the_vocoder(voice, tmp_path):
    save_audio(tmp_path / "in" / "a.wav", speech_like(0.6), 8000)
    synthesize(tmp_path / "in", voice, tmp_path / "out", seed=3)
    alone = voice(torch.from_numpy(audio_of(tmp_path / "in" / "a.wav")), seed=input_seed(3, "a"))
    np.testing.assert_allclose(audio_of(tmp_path / "out" / "a.wav"), alone.clamp(-1, 1), atol=1.01 / 32768)


def test_rerun_skips_what_is_done_and_makes_what_is_missing_with_the_same_bytes(voice, folder, tmp_path):
    out = tmp_path / "out"
    synthesize(folder, voice, out)
    before = outputs(out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.wav")}
    for name in ("b.wav", "sub/deep/e.wav"):
        (out / name).unlink()
    report = synthesize(folder, voice, out)
    assert [str(path.relative_to(out)) for path in report.written] == ["b.wav", "sub/deep/e.wav"]
    assert len(report.skipped) == 6
    assert outputs(out) == before
    assert all(path.stat().st_mtime_ns == t for path, t in times.items() if path not in report.written)


def test_leftovers_of_a_killed_run_are_removed(voice, folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".a.wav.k1ll3d.tmp").write_bytes(b"half")
    synthesize(folder, voice, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_finished_batches_are_not_computed_again(voice, folder, tmp_path, monkeypatch):
    synthesize(folder, voice, tmp_path / "out")
    monkeypatch.setattr(Vocoder, "render", lambda *args, **options: pytest.fail("computed again"))
    assert len(synthesize(folder, voice, tmp_path / "out").skipped) == 8


@pytest.mark.parametrize("count", [2, 3, 11])
def test_shards_are_disjoint_and_together_the_whole(voice, folder, tmp_path, count):
    synthesize(folder, voice, tmp_path / "whole", execution=ExecutionConfig(batch_seconds=1.2))
    written = []
    for index in range(count):
        execution = ExecutionConfig(batch_seconds=1.2, shard=(index, count))
        written += synthesize(folder, voice, tmp_path / "shards", execution=execution).written
    assert len(written) == len(set(written)) == 8
    assert outputs(tmp_path / "shards") == outputs(tmp_path / "whole")


def test_batches_hold_every_input_once_within_the_limit():
    lengths = [5, 100, 7, 7, 30, 1, 1, 1, 60, 59]
    items = [MeasuredInput(Input(f"{i}", Path(f"{i}.wav"), Path(f"o/{i}.wav")), n) for i, n in enumerate(lengths)]
    batches = make_batches(items, 64)
    assert sorted(pair[0].name for group in batches for pair in group) == sorted(pair[0].name for pair in items)
    assert all(len(group) == 1 or len(group) * max(n for _, n in group) <= 64 for group in batches)
    assert len(batches) == 5
    assert make_batches(reversed(items), 64) == batches


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_shards_are_of_equal_cost(count):
    lengths = np.random.default_rng(0).integers(20, 700, 90).tolist()
    items = [MeasuredInput(Input(f"{i}", Path(f"{i}.wav"), Path(f"o/{i}.wav")), n) for i, n in enumerate(lengths)]
    batches = make_batches(items, 800)
    shards = deal(batches, count)
    assert sorted(pair[0].name for shard in shards for batch in shard for pair in batch) == sorted(
        pair[0].name for pair in items
    )
    loads = [sum(map(padded_frames, shard)) for shard in shards]
    assert max(loads) - min(loads) <= max(map(padded_frames, batches))
    assert deal(batches, count) == shards


def test_failures_are_listed_and_not_fatal(voice, folder, tmp_path):
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.mp3").write_text("no audio at all")
    (folder / "cut.flac").write_bytes((folder / "b.flac").read_bytes()[:900])
    save_audio(folder / "silent.wav", torch.zeros(8000), 8000)
    save_audio(folder / "three.wav", torch.ones(3) * 0.1, 8000)
    soundfile.write(folder / "nan.wav", np.full(4000, np.nan, np.float32), 8000, subtype="FLOAT")
    np.save(folder / "transposed.npy", np.load(folder / "h.npy").T)
    np.save(folder / "db.npy", np.load(folder / "h.npy") * 20)
    np.save(folder / "bands.npy", np.zeros((80, 9), np.float32) - 4)
    np.save(folder / "objects.npy", np.array([{}]), allow_pickle=True)
    (folder / "broken.npy").write_bytes(b"\x93NUMPY")
    header = (folder / "h.npy").read_bytes()
    (folder / "header.npy").write_bytes(header.replace(b"}", b"("))
    (folder / "huge.npy").write_bytes(re.sub(rb"\((\d+), (\d+)\), } {12}", rb"(\1, 9999999999999), }", header))
    broken = {
        "empty.wav",
        "text.mp3",
        "cut.flac",
        "silent.wav",
        "three.wav",
        "nan.wav",
        "transposed.npy",
        "db.npy",
        "bands.npy",
        "objects.npy",
        "broken.npy",
        "header.npy",
        "huge.npy",
    }
    report = synthesize(folder, voice, tmp_path / "out")
    assert len(report.written) == 8
    listed = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert {Path(entry["input"]).name for entry in listed} == broken == {Path(f.input).name for f in report.failures}
    assert all(
        Path(entry["input"]).name in entry["reason"] and len(entry["reason"].splitlines()) <= 2 for entry in listed
    )

    for name in broken:
        (folder / name).unlink()
    synthesize(folder, voice, tmp_path / "out")
    assert not (tmp_path / "out" / "failures.json").exists()


def test_failures_of_shards_do_not_overwrite_each_other(voice, tmp_path):
    for index in range(5):
        (tmp_path / f"in{index}").mkdir()
        (tmp_path / f"in{index}" / f"{index}.wav").write_bytes(b"")
    inputs = sorted(tmp_path.glob("in*"))
    shards = [ExecutionConfig(shard=(i, 2)) for i in range(2)]
    reports = [synthesize(inputs, voice, tmp_path / "out", execution=shard) for shard in shards]
    failed = [f.input for report in reports for f in report.failures]
    assert len(failed) == len(set(failed)) == 5
    assert sorted(p.name for p in (tmp_path / "out").glob("failures*")) == [
        "failures-0-of-2.json",
        "failures-1-of-2.json",
    ]


def test_equal_stems_keep_their_suffix(voice, tmp_path):
    save_audio(tmp_path / "in" / "a.wav", speech_like(0.2), 8000)
    save_audio(tmp_path / "in" / "a.flac", speech_like(0.3), 8000)
    save_audio(tmp_path / "in" / "b.flac", speech_like(0.3), 8000)
    synthesize(tmp_path / "in", voice, tmp_path / "out")
    assert list(outputs(tmp_path / "out")) == ["a.flac.wav", "a.wav.wav", "b.wav"]


def test_same_name_from_two_folders_is_refused(voice, tmp_path):
    save_audio(tmp_path / "x" / "a.wav", speech_like(0.2), 8000)
    save_audio(tmp_path / "y" / "a.wav", speech_like(0.2), 8000)
    with pytest.raises(WavedistillError, match="both be written"):
        synthesize([tmp_path / "x", tmp_path / "y"], voice, tmp_path / "out")


def test_the_same_input_twice_is_one_input(voice, tmp_path):
    save_audio(tmp_path / "x" / "a.wav", speech_like(0.2), 8000)
    assert len(synthesize([tmp_path / "x", tmp_path / "x" / "a.wav"], voice, tmp_path / "out").written) == 1


def test_output_inside_the_input_folder_is_no_input(voice, tmp_path):
    save_audio(tmp_path / "x" / "a.wav", speech_like(0.2), 8000)
    for _ in range(2):
        synthesize(tmp_path / "x", voice, tmp_path / "x" / "out")
    assert list(outputs(tmp_path / "x" / "out")) == ["a.wav"]


def test_inputs_are_never_overwritten(voice, tmp_path):
    save_audio(tmp_path / "a.wav", speech_like(0.2), 8000)
    before = (tmp_path / "a.wav").read_bytes()
    with pytest.raises(WavedistillError, match="overwrite an input"):
        synthesize(tmp_path / "a.wav", voice, tmp_path)
    assert (tmp_path / "a.wav").read_bytes() == before


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda p: p / "nothing", "no such file"),
        (lambda p: p, "no .wav"),
        (lambda p: [], "nothing to synthesise"),
        (lambda p: (p / "a.txt").write_text("x") and p / "a.txt", "inputs are"),
    ],
)
def test_inputs_that_are_none(voice, tmp_path, make, message):
    with pytest.raises(WavedistillError, match=message):
        synthesize(make(tmp_path), voice, tmp_path / "out")


def test_unconditional_model_is_refused(tmp_path):
    save_audio(tmp_path / "a.wav", speech_like(0.2), 8000)
    with pytest.raises(WavedistillError, match="wavedistill sample"):
        synthesize(tmp_path / "a.wav", Vocoder(tiny_student(mel=None)), tmp_path / "out")


def test_teacher_in_a_batch(tmp_path):
    for name, seconds in {"a": 0.05, "b": 0.03}.items():
        save_audio(tmp_path / "in" / f"{name}.wav", speech_like(seconds), 8000)
    voice = Vocoder(tiny_teacher())
    synthesize(tmp_path / "in", voice, tmp_path / "together")
    synthesize(tmp_path / "in", voice, tmp_path / "alone", execution=ExecutionConfig(batch_seconds=1e-9))
    for name in ("a.wav", "b.wav"):
        np.testing.assert_allclose(
            audio_of(tmp_path / "together" / name), audio_of(tmp_path / "alone" / name), atol=1.01 / 32768
        )


def test_read_only_folder_is_one_clear_error(voice, tmp_path):
    save_audio(tmp_path / "a.wav", speech_like(0.2), 8000)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WavedistillError, match="cannot be written.*--out"):
        synthesize(tmp_path / "a.wav", voice, tmp_path / "file" / "out")


def test_full_disk_is_one_clear_error_and_leaves_no_half_file(voice, folder, tmp_path, monkeypatch):
    original = os.replace
    calls = []

    def full(source, target):
        calls.append(target)
        if len(calls) > 4:  # the settings file and three outputs
            raise OSError(errno.ENOSPC, "No space left on device")
        original(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(WavedistillError, match="No space left"):
        synthesize(folder, voice, tmp_path / "out")
    monkeypatch.undo()
    files = [path for path in (tmp_path / "out").rglob("*.wav") if path.is_file()]
    assert len(files) == 3
    assert all(len(audio_of(path)) for path in files)


def test_files_that_are_too_long_are_refused(voice, tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "MAX_SECONDS", 0.5)
    save_audio(tmp_path / "a.wav", speech_like(0.6), 8000)
    report = synthesize(tmp_path / "a.wav", voice, tmp_path / "out")
    assert "at most 0.5 s" in report.failures[0].reason


@pytest.mark.slow
def test_killed_run_is_continued_to_the_same_bytes(voice, folder, tmp_path):
    voice.save_pretrained(tmp_path / "voice")
    command = [
        sys.executable,
        "-m",
        "wavedistill",
        "synthesize",
        str(folder),
        "--checkpoint",
        str(tmp_path / "voice"),
        "--batch-seconds",
        "1",
        "--out",
    ]
    process = subprocess.Popen([*command, str(tmp_path / "killed")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not outputs(tmp_path / "killed") and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {name: (tmp_path / "killed" / name).stat().st_mtime_ns for name in outputs(tmp_path / "killed")}
    assert finished
    for out in ("killed", "whole"):
        subprocess.run([*command, str(tmp_path / out)], check=True, capture_output=True)
    assert outputs(tmp_path / "killed") == outputs(tmp_path / "whole")
    assert all((tmp_path / "killed" / name).stat().st_mtime_ns == t for name, t in finished.items())


def test_a_folder_of_another_voice_or_seed_is_refused(tmp_path):
    np.save(tmp_path / "one.npy", np.full((MEL.n_mels, 6), -3.0, dtype=np.float32))
    synthesize(tmp_path / "one.npy", Vocoder(tiny_student()), tmp_path / "out", seed=1)
    assert synthesize(tmp_path / "one.npy", Vocoder(tiny_student()), tmp_path / "out", seed=1).skipped
    with pytest.raises(WavedistillError, match="another seed"):
        synthesize(tmp_path / "one.npy", Vocoder(tiny_student()), tmp_path / "out", seed=2)
    with pytest.raises(WavedistillError, match="another weights"):
        synthesize(tmp_path / "one.npy", Vocoder(tiny_student(seed=5)), tmp_path / "out", seed=1)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"engine": "ray", "shard": (0, 2)}, "leave out --shard"),
        ({"engine": "ray", "precision": "bf16"}, "bf16 is for --engine local"),
        ({"engine": "ray", "workers": 0}, "at least one worker"),
        ({"engine": "cluster"}, "no engine 'cluster': give local or ray"),
        ({"workers": 2}, "--workers is for --engine ray"),
        ({"shard": (2, 2)}, "no shard 2/2.*0/2 to 1/2"),
        ({"precision": "bf16"}, "precision bf16 is set when a model is loaded"),
    ],
)
def test_options_that_do_not_go_together_are_refused_in_python_too(voice, folder, tmp_path, options, message):
    with pytest.raises(WavedistillError, match=message):
        synthesize(folder, voice, tmp_path / "out", execution=ExecutionConfig(**options))
    assert not (tmp_path / "out").exists()


def test_a_loaded_model_is_not_given_to_ray(voice, folder, tmp_path):
    with pytest.raises(WavedistillError, match="a checkpoint's name or folder"):
        synthesize(folder, voice, tmp_path / "out", execution=ExecutionConfig(engine="ray"))


def test_a_process_of_torchrun_takes_the_shard_of_its_rank(voice, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(WavedistillError, match="torchrun deals 2 shards itself.*leave --shard out"):
        synthesize(folder, voice, tmp_path / "out", execution=ExecutionConfig(shard=(0, 2)))
    mine = synthesize(folder, voice, tmp_path / "rank").written
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    shard = synthesize(folder, voice, tmp_path / "shard", execution=ExecutionConfig(shard=(1, 2))).written
    assert [path.name for path in mine] == [path.name for path in shard]


def test_a_process_of_torchrun_without_a_gpu_of_its_own_is_told(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(WavedistillError, match="no device cuda:1 here .1 CUDA devices.: try --device cpu"):
        synthesize(folder, "speech-student", tmp_path / "out", device="cuda")


def test_torchrun_deals_the_shards(voice, folder, tmp_path):
    """Each of two processes has an input that fails, the second nothing else: no reason to end the first, but the job
    has failed.
    """
    voice.save_pretrained(tmp_path / "voice")
    for name in ("bad1.wav", "bad2.wav"):
        (folder / name).write_bytes(b"")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "-m",
        "wavedistill",
        "synthesize",
        str(folder),
        "--checkpoint",
        str(tmp_path / "voice"),
        "--out",
        str(tmp_path / "ranks"),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert run.returncode == 1, run.stderr  # of the process that had no failure, too
    assert sorted(line.split()[0] for line in run.stdout.splitlines() if " written " in line) == ["0", "8"]
    synthesize(folder, voice, tmp_path / "whole")
    assert outputs(tmp_path / "ranks") == outputs(tmp_path / "whole")
    assert len(list((tmp_path / "ranks").glob("failures-*-of-2.json"))) == 2


def test_files_with_names_and_contents_from_the_wild(voice, folder, tmp_path):
    """Each that cannot be done is listed, and the others are done: also behind links, of which a loop ends."""
    good = next(path for path in sorted(folder.rglob("*.wav")))
    content = good.read_bytes()
    wild = tmp_path / "wild"
    (wild / "sub").mkdir(parents=True)
    (wild / "good.wav").write_bytes(content)
    with open(os.fsencode(wild) + b"/caf\xe9.wav", "wb") as file:
        file.write(content)
    (wild / f"{'x' * 250}.wav").write_bytes(content)
    np.savez(wild / "archive.npz", a=np.zeros(3))
    (wild / "archive.npz").rename(wild / "archive.npy")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "linked.wav").write_bytes(content)
    (wild / "link").symlink_to(tmp_path / "elsewhere")
    (wild / "sub" / "loop").symlink_to(wild)
    report = synthesize(wild, voice, tmp_path / "out")
    assert outputs(tmp_path / "out").keys() == {"good.wav", f"{'x' * 250}.wav", "link/linked.wav"}
    reasons = {Path(failure.input).name: failure.reason for failure in report.failures}
    assert reasons.keys() == {"caf\\xe9.wav", "archive.npy"}
    assert "its name is not UTF-8: rename it" in reasons["caf\\xe9.wav"]
    assert "an archive (of numpy.savez or torch.save), not one array" in reasons["archive.npy"]
    assert len(json.loads((tmp_path / "out" / "failures.json").read_text())) == 2


def test_a_command_with_a_failure_says_so_by_its_exit_code(voice, folder, tmp_path, capsys):
    voice.save_pretrained(tmp_path / "voice")
    command = ["synthesize", str(folder), "--checkpoint", str(tmp_path / "voice"), "--out", str(tmp_path / "out")]
    assert cli.main(command) == 0
    (folder / "bad.wav").write_bytes(b"")
    assert cli.main(command) == 1
    assert "bad.wav: the file is empty" in capsys.readouterr().err


def test_a_suspicious_mel_is_told_once(voice, tmp_path, caplog):
    mel = torch.randn(MEL.n_mels, 200, generator=torch.Generator().manual_seed(0)) * 1.0 - 2.5
    np.save(tmp_path / "odd.npy", mel.clamp(-4.9, -0.1).numpy())
    report = synthesize(tmp_path / "odd.npy", voice, tmp_path / "out")
    assert len(report.written) == 1
    assert [record.getMessage().count("odd.npy looks") for record in caplog.records] == [1]
