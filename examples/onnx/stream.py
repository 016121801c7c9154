"""Recording or mel -> speech chunk by chunk with an exported stream, by numpy and onnxruntime alone: neither torch nor
wavedistill is imported.

    wavedistill export speech-student --stream --out student-stream     # once, where wavedistill is installed
    pip install numpy onnxruntime soundfile                             # where it is to speak
    python stream.py student-stream recording.wav speech.wav

`stream` takes the mel in blocks as an acoustic model makes them and yields audio as soon as it is final. From one seed
the audio is that of synthesize.py, which lies beside this file.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
from synthesize import arguments, load, read_mel, read_speaker

Graphs = dict[str, onnxruntime.InferenceSession]


def load_stream(folder: str, threads: int = 0) -> tuple[Graphs, dict]:
    """The graphs start, step and end, and the settings they carry: those of synthesize.py's file, and "stream"."""
    names = ("start", "step", "end")
    missing = [f"{name}.onnx" for name in names if not (Path(folder) / f"{name}.onnx").is_file()]
    if missing:
        sys.exit(
            f"error: {folder} is no stream, {missing[0]} is missing: wavedistill export NAME --stream --out FOLDER"
        )
    loaded = {name: load(str(Path(folder) / f"{name}.onnx"), threads) for name in names}
    return {name: graph for name, (graph, _) in loaded.items()}, loaded["start"][1]


def stream(
    graphs: Graphs,
    settings: dict,
    blocks: Iterable[np.ndarray],
    seed: int = 0,
    temperature: float = 1.0,
    speaker: int = 0,
) -> Iterator[np.ndarray]:
    """Yield the audio (samples,) of a mel in blocks (n_mels, any number of frames) as it becomes final."""
    random = np.random.default_rng(seed)
    state: list[np.ndarray] = []

    def run(part: str, mel: np.ndarray) -> np.ndarray:
        samples = mel.shape[1] * settings["hop_length"]
        noise = random.standard_normal((1, 1, samples), dtype=np.float32)
        inputs = {"noise": np.float32(temperature) * noise, "mel": mel[None].astype(np.float32)}
        if settings["speakers"]:
            inputs["speaker"] = np.array([speaker], dtype=np.int64)
        inputs |= {f"state_{index}": value for index, value in enumerate(state)}
        audio, *state[:] = graphs[part].run(None, inputs)
        return audio[0, 0]

    part = "start"
    frames = settings["stream"]["first_frames"]
    held = np.empty((settings["mel"]["n_mels"], 0), np.float32)
    for block in blocks:
        held = np.concatenate([held, block], axis=1)
        while held.shape[1] >= frames:
            yield run(part, held[:, :frames])
            held = held[:, frames:]
            part = "step"
            frames = settings["stream"]["chunk_frames"]
    if part == "start":
        seconds = frames * settings["hop_length"] / settings["sample_rate"]
        raise ValueError(
            f"the mel has {held.shape[1]} frames, and the stream starts with {frames} ({seconds:.2f} s): synthesize it "
            "in one pass (synthesize.py), or export the stream with --low-latency or a shorter --chunk"
        )
    yield run("end", held)


def main() -> None:
    parser = arguments("folder written by `wavedistill export --stream`", "Recording or mel -> speech, chunk by chunk.")
    args = parser.parse_args()
    graphs, settings = load_stream(args.model, args.threads)
    speaker = read_speaker(args.speaker, settings["speakers"])
    mel, length = read_mel(args.input, settings)
    left = total = mel.shape[1] * settings["hop_length"] if length is None else length
    chunks = stream(graphs, settings, [mel], args.seed, args.temperature, speaker)
    begun = time.perf_counter()
    try:
        first = next(chunks)
    except ValueError as error:
        sys.exit(f"error: {error}")
    waited = time.perf_counter() - begun
    with soundfile.SoundFile(args.output, "w", settings["sample_rate"], 1, subtype="PCM_16") as file:
        for chunk in itertools.chain([first], chunks):
            file.write(np.clip(chunk[:left], -1.0, 1.0))
            left -= min(left, len(chunk))
    seconds = total / settings["sample_rate"]
    print(
        f"{seconds:.2f} s of speech, the first after {1000 * waited:.0f} ms, at "
        f"{seconds / (time.perf_counter() - begun):.1f} times real time; it lags "
        f"{settings['stream']['look_ahead_ms']:.0f} ms behind its mel"
    )


if __name__ == "__main__":
    main()
