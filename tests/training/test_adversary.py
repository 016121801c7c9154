"""Discriminators, their terms of the loss, and their part in the training loop."""

from __future__ import annotations

import json
import signal
import sys
import types
from pathlib import Path

import pytest
import torch
from helpers.adversarial_toy import AdversarialToy
from helpers.paths import HELPERS
from helpers.processes import run
from helpers.tiny_models import FRONTS, MEL, speech_batch, speech_like, tiny_student, tiny_teacher
from helpers.training_toy import ToyBatch, ToyDataset, ToyModelConfig, ToyTask, assert_same_training, recipe, save_toy

from wavedistill.audio.io import save_audio
from wavedistill.config import from_dict, to_dict
from wavedistill.data.dataset import Batch, DataConfig
from wavedistill.data.manifest import Entry, write_manifest
from wavedistill.distributed import Ranks
from wavedistill.errors import WavedistillError
from wavedistill.losses.adversarial import feature_distance, random_crops
from wavedistill.losses.distillation import ADVERSARIAL_TERMS, DistillationConfig
from wavedistill.models.pretrained import load_pretrained, save_pretrained
from wavedistill.nn.discriminators import DiscriminatorConfig, Discriminators
from wavedistill.training import StudentRecipe, distill_student
from wavedistill.training.adversary import Adversary
from wavedistill.training.checkpoint import load_newest_state, load_state, state_path
from wavedistill.training.config import OptimConfig, RunConfig
from wavedistill.training.distill import DistillTask
from wavedistill.training.loop import fit
from wavedistill.training.meter import Meter
from wavedistill.training.signals import TrainingInterrupted

SMALL = DiscriminatorConfig(periods=(2, 3), resolutions_ms=(10.0, 25.0), channels=2, segment_seconds=0.1)
CPU = torch.device("cpu")


def loss_config(**weights: float) -> DistillationConfig:
    return DistillationConfig(weights=weights or dict.fromkeys(ADVERSARIAL_TERMS, 1.0), discriminator=SMALL)


def real_task(**weights: float) -> DistillTask:
    front = FRONTS["mel-prediction"]
    return DistillTask(tiny_student(front=front), tiny_teacher(front=front), loss_config(**weights)).train()


def real_batch() -> Batch:
    audio, mel = speech_batch(2, 30)
    return Batch(audio[:, 0], mel, torch.full((2, 30), 120.0))


# ---- discriminators


def test_judgements_cover_every_period_and_resolution_and_any_length():
    discriminators = Discriminators(SMALL, 8000)
    for samples in (801, 1024):
        judgement = discriminators(speech_batch(2, 20)[0][:, 0, :samples])
        assert len(judgement.scores) == 4 and all(score.shape[0] == 2 and score.ndim == 2 for score in judgement.scores)
        assert len(judgement.features) == 4 * 5


def test_a_period_discriminator_judges_each_phase_alone():
    member = Discriminators(DiscriminatorConfig(periods=(5,), resolutions_ms=(), channels=2), 8000)
    wave = torch.randn(1, 500, generator=torch.Generator().manual_seed(0))
    changed = wave.clone()
    changed[:, 2::5] += 1.0
    scores = [member(x).scores[0].view(-1, 5) for x in (wave, changed)]
    moved = (scores[0] != scores[1]).any(dim=0)
    assert moved.tolist() == [False, False, True, False, False]


def test_discriminators_learn_to_tell_a_toy_pair_apart():
    torch.manual_seed(0)

    class Pair:
        """Tones against noise of the same power."""

        discriminators = Discriminators(DiscriminatorConfig(**to_dict(SMALL) | {"lr": 1e-2}), 8000)

        def discriminate(self, batch):
            fakes = self.discriminators(0.2 * torch.randn_like(batch.audio)).scores
            reals = self.discriminators(batch.audio).scores
            self.gap = min((r.mean() - f.mean()).item() for r, f in zip(reals, fakes, strict=True))
            return sum((r - 1).square().mean() + f.square().mean() for r, f in zip(reals, fakes, strict=True)), {}

    pair = Pair()
    adversary = Adversary(pair, "fp32", CPU, Ranks())
    batch = Batch(torch.stack([speech_like(0.1, 8000, seed=seed) for seed in range(4)]))
    for step in range(100):
        assert adversary.step([batch], [step], 1.0, Meter())
    assert pair.gap > 0.5, "every single discriminator tells them apart"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"periods": (), "resolutions_ms": ()}, "at least one of periods and resolutions_ms"),
        ({"periods": (2, 0)}, "discriminator.periods must be above 0, got 2, 0"),
        ({"lr": 0.0}, "discriminator.lr must be above 0"),
    ],
)
def test_impossible_discriminators_are_refused(options, message):
    with pytest.raises(WavedistillError, match=message):
        DiscriminatorConfig(**options)


