"""What visitors with bad intent, or behind a reverse proxy, get from the demo page."""

from __future__ import annotations

import json
import os
import re
import socket
import tempfile
import threading
from urllib.parse import quote

import httpx
import pytest
from helpers.reverse_proxy import reverse_proxy
from helpers.tiny_models import speech_like, tiny_student
from helpers.web_browser import click, free_port, opened

from wavedistill.assets import web_path
from wavedistill.audio.io import save_audio
from wavedistill.errors import WavedistillError
from wavedistill.models.pretrained import save_pretrained

EXAMPLE = web_path() / "examples" / "english.flac"
PREFIX = "/voice"


@pytest.fixture(scope="module")
def visitor(served):
    with httpx.Client(base_url=served.address, timeout=60) as visitor:
        yield visitor


def uploaded(visitor: httpx.Client, name: str = "speech.flac", content: bytes | None = None) -> str:
    content = EXAMPLE.read_bytes() if content is None else content
    answer = visitor.post("gradio_api/upload", files={"files": (name, content)})
    assert answer.status_code == 200, answer.text
    return answer.json()[0]


def asked(visitor: httpx.Client, path: str, student: str) -> str:
    """What the page answers to a synthesis of the file at ``path`` on its machine."""
    recording = {"path": path, "meta": {"_type": "gradio.FileData"}}
    begun = visitor.post("gradio_api/call/synthesize", json={"data": [recording, student, 0, 1.0, None]})
    if begun.status_code != 200:
        return begun.text
    return visitor.get(f"gradio_api/call/synthesize/{begun.json()['event_id']}").text


def test_a_recording_is_spoken(visitor, student):
    assert "event: complete" in asked(visitor, uploaded(visitor), student)


SECRETS = ["/etc/passwd", "/proc/self/environ", "../../../../etc/passwd", "~/.ssh/id_rsa", "file:///etc/passwd"]


@pytest.mark.parametrize("door", ["file=", "gradio_api/file=", "gradio_api/file/", "static/", "assets/", "svelte/"])
def test_no_file_of_the_machine_is_served(visitor, tmp_path, door):
    mine = tmp_path / "mine.wav"
    mine.write_bytes(b"secret")
    known = [*SECRETS, str(mine), str(web_path() / "app.py"), os.getcwd(), "pyproject.toml", "."]
    once = [quote(path, safe="") for path in known]
    for path in known + once + [quote(path, safe="") for path in once]:
        answer = visitor.get(f"{door}{path}")
        assert answer.status_code >= 300, (path, answer.text[:200])
        assert "root:" not in answer.text and "secret" not in answer.text


def test_no_file_of_the_machine_is_a_recording(visitor, student, tmp_path):
    mine = save_audio(tmp_path / "mine.wav", speech_like(1.0), 8000)
    inside = uploaded(visitor)
    folder = inside.rpartition("/")[0]
    for path in [*SECRETS, str(mine), str(EXAMPLE.parent / "nothing.flac"), f"{folder}/../../../..{mine}"]:
        answer = asked(visitor, path, student)
        assert "only what was uploaded" in answer or "no such file" in answer, (path, answer)
    assert "only what was uploaded" in asked(visitor, folder, student)
    assert "no such file" in asked(visitor, f"{folder}/other.flac", student)


@pytest.mark.parametrize(
    "settings", [["abc", 1.0, None], [1e400, 1.0, None], [-5, 1.0, None], [0, {}, None], [0, 99, None], [0], []]
)
def test_what_cannot_be_taken_is_refused_in_words(visitor, student, settings):
    """Gradio's own refusals as well as the page's."""
    data = [{"path": uploaded(visitor), "meta": {"_type": "gradio.FileData"}}, student, *settings]
    content = json.dumps({"data": data})
    begun = visitor.post(
        "gradio_api/call/synthesize", content=content, headers={"content-type": "application/json"}
    ).json()
    told = visitor.get(f"gradio_api/call/synthesize/{begun['event_id']}").text
    assert "event: error" in told and json.loads(told.partition("data: ")[2])["error"]


def test_the_sessions_of_a_crowd_are_forgotten(app, student, monkeypatch):
    """Gradio keeps about 0.2 MB for each visitor that has ever asked; only the last ones are kept here."""
    monkeypatch.setattr(app, "MAX_SESSIONS", 3)
    served = app.launch(free_port(), [student], block=False, quiet=True)
    try:
        with httpx.Client(base_url=served.address, timeout=60) as visitor:
            for _ in range(6):
                begun = visitor.post("gradio_api/call/synthesize", json={"data": [None, student, 0, 1.0, None]})
                assert "event: error" in visitor.get(f"gradio_api/call/synthesize/{begun.json()['event_id']}").text
        assert len(served.demo.state_holder.session_data) == 3
    finally:
        served.close()


