"""Recording or mel -> speech with an exported voice, by numpy and onnxruntime alone: neither torch nor wavedistill is
imported.

    wavedistill export speech-student --out student.onnx        # once, where wavedistill is installed
    pip install numpy onnxruntime soundfile                     # where it is to speak
    python synthesize.py student.onnx recording.wav speech.wav

`log_mel` equals wavedistill.LogMelSpectrogram. The ONNX file tells its settings.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
import onnxruntime
import soundfile


def hz_to_mel(hz: np.ndarray, scale: str) -> np.ndarray:
    if scale == "htk":
        return 2595.0 * np.log10(1.0 + hz / 700.0)
    return np.where(hz < 1000.0, hz * 3.0 / 200.0, 15.0 + 27.0 * np.log(np.maximum(hz, 1.0) / 1000.0) / np.log(6.4))


def mel_to_hz(mel: np.ndarray, scale: str) -> np.ndarray:
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * np.exp(np.log(6.4) * (mel - 15.0) / 27.0))


def mel_filters(config: dict) -> np.ndarray:
    """Triangles (n_fft // 2 + 1, n_mels)."""
    scale = config["mel_scale"]
    bins = np.linspace(0.0, config["sample_rate"] // 2, config["n_fft"] // 2 + 1)
    ends = hz_to_mel(np.array([config["f_min"], config["f_max"]]), scale)
    corners = mel_to_hz(np.linspace(*ends, config["n_mels"] + 2), scale)
    distance = corners[None] - bins[:, None]
    width = np.diff(corners)
    rising = -distance[:, :-2] / width[:-1]
    falling = distance[:, 2:] / width[1:]
    filters = np.maximum(0.0, np.minimum(rising, falling))
    return filters * 2.0 / (corners[2:] - corners[:-2]) if config["norm"] == "slaney" else filters


def log_mel(audio: np.ndarray, config: dict) -> np.ndarray:
    """Audio (samples,) in [-1, 1] at the model's rate -> natural-log mel (n_mels, frames), float32."""
    n_fft = config["n_fft"]
    hop = config["hop_length"]
    win = config["win_length"]
    if config["centered"]:
        left = right = n_fft // 2
    else:
        audio = np.pad(audio, (0, -len(audio) % hop))
        left = (n_fft - hop) // 2
        right = n_fft - hop - left
    most = len(audio) - 1  # what can be reflected; zeros beyond
    padded = np.pad(audio.astype(np.float64), (min(left, most), min(right, most)), mode="reflect")
    padded = np.pad(padded, (max(left - most, 0), max(right - most, 0)))
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(win) / win)
    window = np.pad(hann, ((n_fft - win) // 2, n_fft - win - (n_fft - win) // 2))
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
    magnitude = np.abs(np.fft.rfft(frames * window)) ** config["power"]
    return np.log(np.maximum(magnitude @ mel_filters(config), config["floor"])).T.astype(np.float32)


def load(path: str, threads: int = 0) -> tuple[onnxruntime.InferenceSession, dict]:
    """The network, and the settings it carries: model_type, sample_rate, hop_length, mel, speakers."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session, json.loads(session.get_modelmeta().custom_metadata_map["wavedistill"])


def synthesize(
    session: onnxruntime.InferenceSession,
    settings: dict,
    mel: np.ndarray,
    seed: int = 0,
    temperature: float = 1.0,
    speaker: int = 0,
) -> np.ndarray:
    """Mel (n_mels, frames) -> audio (frames * hop_length,)."""
    samples = mel.shape[-1] * settings["hop_length"]
    noise = np.random.default_rng(seed).standard_normal((1, 1, samples), dtype=np.float32)
    inputs = {"noise": temperature * noise, "mel": mel[None].astype(np.float32)}
    if settings["speakers"]:
        inputs["speaker"] = np.array([speaker], dtype=np.int64)
    return session.run(["audio"], inputs)[0][0, 0]


def arguments(model: str, description: str) -> argparse.ArgumentParser:
    """What the scripts of this folder are told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("model", help=model)
    parser.add_argument(
        "input", help="wav, flac or ogg file at the model's sample rate; or a mel (n_mels, frames) as .npy"
    )
    parser.add_argument("output", help="wav file")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument("--temperature", type=float, default=1.0, help="scale of the noise")
    parser.add_argument("--speaker", default="0", help="index or name, for a model with speakers")
    parser.add_argument("--threads", type=int, default=0, help="threads (0: as onnxruntime likes)")
    return parser


def read_speaker(given: str, names: list[str]) -> int:
    """Index of a speaker given by index or name; 0 for a model without speakers."""
    if names and given not in names and not (given.isdecimal() and int(given) < len(names)):
        sys.exit(f"error: there is no speaker {given}: give 0..{len(names) - 1} or one of {', '.join(names)}")
    return names.index(given) if given in names else int(given)


def read_mel(path: str, settings: dict) -> tuple[np.ndarray, int | None]:
    """Mel (n_mels, frames) of a file, and the samples of the recording, if it is one."""
    rate = settings["sample_rate"]
    length = None
    if settings["mel"] is None:
        sys.exit("error: this model takes no mel, only noise; this script is for voices that do")
    if path.endswith(".npy"):
        mel = np.load(path)
    else:
        audio, given = soundfile.read(path, dtype="float32", always_2d=True)
        if given != rate or not len(audio):
            sys.exit(
                f"error: {path} has {len(audio)} samples at {given} Hz; needed is speech at {rate} Hz: "
                f"ffmpeg -i IN -ar {rate} OUT.wav"
            )
        mel = log_mel(audio.mean(1), settings["mel"])
        length = len(audio)
    if mel.ndim != 2 or mel.shape[0] != settings["mel"]["n_mels"]:
        sys.exit(f"error: the mel's shape is {mel.shape}; needed is ({settings['mel']['n_mels']}, frames)")
    return mel, length


def main() -> None:
    parser = arguments(
        "ONNX file written by `wavedistill export`", "Recording or mel -> speech with an exported voice."
    )
    args = parser.parse_args()
    session, settings = load(args.model, args.threads)
    speaker = read_speaker(args.speaker, settings["speakers"])
    mel, length = read_mel(args.input, settings)
    speech = synthesize(session, settings, mel, args.seed, args.temperature, speaker)[:length]
    soundfile.write(args.output, np.clip(speech, -1.0, 1.0), settings["sample_rate"], subtype="PCM_16")


if __name__ == "__main__":
    main()
