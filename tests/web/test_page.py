"""The demo page: its endpoints through gradio_client, and the page itself in a real headless Chromium."""

from __future__ import annotations

import re
import shutil
import socket

import numpy as np
import pytest
import soundfile
import torch
from helpers.web_browser import click, free_port, open_options, opened

from wavedistill.assets import web_path
from wavedistill.audio.io import load_audio, save_audio, to_int16
from wavedistill.errors import WavedistillError
from wavedistill.models.parallel_wavenet import ParallelWaveNet, ParallelWaveNetConfig
from wavedistill.models.pretrained import save_pretrained
from wavedistill.models.wavenet import WaveNet, WaveNetConfig
from wavedistill.nn.wavenet_stack import StackConfig

STACK = StackConfig(num_layers=2, num_cycles=1, channels=8, skip_channels=8)
EXAMPLE = web_path() / "examples" / "english.flac"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, str]:
    """Tiny untrained models, one of each role."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints")
    small = {"stack": STACK, "cond_channels": 8}
    models = {
        "student": ParallelWaveNet(ParallelWaveNetConfig(num_flows=1, **small)),
        "teacher": WaveNet(WaveNetConfig(linear_order=0, **small)),
        "free": WaveNet(WaveNetConfig(mel=None, linear_order=0, **small)),
    }
    return {name: str(save_pretrained(model, folder / name)) for name, model in models.items()}


@pytest.fixture(scope="module")
def address(app, checkpoints, outside):
    served = app.launch(free_port(), list(checkpoints.values()), block=False, quiet=True)
    yield served.address
    served.close()


@pytest.fixture
def client(address, tmp_path, monkeypatch):
    import huggingface_hub
    from gradio_client import Client

    # the client (not the page) asks the hub which agents there are, to name one in its user-agent header
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    return Client(address, verbose=False, analytics_enabled=False, download_files=str(tmp_path / "downloads"))


def synthesize(client, checkpoints, recording=EXAMPLE, seed=0):
    from gradio_client import handle_file

    return client.predict(
        recording=handle_file(str(recording)),
        student=checkpoints["student"],
        seed=seed,
        temperature=1.0,
        speaker=None,
        api_name="/synthesize",
    )


def test_synthesize_gives_original_and_student_at_their_true_levels(client, checkpoints):
    original, caption, student, speed, picture = synthesize(client, checkpoints)
    recorded = to_int16(load_audio(EXAMPLE, 16000)[0])
    heard, rate = soundfile.read(original, dtype="int16")
    assert rate == 16000
    assert np.array_equal(heard, recorded), "the player must not change the level"
    spoken, rate = soundfile.read(student, dtype="int16")
    assert rate == 16000 and spoken.any()
    assert len(spoken) == -(-len(recorded) // 256) * 256
    assert f"{len(recorded) / 16000:.2f} s at 16 kHz" in caption
    assert re.search(r"[\d.,]+ × real time", speed)
    assert picture["type"] == "matplotlib" and picture["plot"].startswith("data:image/")


def test_the_seed_decides_the_audio(client, checkpoints):
    first, again, other = (soundfile.read(synthesize(client, checkpoints, seed=seed)[2])[0] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_teacher_speaks_an_excerpt_of_the_same_recording(client, checkpoints):
    synthesize(client, checkpoints)
    excerpt, caption, _, comparison = client.predict(
        teacher=checkpoints["teacher"],
        seconds=0.1,
        seed=0,
        temperature=1.0,
        speaker=None,
        api_name="/teacher",
    )
    audio, rate = soundfile.read(excerpt)
    assert len(audio) == 0.1 * rate // 256 * 256
    assert "sample by sample" in caption and "times as fast" in comparison


def test_teacher_without_a_student_before_it_says_so(client, checkpoints):
    with pytest.raises(Exception, match="let the student speak first"):
        client.predict(
            teacher=checkpoints["teacher"],
            seconds=0.1,
            seed=0,
            temperature=1.0,
            speaker=None,
            api_name="/teacher",
        )


def test_sample_from_an_unconditional_model(client, checkpoints):
    sound, caption, picture = client.predict(
        checkpoint=checkpoints["free"], seconds=0.1, seed=0, temperature=1.0, speaker=None, api_name="/sample"
    )
    audio, rate = soundfile.read(sound)
    assert (len(audio), rate) == (1600, 16000)
    assert "0.10 s of audio" in caption and picture["type"] == "matplotlib"


def test_speaker_is_asked_for_only_where_models_know_some(app, checkpoints, tmp_path):
    torch.manual_seed(1)
    config = WaveNetConfig(mel=None, linear_order=0, stack=STACK, cond_channels=8, speakers=["anna", "ben"])
    model = WaveNet(config)
    for parameter in model.parameters():  # untrained, the conditions have no effect yet
        torch.nn.init.normal_(parameter, std=0.1)
    named = str(save_pretrained(model, tmp_path / "named"))
    act = app.actions.Actions(app.models.Models([named, checkpoints["free"]]))
    assert act.models.speakers == ["anna", "ben"]
    anna, ben, first = (act.sample(named, 0.05, 0, 1.0, name)[0][1] for name in ("anna", "ben", None))
    assert not np.array_equal(anna, ben)
    assert np.array_equal(anna, first)
    assert len(act.sample(checkpoints["free"], 0.05, 0, 1.0, "ben")[0][1]) == 800


def test_loudest_stretch_is_found_and_drawn_in_its_place(app):
    audio = torch.zeros(2560)
    audio[1024:1536] = 0.5
    mel = torch.arange(10.0).repeat(4, 1)
    first, part = app.actions.loudest(mel, audio, 256, 512)
    assert first == 4
    assert part.tolist() == mel[:, 4:6].tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: save_audio(path, torch.zeros(16000), 16000), "silent"),
        (lambda path: save_audio(path, 0.5 * torch.ones(3), 16000), "too short"),
        (lambda path: save_audio(path, 0.1 * torch.ones(30 * 16000), 16000), "at most 20 s"),
        (lambda path: path.write_text("this is no audio at all " * 50), "not readable as audio"),
        (lambda path: path.write_bytes(b""), "empty"),
    ],
    ids=["silent", "three-samples", "too-long", "text", "empty"],
)
def test_bad_recordings_are_refused_in_words(client, checkpoints, tmp_path, make, message):
    path = tmp_path / "recording.wav"
    make(path)
    with pytest.raises(Exception, match=message) as caught:
        synthesize(client, checkpoints, path)
    assert str(tmp_path) not in str(caught.value) and "/gradio/" not in str(caught.value)


def test_no_recording_is_refused_in_words(client, checkpoints):
    with pytest.raises(Exception, match="no recording yet"):
        client.predict(
            recording=None,
            student=checkpoints["student"],
            seed=0,
            temperature=1.0,
            speaker=None,
            api_name="/synthesize",
        )


def test_uploads_above_the_limit_are_refused(client, checkpoints, tmp_path):
    path = tmp_path / "large.wav"
    path.write_bytes(bytes(21_000_000))
    with pytest.raises(Exception, match="413|size|large"):
        synthesize(client, checkpoints, path)


def test_only_the_loopback_address_answers(address):
    port = int(address.rstrip("/").rsplit(":", 1)[1])
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5)


def test_a_taken_port_and_a_missing_checkpoint_are_user_errors(app, checkpoints, address, tmp_path):
    port = int(address.rstrip("/").rsplit(":", 1)[1])
    with pytest.raises(WavedistillError, match=f"port {port}"):
        app.launch(port, [checkpoints["student"]], block=False)
    with pytest.raises(WavedistillError):
        app.build_demo([tmp_path / "nothing"])


def endpoints(demo) -> set[str]:
    return set(demo.get_api_info()["named_endpoints"])


def test_tabs_are_usable_only_with_what_they_need(app, checkpoints, monkeypatch):
    assert "/sample" not in endpoints(app.build_demo([checkpoints["student"]]))
    assert endpoints(app.build_demo([checkpoints["free"]])) == {"/sample", "/playground"}
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(app, "tts_is_installed", lambda: False)
    assert endpoints(app.build_demo(list(checkpoints.values()))) == {
        "/synthesize",
        "/teacher",
        "/sample",
        "/score",
        "/morph",
        "/morph_step",
        "/playground",
    }


@pytest.fixture
def page(address, browser):
    with opened(browser, address) as page:
        open_options(page)
        page.get_by_label("number input for Teacher excerpt (s)").fill("0.1")  # 1600 samples, one by one
        yield page


def test_page_synthesises_an_example(page, outside):
    click(page, "Italian")
    page.get_by_text("italian.flac").or_(page.get_by_text("0:04")).first.wait_for()
    click(page, "Synthesise")
    page.get_by_text("3.74 s at 16 kHz").wait_for()  # the Italian clip, not the English one that stood there
    page.get_by_text("all samples in one pass").wait_for()
    page.get_by_text("times as fast").wait_for()
    picture = page.locator("#mels img")
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 600
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert outside == []


def test_page_samples_and_streams(page):
    page.get_by_role("tab", name="Sample").click()
    page.get_by_label("number input for Length (s)").fill("0.1")
    click(page, "Sample")
    page.get_by_text("0.10 s of audio").wait_for()
    page.locator("#sample-mel img").wait_for()
    if shutil.which("ffmpeg") is None:
        assert page.get_by_role("tab", name="Stream").count() == 0
        return
    page.get_by_role("tab", name="Stream").click()
    click(page, "Stream")
    page.get_by_text("3.14 s of 3.14 s").wait_for()
    page.wait_for_function("[...document.querySelectorAll('audio')].some(a => a.currentTime > 0.2)")


def test_page_shows_what_is_wrong_with_an_upload(page, tmp_path):
    silent = save_audio(tmp_path / "silent.wav", torch.zeros(16000), 16000)
    page.get_by_label("Clear").locator("visible=true").first.click()
    page.locator("input[type=file]").first.set_input_files(str(silent))
    page.get_by_text("0:01").first.wait_for()
    click(page, "Synthesise")
    page.get_by_text("the recording: silent").wait_for()


def test_page_records_from_the_microphone(page):
    page.get_by_label("Clear").locator("visible=true").first.click()
    page.get_by_label("Record audio").locator("visible=true").first.click()
    page.get_by_role("button", name="Record", exact=True).locator("visible=true").click()
    page.wait_for_timeout(1500)  # the fake microphone beeps once a second
    page.get_by_role("button", name="Stop", exact=True).locator("visible=true").click()
    page.get_by_label("Play").locator("visible=true").first.wait_for()
    click(page, "Synthesise")
    page.get_by_text("all samples in one pass").wait_for()


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (8, 7), (64, 8)])
def test_a_core_is_left_to_the_browser(app, monkeypatch, cores, threads):
    chosen = []
    monkeypatch.setattr(app.os, "cpu_count", lambda: cores)
    monkeypatch.setattr(app.torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(app.torch, "set_num_threads", chosen.append)
    app._leave_a_core()
    assert chosen == [threads]
