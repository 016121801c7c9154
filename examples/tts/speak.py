"""Speak a text: python examples/tts/speak.py "The night train stopped." speech.wav [--checkpoint speech-24k]

Needs: pip install hibari-tts.
"""

import argparse
import sys

from wavedistill import Vocoder
from wavedistill.audio.io import save_audio
from wavedistill.audio.tts import PROGRAM, TextToSpeech
from wavedistill.errors import WavedistillError
from wavedistill.inference.speak import speak
from wavedistill.text import markdown_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", help="English text")
    parser.add_argument("out", help="the wav file to write")
    parser.add_argument("--checkpoint", default="speech-24k", help="the voice; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the voice's noise; default: %(default)s")
    args = parser.parse_args()
    vocoder = Vocoder.from_pretrained(args.checkpoint)
    tts = TextToSpeech()
    speak("One.", vocoder, tts)  # buffers and compiled code, which the times below should not contain
    spoken = speak(args.text, vocoder, tts, seed=args.seed)
    save_audio(args.out, spoken.audio, spoken.sample_rate)
    rows = [
        ["text to speech at 24 kHz", PROGRAM, f"{spoken.tts_seconds:.3f}"],
        ["its log-mel spectrogram", "wavedistill", f"{spoken.mel_seconds:.3f}"],
        [f"mel to waveform at {spoken.sample_rate / 1000:g} kHz", args.checkpoint, f"{spoken.voice_seconds:.3f}"],
    ]
    print(markdown_table(["part", "whose", "seconds"], rows, left=2))
    print(f"\n{len(spoken.audio) / spoken.sample_rate:.2f} s of speech: {args.out}")


if __name__ == "__main__":
    try:
        main()
    except WavedistillError as error:
        sys.exit(f"error: {error}")
