"""``wavedistill info``: what a checkpoint is, from its configuration and its card."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from wavedistill.cli.options import checkpoint_help
from wavedistill.config import to_dict

if TYPE_CHECKING:
    from wavedistill.models.base import WaveformModel

SUMMARY = "say what a checkpoint is"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="DIR|NAME", help=checkpoint_help())


def run(args: argparse.Namespace) -> None:
    from wavedistill.models.card import read_card
    from wavedistill.models.pretrained import WEIGHTS_FILE, load_pretrained, resolve_checkpoint, title

    folder = resolve_checkpoint(args.checkpoint)
    model = load_pretrained(folder)
    card = read_card(folder)
    size = sum(p.numel() for p in model.parameters())
    print(f"{args.checkpoint}: {title(model)}, {size / 1e6:.2f} M parameters, {model.sample_rate} Hz")
    print(f"folder: {folder} ({(folder / WEIGHTS_FILE).stat().st_size / 1e6:.1f} MB)")
    facts = {
        "languages": ", ".join(card.languages),
        "speakers": ", ".join(model.config.speakers) or card.speakers,
        "licence": card.licence,
        "credit": card.credit,
        "density": f"exact, of {'any waveform' if model.role != 'student' else 'what it makes'} as it is heard",
        "look-ahead of a stream": _look_ahead(model, low_latency=False),
        "look-ahead in low latency": _look_ahead(model, low_latency=True) if model.role == "student" else "",
        "measured": card.measured,
        "card": card.path,
    }
    _print_fields({name: value for name, value in facts.items() if value})
    _print_fields(to_dict(model.config))


def _look_ahead(model: WaveformModel, low_latency: bool) -> str:
    """By how much a stream lags behind its mel, and each stage's part; nothing for a model without mel."""
    if model.config.mel is None:
        return ""
    stages = model.look_ahead(low_latency)
    total = stages.pop("in all")
    return f"{total:.0f} ms ({', '.join(f'{name} {ms:.0f}' for name, ms in stages.items())})"


def _print_fields(values: dict[str, Any], indent: str = "") -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            print(f"{indent}{name}:")
            _print_fields(value, indent + "  ")
        else:
            print(f"{indent}{name}: {value}")
