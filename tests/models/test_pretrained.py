"""Checkpoint folders: what is saved comes back, and what does not fit is refused by name."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
import safetensors.torch
import torch
from helpers.tiny_models import MEL, tiny_flow, tiny_student, tiny_teacher

from wavedistill.assets import bundled_checkpoints
from wavedistill.errors import WavedistillError
from wavedistill.models.pretrained import load_pretrained, resolve_checkpoint, save_pretrained

MODELS = {
    "teacher": tiny_teacher,
    "unconditional teacher": lambda: tiny_teacher(mel=None),
    "teacher with speakers": lambda: tiny_teacher(speakers=("ann", "bob")),
    "student": tiny_student,
    "one-stage flow": tiny_flow,
    "reversible one-stage flow": lambda: tiny_flow(reversible=True),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_round_trip_is_exact(make, tmp_path):
    model = make()
    save_pretrained(model, tmp_path / "model")
    loaded = load_pretrained(tmp_path / "model")
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_weights_can_be_read_by_everyone(tmp_path):
    save_pretrained(tiny_student(), tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_loaded_model_makes_the_same_audio(tmp_path):
    model = tiny_student()
    save_pretrained(model, tmp_path)
    mel = torch.randn(1, MEL.n_mels, 5) - 4
    assert torch.equal(load_pretrained(tmp_path).sample(mel, seed=3), model.sample(mel, seed=3))


def test_half_precision_halves_the_file_and_loads_as_float32(tmp_path):
    model = tiny_teacher()
    save_pretrained(model, tmp_path / "full")
    save_pretrained(model, tmp_path / "half", dtype=torch.float16)
    tensors = [safetensors.torch.load_file(tmp_path / kind / "model.safetensors") for kind in ("full", "half")]
    full, half = (sum(t.numel() * t.element_size() for t in group.values()) for group in tensors)
    assert half < 0.55 * full
    loaded = load_pretrained(tmp_path / "half")
    for name, value in loaded.named_parameters():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, model.get_parameter(name), rtol=1e-3, atol=1e-6)


def test_saving_again_replaces_and_keeps_other_files(tmp_path):
    save_pretrained(tiny_teacher(seed=1), tmp_path, card="# first")
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "a.wav").write_bytes(b"x")
    model = tiny_teacher(seed=2)
    save_pretrained(model, tmp_path, card="# second")
    assert torch.equal(next(load_pretrained(tmp_path).parameters()), next(model.parameters()))
    assert (tmp_path / "README.md").read_text() == "# second"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "samples",
    ]


def test_generated_card_says_what_it_is(tmp_path):
    save_pretrained(tiny_student(), tmp_path / "my-voice")
    card = (tmp_path / "my-voice" / "README.md").read_text()
    assert "my-voice" in card and "student" in card and "8000 Hz" in card and "Vocoder.from_pretrained" in card


def test_run_folder_means_its_checkpoint(tmp_path):
    save_pretrained(tiny_teacher(), tmp_path / "run" / "checkpoint")
    assert resolve_checkpoint(tmp_path / "run") == tmp_path / "run" / "checkpoint"
    assert resolve_checkpoint(str(tmp_path / "run" / "checkpoint")) == tmp_path / "run" / "checkpoint"


def test_run_without_checkpoint_yet(tmp_path):
    (tmp_path / "config.yaml").write_text("run: {}")
    with pytest.raises(WavedistillError, match="no checkpoint yet"):
        resolve_checkpoint(tmp_path)


def test_local_names_never_ask_the_network(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    save_pretrained(tiny_teacher(), tmp_path / "model")
    load_pretrained(tmp_path / "model")
    for name in bundled_checkpoints():
        load_pretrained(name)
    monkeypatch.chdir(tmp_path)
    for mistyped in ("speech-studnt", "./a/b", "/no/such", "model/x", "a/b/c", "../x", "~/nothing-here"):
        with pytest.raises(WavedistillError, match="no checkpoint"):
            load_pretrained(mistyped)


def test_hub_id_is_downloaded_at_the_revision_that_is_asked_for_without_pickles(tmp_path, monkeypatch):
    save_pretrained(tiny_student(), tmp_path / "cache")
    asked = []

    def download(name, *, revision, allow_patterns, **options):
        asked.append((name, revision))
        assert not [file for file in allow_patterns if not file.endswith((".json", ".safetensors", ".md"))]
        return str(tmp_path / "cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    load_pretrained("someone/some-voice")
    load_pretrained("someone/some-voice@v1.2")
    assert asked == [("someone/some-voice", None), ("someone/some-voice", "v1.2")]


def test_pickled_weights_are_never_read(tmp_path):
    model = tiny_student()
    save_pretrained(model, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(WavedistillError, match="has no model.safetensors"):
        load_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "model.safetensors")
    edit_config(tmp_path, weights_sha256=None)
    with pytest.raises(WavedistillError, match="cannot be read"):
        load_pretrained(tmp_path)


def test_hub_failure_is_one_clear_error(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no connection\nand a long story")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(WavedistillError, match="no folder someone/some-voice.*no connection\\)") as caught:
        load_pretrained("someone/some-voice")
    assert len(str(caught.value).splitlines()) == 2


def test_every_bundled_checkpoint_names_its_weights():
    for name in bundled_checkpoints():
        folder = resolve_checkpoint(name)
        expected = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        assert json.loads((folder / "config.json").read_text())["weights_sha256"] == expected, name


def test_weights_of_another_hash_are_refused(tmp_path):
    save_pretrained(tiny_teacher(seed=1), tmp_path / "one")
    save_pretrained(tiny_teacher(seed=2), tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").replace(tmp_path / "one" / "model.safetensors")
    with pytest.raises(WavedistillError, match="not the file that config.json names.*\n.*copy the whole checkpoint"):
        load_pretrained(tmp_path / "one")


def test_a_checkpoint_without_a_hash_loads(tmp_path):
    model = tiny_teacher()
    save_pretrained(model, tmp_path)
    edit_config(tmp_path, weights_sha256=None)
    assert torch.equal(next(load_pretrained(tmp_path).parameters()), next(model.parameters()))


def test_a_save_that_is_cut_short_anywhere_leaves_a_checkpoint_that_loads(tmp_path, monkeypatch):
    """Each time the process dies at another rename; what is there then is the first model or the second one."""
    whole = os.replace
    models = [tiny_teacher(seed=seed) for seed in (1, 2)]
    for last in range(4):
        save_pretrained(models[0], tmp_path)
        left = iter(range(last))

        def replace(*paths, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            whole(*paths)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, "replace", replace)
            save_pretrained(models[1], tmp_path)
        found = next(load_pretrained(tmp_path).parameters())
        assert torch.equal(found, next(models[int(last > 1)].parameters()))


def tamper_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path)
    edit_config(folder, weights_sha256=None)


def first(tensors):
    return sorted(tensors)[0]


BROKEN_TENSORS = {
    "missing": (lambda t: t.pop(first(t)), "missing tensor {name}"),
    "extra": (lambda t: t.update(intruder=torch.zeros(2)), "unknown tensor intruder"),
    "shape": (lambda t: t.update({first(t): torch.zeros(3, 3, 3, 3, 3)}), "tensor {name} has shape"),
    "integers": (lambda t: t.update({first(t): t[first(t)].int()}), "tensor {name} is of type int32"),
    "nan": (lambda t: t[first(t)].fill_(float("nan")), "tensor {name} holds values that are not finite"),
}


@pytest.mark.parametrize("change, message", BROKEN_TENSORS.values(), ids=BROKEN_TENSORS.keys())
def test_tensors_that_do_not_fit_are_named(change, message, tmp_path):
    save_pretrained(tiny_teacher(), tmp_path)
    name = first(safetensors.torch.load_file(tmp_path / "model.safetensors"))
    tamper_tensors(tmp_path, change)
    with pytest.raises(WavedistillError) as caught:
        load_pretrained(tmp_path)
    assert message.format(name=name) in str(caught.value)


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"format": 2}, "format 2"),
        ({"model_type": "hifigan"}, "unknown model_type 'hifigan'"),
        ({"config": {"num_layerz": 3}}, "num_layerz"),
        ({"config": 7}, "is no wavedistill checkpoint"),
        ({"model_type": []}, "unknown model_type"),
        ({"config": {"cond_channels": -1}}, "cond_channels must be from 1 to 4096, got -1"),
        ({"config": {"stack": {"channels": 2**31}}}, "stack.channels must be from 1 to 4096"),
        ({"config": {"stack": {"num_layers": 60, "num_cycles": 1}}}, "at most 20, got 60 / 1"),
        ({"config": {"log_scale_min": float("nan")}}, "log_scale_min must be a finite number"),
        ({"config": {"stack": {"num_layers": 4096, "num_cycles": 4096, "channels": 4096}}}, "weights or more"),
    ],
)
def test_config_that_does_not_fit_is_named(changes, message, tmp_path):
    save_pretrained(tiny_teacher(), tmp_path)
    edit_config(tmp_path, **changes)
    with pytest.raises(WavedistillError, match=message):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"format": 1}'])
def test_config_that_is_none(content, tmp_path):
    save_pretrained(tiny_teacher(), tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(WavedistillError, match="config.json"):
        load_pretrained(tmp_path)


def test_truncated_and_missing_weights(tmp_path):
    save_pretrained(tiny_teacher(), tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(WavedistillError, match="broken, incomplete or replaced"):
        load_pretrained(tmp_path)
    edit_config(tmp_path, weights_sha256=None)
    with pytest.raises(WavedistillError, match="broken or incomplete"):
        load_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(WavedistillError, match="has no model.safetensors"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: p.write_text("x")], ids=["empty folder", "file"])
def test_what_is_no_checkpoint(make, tmp_path):
    make(tmp_path / "thing")
    with pytest.raises(WavedistillError, match="thing.*bundled"):
        load_pretrained(tmp_path / "thing")


def test_only_models_are_saved(tmp_path):
    with pytest.raises(WavedistillError, match="Linear is no model"):
        save_pretrained(torch.nn.Linear(1, 1), tmp_path)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WavedistillError, match="cannot write"):
        save_pretrained(tiny_teacher(), tmp_path / "file" / "model")
