"""The page's endpoints: their names, arguments and results, and what web/README.md says of them."""

from __future__ import annotations

import re

import pytest
import soundfile
from helpers.paths import ROOT
from helpers.tiny_models import STACK, shaken
from helpers.web_browser import free_port

from wavedistill.assets import bundled_checkpoints
from wavedistill.models.pretrained import save_pretrained
from wavedistill.models.wavenet import WaveNet, WaveNetConfig

README = (ROOT / "web" / "README.md").read_text()


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory) -> str:
    model = shaken(WaveNet, WaveNetConfig(mel=None, linear_order=0, stack=STACK, cond_channels=8), 0)
    return str(save_pretrained(model, tmp_path_factory.mktemp("checkpoints") / "free"))


@pytest.fixture(scope="module")
def served(app, outside, unconditional, monkeypatch_module):
    monkeypatch_module.setattr(app.shutil, "which", lambda name: "/usr/bin/" + name)  # with the tab that needs ffmpeg
    served = app.launch(free_port(), [*bundled_checkpoints(), unconditional], block=False, quiet=True)
    yield served
    served.close()


@pytest.fixture(scope="module")
def client(served, tmp_path_factory, monkeypatch_module):
    import huggingface_hub
    from gradio_client import Client

    # the client (not the page) asks the hub which agents there are, to name one in its user-agent header
    monkeypatch_module.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    downloads = str(tmp_path_factory.mktemp("downloads"))
    return Client(served.address, verbose=False, analytics_enabled=False, download_files=downloads)


@pytest.fixture(scope="module")
def endpoints(client) -> dict[str, dict]:
    return client.view_api(return_format="dict", print_info=False)["named_endpoints"]


def test_every_argument_and_result_has_a_name(client, endpoints):
    for name, endpoint in endpoints.items():
        named = [part["label"] for part in endpoint["parameters"] + endpoint["returns"]]
        assert not [label for label in named if re.match(r"(value|parameter)_\d+$", label)], name
        results = [part["label"] for part in endpoint["returns"]]
        assert len(results) == len(set(results)), name
    printed = client.view_api(return_format="str", print_info=False)
    assert "value_" not in printed
    assert 'predict(recording, student, seed, temperature, speaker, api_name="/synthesize") -> ' in printed


def test_readme_lists_the_endpoints_as_they_are(endpoints):
    _, _, table = README.partition("| endpoint | arguments | results |\n| --- | --- | --- |\n")
    told = table.partition("\n\n")[0].splitlines()
    rows = []
    for name, endpoint in endpoints.items():
        arguments = ", ".join(f"`{part['parameter_name']}`" for part in endpoint["parameters"])
        results = ", ".join(part["label"] for part in endpoint["returns"])
        rows.append(f"| `{name}` | {arguments} | {results} |")
    assert sorted(told) == sorted(rows)


def test_endpoints_are_those_of_the_tabs_that_are_there(app, endpoints):
    named = set(app.build_demo().get_api_info()["named_endpoints"])
    assert named == set(endpoints) - {"/sample"}


def test_readme_s_snippet_runs(served, outside, tmp_path, monkeypatch, capsys):
    import gradio_client
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.chdir(ROOT)
    downloads = str(tmp_path)
    client = gradio_client.Client
    monkeypatch.setattr(
        gradio_client, "Client", lambda address: client(address, verbose=False, download_files=downloads)
    )
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(snippets) == 1
    values = {}
    exec(snippets[0].replace("http://127.0.0.1:7860", served.address), values)  # noqa: S102
    printed = capsys.readouterr().out
    assert "× real time" in printed and "guitar: E4" in printed
    assert soundfile.info(values["student"]).duration == pytest.approx(3.14, abs=0.01)
    assert soundfile.info(values["sound"]).duration == pytest.approx(1.5)
    assert outside == []