# ---- terms


def test_no_discriminators_without_a_term_that_asks_them():
    assert real_task(kl=1.0, stft=1.0).discriminators is None
    for name in ADVERSARIAL_TERMS:
        task = real_task(**{name: 1.0})
        assert task.discriminators is not None
        assert set(ADVERSARIAL_TERMS) & set(task(real_batch(), 0)[1]) == {name}


def test_the_students_step_reaches_all_of_the_student_and_nothing_of_the_discriminators():
    task = real_task()
    task(real_batch(), 0)[0].backward()
    untouched = [name for name, p in task.model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert all(name.startswith("pitch.") for name in untouched), (
        untouched
    )  # the pitch predictor learns from its own term alone
    assert all(p.grad is None for p in task.discriminators.parameters())


def test_the_discriminators_step_reaches_all_of_them_and_nothing_of_the_student():
    task = real_task()
    student = {name: p.detach().clone() for name, p in task.model.named_parameters()}
    before = {name: p.detach().clone() for name, p in task.discriminators.named_parameters()}
    meter = Meter()
    assert Adversary(task, "fp32", CPU, Ranks()).step([real_batch()], [0], 1.0, meter)
    assert all(p.grad is None and torch.equal(p, student[name]) for name, p in task.model.named_parameters())
    same = [name for name, p in task.discriminators.named_parameters() if torch.equal(p, before[name])]
    assert not same
    assert not any(p.requires_grad for p in task.discriminators.parameters())
    assert meter.flush(Ranks()).keys() == {"discriminator_loss", "real_score", "fake_score", "discriminator_grad_norm"}


def test_feature_matching_vanishes_for_the_recording_and_both_see_the_same_crop():
    loss = real_task().loss
    audio = real_batch().audio
    made, real = random_crops(audio, audio, loss.crop_length)
    assert made.shape == (2, 800) and torch.equal(made, real)
    features = [loss.discriminators(crop).features for crop in (made, real)]
    assert float(feature_distance(*features)) == 0.0
    starts = {float(random_crops(audio, audio, loss.crop_length).made[0, 0]) for _ in range(20)}
    assert len(starts) > 5


def test_the_adversarial_terms_move_the_student_towards_the_recordings():
    """Against discriminators that tell its audio from recordings, some steps of the student raise its scores."""
    task = real_task(adversarial=1.0)
    batch = real_batch()
    adversary = Adversary(task, "fp32", CPU, Ranks())
    for step in range(15):
        adversary.step([batch], [step], 50.0, Meter())
    optimizer = torch.optim.Adam([p for n, p in task.model.named_parameters() if not n.startswith("pitch.")], lr=1e-2)

    def step() -> float:
        torch.manual_seed(0)
        loss, values = task(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(values["adversarial"])

    values = [step() for _ in range(15)]
    assert values[-1] < 0.95 * values[0]


# ---- the loop, on a toy


@pytest.fixture
def toy_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wavedistill.models.pretrained", types.SimpleNamespace(save_pretrained=save_toy))


def assert_same_adversary(one: Path, other: Path, exactly: bool = True) -> None:
    states = [load_state(state_path(folder, 10))["adversary"] for folder in (one, other)]
    leaves = [torch.utils._pytree.tree_flatten(state)[0] for state in states]
    assert len(leaves[0]) == len(leaves[1]) > 20
    tolerance = {"rtol": 0.0, "atol": 0.0} if exactly else {"rtol": 1e-4, "atol": 1e-6}
    torch.testing.assert_close(leaves[0], leaves[1], **tolerance)


@pytest.mark.usefixtures("toy_checkpoints")
@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"precision": "bf16"}], ids=["plain", "accumulate", "bf16"])
def test_resumed_equals_uninterrupted_bitwise(tmp_path: Path, options: dict):
    fit(AdversarialToy(), ToyDataset(), ToyDataset(), recipe(tmp_path / "whole", **options))
    with pytest.raises(TrainingInterrupted):
        fit(
            AdversarialToy(signals={4: signal.SIGTERM}),
            ToyDataset(),
            ToyDataset(),
            recipe(tmp_path / "parts", **options),
        )
    fit(AdversarialToy(), ToyDataset(), ToyDataset(), recipe(tmp_path / "parts", **options))
    assert_same_training(tmp_path / "whole", tmp_path / "parts", kinds=("train",))
    assert_same_adversary(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.usefixtures("toy_checkpoints")
def test_two_ranks_equal_one(tmp_path: Path):
    script = HELPERS / "adversarial_toy.py"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    fit(AdversarialToy(noise=0.0), ToyDataset(), ToyDataset(), recipe(tmp_path / "one"))
    two = run(*torchrun, str(script), str(tmp_path / "two"), "0")
    assert two.returncode == 0, two.stderr
    assert_same_adversary(tmp_path / "one", tmp_path / "two", exactly=False)
    states = [load_newest_state(tmp_path / name)["model"] for name in ("one", "two")]
    torch.testing.assert_close(*states, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("toy_checkpoints")
def test_a_discriminator_that_is_not_finite_stops_the_run_and_keeps_the_batch(tmp_path: Path):
    class Poisoned(AdversarialToy):
        def discriminate(self, batch: ToyBatch):
            loss, values = super().discriminate(batch)
            return loss * (float("nan") if self.calls.append(1) or len(self.calls) == 7 else 1.0), values

    task = Poisoned()
    task.calls = []
    with pytest.raises(WavedistillError, match="not finite at step 6.*nonfinite-batch.pt"):
        fit(task, ToyDataset(), ToyDataset(), recipe(tmp_path))
    state = load_newest_state(tmp_path)
    assert state["step"] == 5 and all(torch.isfinite(t).all() for t in state["adversary"]["discriminators"].values())


@pytest.mark.usefixtures("toy_checkpoints")
def test_a_run_keeps_its_discriminators(tmp_path: Path):
    fit(ToyTask(ToyModelConfig()), ToyDataset(), ToyDataset(), recipe(tmp_path / "plain", steps=5))
    assert "adversary" not in load_newest_state(tmp_path / "plain")
    with pytest.raises(WavedistillError, match="no discriminators until now.*--run.init_from"):
        fit(AdversarialToy(), ToyDataset(), ToyDataset(), recipe(tmp_path / "plain"))
    fit(AdversarialToy(), ToyDataset(), ToyDataset(), recipe(tmp_path / "with", steps=5))
    other = DiscriminatorConfig(periods=(2,), resolutions_ms=(), channels=2)
    with pytest.raises(WavedistillError, match="the discriminators differ"):
        fit(AdversarialToy(config=other), ToyDataset(), ToyDataset(), recipe(tmp_path / "with"))


# ---- the loop, on a tiny student


def test_a_last_stage_starts_from_all_of_a_trained_students_weights(tmp_path: Path):
    entries = []
    for number in range(4):
        path = save_audio(tmp_path / f"{number}.wav", speech_like(1.0, seed=number), 8000)
        entries.append(
            Entry(
                id=str(number), audio=str(path), duration=1.0, speaker="tone", split="valid" if number > 2 else "train"
            )
        )
    write_manifest(tmp_path / "manifest.jsonl", entries)
    teacher = tiny_teacher()
    student = tiny_student()
    save_pretrained(teacher, tmp_path / "teacher")
    save_pretrained(student, tmp_path / "student")
    weights = {"kl": 0.05, "stft": 1.0, "adversarial": 4.0, "feature_matching": 1.0}
    options = StudentRecipe(
        model=student.config,
        data=DataConfig(str(tmp_path / "manifest.jsonl"), segment_seconds=0.2, batch_size=2),
        loss=from_dict(
            DistillationConfig, {"weights": weights, "discriminator": to_dict(SMALL), "allow_weak_teacher": True}
        ),
        optim=OptimConfig(lr=1e-12, warmup_steps=1),
        run=RunConfig(
            dir=str(tmp_path / "last"),
            device="cpu",
            steps=2,
            log_every=1,
            validate_every=2,
            validate_batches=1,
            sample_every=2,
            save_every=2,
            precision="bf16",
            wandb="off",
            init_from=str(tmp_path / "student"),
        ),
        teacher=str(tmp_path / "teacher"),
    )
    made = load_pretrained(distill_student(options)).state_dict()
    assert made.keys() == student.state_dict().keys(), "a checkpoint holds no discriminator"
    for name, weight in student.state_dict().items():
        torch.testing.assert_close(made[name], weight, rtol=0, atol=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "last" / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["train", "train", "valid"] and MEL.sample_rate == 8000
    assert all(
        {*ADVERSARIAL_TERMS, "discriminator_loss", "real_score", "fake_score"} <= line.keys() for line in lines[:2]
    )
    assert all(set(ADVERSARIAL_TERMS) <= line.keys() for line in lines[2:])