@pytest.mark.parametrize("name", ["../../../tmp/evil.wav", "/etc/evil.wav", "a\x00b.wav", "x" * 300 + ".wav"])
def test_names_of_uploads_lead_nowhere(visitor, name):
    where = uploaded(visitor, name)
    assert visitor.post("gradio_api/upload", files={"files": ("..", b"x")}).status_code == 400
    root = os.environ.get("GRADIO_TEMP_DIR") or os.path.join(tempfile.gettempdir(), "gradio")
    assert os.path.realpath(where).startswith(os.path.realpath(root) + os.sep)


def test_the_outputs_of_others_cannot_be_guessed(visitor):
    """Their folder's name is a hash of 256 bits; neither folders nor sessions can be listed."""
    first, second = uploaded(visitor, content=b"a" * 100), uploaded(visitor, content=b"b" * 100)
    folders = [path.split("/")[-2] for path in (first, second)]
    assert folders[0] != folders[1] and all(re.fullmatch(r"[0-9a-f]{64}", folder) for folder in folders)
    root = first.rpartition("/")[0].rpartition("/")[0]
    for path in (root, f"{root}/", f"{root}/{folders[0]}", f"{root}/*/speech.flac", f"{root}/{'0' * 64}/speech.flac"):
        assert visitor.get(f"gradio_api/file={path}").status_code >= 400
    for guess in ("0", "0" * 32):
        with pytest.raises(httpx.RemoteProtocolError):  # Gradio begins an answer, and has none
            visitor.get(f"gradio_api/call/synthesize/{guess}")


def test_no_checkpoint_is_loaded_by_its_path(app, served, visitor, student, tmp_path):
    other = str(save_pretrained(tiny_student(seed=1), tmp_path / "other"))
    recording = uploaded(visitor)
    for name in (other, "speech-student", "someone/voice", "../student", ["a"], None, {"path": other}):
        answer = asked(visitor, recording, name)
        assert "event: error" in answer or "detail" in answer, (name, answer)
    with pytest.raises(WavedistillError, match="offers no model"):
        served.models.vocoder(other)
    assert set(served.models._loaded) <= {student}


@pytest.fixture
def listener():
    """A server of another address that notes who comes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        came = []
        threading.Thread(target=lambda: came.append(server.accept()), daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/x.wav", came


def test_the_server_fetches_nothing_from_other_hosts(visitor, student, listener, outside):
    """Neither of this machine nor of the world: nothing is even looked up."""
    near, came = listener
    for url in (near, "http://example.com/x.wav", "HTTPS://example.com/x.wav", " https://example.com/x.wav"):
        for door in ("file=", "file/", "proxy="):
            assert visitor.get(f"gradio_api/{door}{url}").status_code >= 400
            assert visitor.get(f"gradio_api/{door}{quote(url, safe='')}").status_code >= 400
        assert "fetches nothing from other hosts" in asked(visitor, url, student)
        escaped = json.dumps({"data": [{"path": url, "meta": {"_type": "gradio.FileData"}}, student, 0, 1.0, None]})
        escaped = escaped.replace("http", "\\u0068ttp")
        assert visitor.post("gradio_api/call/synthesize", content=escaped.encode()).status_code == 400
    assert visitor.post("gradio_api/run-history/connect", json={"bucket_id": "a/b"}).status_code >= 400
    assert came == [] and outside == []


def test_there_is_no_way_around_the_queue_and_no_endless_request(visitor, student):
    answer = visitor.post("gradio_api/run/synthesize", json={"data": [None, student, 0, 1.0, None]})
    assert answer.status_code >= 400 and "does not accept direct" in answer.text
    assert visitor.post("gradio_api/call/synthesize", content=b'"' + b"x" * 2_000_000).status_code == 413
    for nonsense in (b"", b"{", b"[" * 100_000, b'{"data": 1}', b'{"data": []}'):
        assert visitor.post("gradio_api/call/synthesize", content=nonsense).status_code >= 400


def test_page_works_below_a_prefix(app, student, outside, browser):
    port = free_port()
    served = app.launch(free_port(), [student], root_path=PREFIX, block=False, quiet=True)
    try:
        with reverse_proxy(port, PREFIX, served.address) as address, opened(browser, address) as page:
            page.set_default_timeout(120_000)
            files = []
            page.on("response", lambda answer: files.append(answer.status) if "/file=" in answer.url else None)
            click(page, "Italian")
            page.get_by_text("italian.flac").or_(page.get_by_text("0:04")).first.wait_for()
            click(page, "Synthesise")
            page.get_by_text("all samples in one pass").wait_for()
            page.get_by_label("Play").locator("visible=true").first.wait_for()
            assert files and set(files) <= {200, 206}
    finally:
        served.close()
