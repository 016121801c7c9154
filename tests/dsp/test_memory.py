"""Memory between chunks: what is joined and taken is what was given, in any pieces."""

from __future__ import annotations

import torch
from helpers.chunks import random_lengths

from wavedistill.dsp.memory import Past, Queue


def test_each_piece_is_joined_to_the_steps_before_it():
    x = torch.randn(2, 3, 40)
    for seed in range(5):
        past = Past(4, axis=2)
        start = 0
        for length in random_lengths(40, 9, seed):
            joined = past.join(x[..., start : start + length])
            assert torch.equal(joined, x[..., max(start - 4, 0) : start + length])
            start += length
        assert past.value.untyped_storage().nbytes() == 2 * 3 * 4 * 4, "a chunk is not kept alive"


def test_a_queue_gives_what_it_was_given():
    x = torch.randn(2, 40, 3)
    for seed in range(5):
        queue = Queue()
        taken = []
        for part in x.split(random_lengths(40, 9, seed), 1):
            queue.put(part)
            taken.append(queue.take(3))
        assert queue.steps == 40 - sum(part.shape[1] for part in taken)
        assert torch.equal(torch.cat([*taken, queue.take(40)], 1), x)
