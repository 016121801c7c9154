import torch

from wavedistill.kernels.block_gate import block_gate


def test_it_is_the_gate_after_the_offset_of_the_block():
    generator = torch.Generator().manual_seed(0)
    gates = 4.0 * torch.randn(2, 12, 10, generator=generator)
    for blocks in (1, 3, 12):
        offsets = torch.randn(2, blocks, 10, generator=generator)
        filters, openings = (gates + offsets.repeat_interleave(12 // blocks, 1)).double().chunk(2, -1)
        expected = torch.tanh(filters) * torch.sigmoid(openings)
        torch.testing.assert_close(block_gate(gates, offsets).double(), expected, atol=1e-6, rtol=0)


def test_what_is_not_a_number_stays_so():
    gates = torch.zeros(1, 2, 4)
    gates[0, 1, 2] = torch.nan
    assert torch.isnan(block_gate(gates, torch.zeros(1, 1, 4))).tolist() == [[[False, False], [True, False]]]
