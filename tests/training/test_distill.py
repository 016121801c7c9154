import pytest
import torch
from helpers.tiny_models import FRONTS, speech_batch, tiny_student, tiny_teacher

from wavedistill.data.dataset import Batch, DataConfig, Utterance
from wavedistill.errors import WavedistillError
from wavedistill.losses.distillation import DistillationConfig
from wavedistill.nn.wavenet_stack import StackConfig
from wavedistill.training import StudentRecipe
from wavedistill.training.config import RunConfig
from wavedistill.training.distill import DistillTask, check_teacher, inherit
from wavedistill.training.runs import warn_of_short_crops


class OneClip:
    """A dataset of one utterance, as far as the tasks need one."""

    def utterances(self):
        audio, mel = speech_batch(1, 60)
        yield Utterance("clip", audio[0, 0], mel[0], None, None, None)

    def batch(self, step, batch_size, seed):
        audio, mel = speech_batch(2, 30, seed=step)
        return Batch(audio[:, 0], mel, torch.full((2, 30), 120.0))


def test_student_starts_from_the_teachers_conditioning_network():
    student = tiny_student()
    teacher = tiny_teacher()
    assert inherit(student, teacher) == ["conditioning"]
    _, mel = speech_batch(1, 5)
    torch.testing.assert_close(student.features(mel, None), teacher.features(mel, None))
    assert not inherit(tiny_student(cond_channels=6), teacher)
    assert not inherit(tiny_student(mel=None, source_order=0), tiny_teacher(mel=None))


def test_student_starts_from_another_students_pitch_and_conditioning():
    student = tiny_student(patch_size=4)
    donor = tiny_student(seed=1, num_flows=1)
    assert inherit(student, donor) == ["conditioning", "pitch"]
    _, mel = speech_batch(1, 12)
    assert torch.equal(student.pitch(mel), donor.pitch(mel))


def test_teacher_stays_frozen_and_in_eval_mode():
    task = DistillTask(tiny_student(), tiny_teacher(), DistillationConfig(weights={"kl": 1.0})).train()
    assert task.model.training and not task.loss.teacher.training
    loss, _ = task(OneClip().batch(0, 2, 0), 0)
    loss.backward()
    assert all(p.grad is None for p in task.loss.teacher.parameters())
    assert any(p.grad is not None for p in task.model.parameters())


def test_validation_is_the_same_every_time_and_samples_are_as_long_as_the_originals():
    task = DistillTask(tiny_student(), tiny_teacher(), DistillationConfig(weights={"kl": 1.0, "stft": 1.0})).eval()
    with torch.no_grad():
        first, second = (torch.manual_seed(0) and task.validate(OneClip(), 2) for _ in range(2))
        samples = task.samples(OneClip())
    assert first == second and {"loss", "kl", "stft", "entropy"} <= set(first)
    assert [len(sample.audio) for sample in samples] == [60 * 64, 60 * 64]


def test_gate_refuses_a_teacher_worse_than_linear_prediction():
    with pytest.raises(WavedistillError, match="linear prediction .*allow_weak_teacher"):
        check_teacher(tiny_teacher(front=FRONTS["none"]), OneClip(), "weak")


def test_crops_shorter_than_the_past_that_a_student_sees_are_told(caplog):
    student = tiny_student(stack=StackConfig(9, 1, 2, 8, 8))
    recipe = StudentRecipe(model=student.config, data=DataConfig("data"), run=RunConfig(dir="run"))
    for seconds, said in (
        (student.receptive_field / 8000 - 0.01, True),
        (student.receptive_field / 8000 + 0.02, False),
    ):
        caplog.clear()
        recipe.data.segment_seconds = seconds
        warn_of_short_crops(recipe, student)
        assert ("speech longer than the crops may come out too quiet" in caplog.text) is said
