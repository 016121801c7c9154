"""Whatever goes in comes out bit for bit: any bits, channels, lengths and signals; on other threads and processors."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers.compression import KINDS, make_pcm
from helpers.paths import ROOT

from wavedistill.applications.compression import arithmetic
from wavedistill.applications.compression.chunk import CONSTANT, MODELLED, PACKED, encode_chunk
from wavedistill.applications.compression.codec import decode, encode
from wavedistill.applications.compression.compiled import loops, new_state
from wavedistill.applications.compression.container import unpack
from wavedistill.applications.compression.least_squares import solve
from wavedistill.applications.compression.model import load_codec
from wavedistill.applications.compression.network import SYMBOLS
from wavedistill.applications.compression.pcm import Pcm
from wavedistill.applications.compression.raw_bits import LONGEST, read_value, write_value
from wavedistill.errors import WavedistillError


def round_trip(pcm: Pcm) -> int:
    """Check that decoding gives the samples again; returns the size in bytes."""
    data = encode(pcm, load_codec())
    again = decode(unpack(data, "memory"), load_codec(), "memory")
    assert np.array_equal(again.samples, pcm.samples)
    assert (again.sample_rate, again.format, again.subtype) == (pcm.sample_rate, pcm.format, pcm.subtype)
    return len(data)


def fuzz(cases: range) -> None:
    for seed in cases:
        generator = np.random.default_rng(seed)
        pcm = make_pcm(
            generator.choice(list(KINDS)),
            frames=int(generator.choice([0, 1, 2, 3, 17, 400, generator.integers(4, 700)])),
            channels=int(generator.integers(1, 3)),
            subtype=str(generator.choice(["PCM_U8", "PCM_16", "PCM_24"])),
            sample_rate=int(generator.choice([20, 35, 8000, 16000, 44100])),  # 10 s of the first are 200 samples
            seed=seed,
        )
        round_trip(pcm)


def test_50_fuzzed_round_trips():
    fuzz(range(50))


@pytest.mark.slow
def test_1000_fuzzed_round_trips():
    fuzz(range(1000, 2000))


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_signal(kind, subtype):
    pcm = make_pcm(kind, frames=300, channels=2, subtype=subtype, sample_rate=16000, seed=1)
    plain = pcm.samples.size * pcm.bits // 8
    assert round_trip(pcm) <= plain + 70, "what cannot be compressed is stored as it is"


@pytest.mark.parametrize("kind, form", [("silence", CONSTANT), ("white noise", PACKED), ("resonance", MODELLED)])
def test_the_smallest_form_is_taken(kind, form):
    pcm = make_pcm(kind, frames=2000, channels=1, subtype="PCM_16", sample_rate=16000, seed=1)
    assert encode_chunk(pcm.samples, 16, load_codec().network)[0] & 3 == form


def test_low_bits_that_are_never_used_cost_nothing():
    pcm = make_pcm("resonance", frames=500, channels=1, subtype="PCM_16", sample_rate=16000, seed=1)
    network = load_codec().network
    assert encode_chunk(pcm.samples << 8, 24, network)[1:] == encode_chunk(pcm.samples, 16, network)[1:]


def test_the_second_channel_hears_the_first():
    mono = make_pcm("resonance", frames=2000, channels=1, subtype="PCM_16", sample_rate=16000, seed=1)
    twice = Pcm(np.repeat(mono.samples, 2, axis=1), 16000, "WAV", "PCM_16")
    assert round_trip(twice) < 1.2 * round_trip(mono)


def test_code_has_the_length_that_training_makes_small():
    """The bits of the file are those of `train.code_length`, to 1 %; the first sample, a surprise, is escaped."""
    import torch

    from wavedistill.applications.compression.train import code_length

    pcm = make_pcm("resonance", frames=3000, channels=1, subtype="PCM_16", sample_rate=16000, seed=3)
    network = load_codec().network
    inputs = np.zeros((3000, network["weight_1"].shape[1]), np.float32)
    centres = np.zeros(3000)
    scales = np.zeros(3000)
    loops().observe_all(new_state(1), pcm.samples, inputs, centres, scales, -32768.0, 32767.0)
    x = torch.from_numpy(inputs)
    for number in (1, 2, 3):
        weight = torch.from_numpy(network[f"weight_{number}"][0])
        x = x @ weight + torch.from_numpy(network[f"bias_{number}"][0])
        x = x.relu() if number < 3 else x
    errors = torch.from_numpy(pcm.samples[:, 0] - centres)
    expected = code_length(x, torch.from_numpy(inputs), errors, torch.from_numpy(scales))
    assert 8 * len(encode_chunk(pcm.samples, 16, network)) == pytest.approx(
        expected.clamp(max=40).sum().item(), rel=0.01
    )


def test_probabilities_are_those_of_intervals():
    pcm = make_pcm("resonance", frames=64, channels=1, subtype="PCM_16", sample_rate=16000, seed=3)
    symbols = np.zeros(64, np.int32)
    probabilities = np.zeros((64, SYMBOLS))
    bits = np.zeros(64 * LONGEST, np.uint8)
    limits = (-32768.0, 32767.0)
    loops().encode(new_state(1), load_codec().network, pcm.samples, 0, 64, *limits, symbols, probabilities, bits, 0)
    assert np.allclose(probabilities.sum(1), 1, atol=2e-5)
    assert (probabilities > 0).all() and (symbols >= 0).all() and (symbols < SYMBOLS).all()


def test_exponential_and_logarithm():
    x = np.random.default_rng(0).uniform(-60, 60, 500)
    assert max(abs(arithmetic.exp2(v) / 2.0**v - 1) for v in x) < 1e-9
    assert max(abs(arithmetic.log2(2.0**v) - v) for v in x) < 1e-9
    assert arithmetic.exp2(math.inf) == 2.0**1000 and arithmetic.exp2(math.nan) == arithmetic.exp2(-math.inf)


def test_elimination_solves():
    generator = np.random.default_rng(0)
    factor = generator.standard_normal((9, 9))
    covariance = factor @ factor.T
    correlation = generator.standard_normal(9)
    solution = np.zeros(9)
    solve(np.triu(covariance), correlation, 0.1, 9, np.zeros((9, 9)), np.zeros(9), solution)
    assert np.allclose(solution, np.linalg.solve(covariance + 0.1 * np.eye(9), correlation))


@pytest.mark.parametrize("shift", [0, 3, 17])
def test_samples_as_symbols_and_bits(shift):
    bits = np.zeros(LONGEST, np.uint8)
    middle = SYMBOLS // 2 << shift
    for distance in (0, 1, 5, 100, 12345, 1 << 25):
        for offset in (middle + distance, middle - distance):
            symbol, written = write_value(np.int64(offset), shift, bits, 0)
            assert 0 <= symbol < SYMBOLS and read_value(symbol, shift, bits[:written], 0) == (offset, written)


def test_flushing_denormal_numbers_is_refused():
    import torch

    pcm = make_pcm("sine", frames=9, channels=1, subtype="PCM_16", sample_rate=16000, seed=1)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot")
    try:
        with pytest.raises(WavedistillError, match="denormal"):
            encode(pcm, load_codec())
    finally:
        torch.set_flush_denormal(False)


CODE = """
import sys, zlib, torch
sys.path.insert(0, "tests")
from helpers.compression import KINDS, make_pcm
from wavedistill.applications.compression.codec import decode, encode
from wavedistill.applications.compression.container import unpack
from wavedistill.applications.compression.model import load_codec

codec = load_codec()
for number, kind in enumerate(KINDS):
    pcm = make_pcm(kind, frames=400, channels=1 + number % 2, subtype="PCM_16", sample_rate=16000, seed=number)
    data = encode(pcm, codec)
    assert (decode(unpack(data, "memory"), codec, "memory").samples == pcm.samples).all()
    print(kind, zlib.crc32(data))
"""


def codes(**environment: str) -> str:
    """CRCs of the code of every kind of signal, made and decoded in another process."""
    known = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    run = subprocess.run([sys.executable, "-c", CODE], env=known, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_other_processes_with_other_threads_give_the_same_bits():
    threads = [{name: count for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")} for count in ("1", "2")]
    assert codes(**threads[0]) == codes(**threads[1]) != ""


@pytest.mark.slow
def test_a_processor_without_wide_vectors_gives_the_same_bits(tmp_path):
    """Compiled for any processor of this architecture, the loops give the bits of those compiled for this one."""
    generic = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    assert codes(**generic) == codes()
