"""Causal and circular convolutions."""

from helpers.flow_case import Case, shake

from wavedistill.flows import CausalConvolution, CircularConvolution, Compose


def small_blocks(layer: CausalConvolution) -> CausalConvolution:
    """Several blocks in a short signal."""
    layer.block = 4
    return layer


CASES = {
    "causal-convolution": Case(lambda: small_blocks(shake(CausalConvolution(2, 3))), (2, 11), triangular="lower"),
    "causal-convolution-one": Case(
        lambda: small_blocks(shake(CausalConvolution(1, 4, max_gain=0.2))), (1, 13), triangular="lower"
    ),
    "emerging-convolution": Case(
        lambda: shake(Compose(CausalConvolution(2, 3, dilation=2), CausalConvolution(2, 2, anticausal=True))), (2, 12)
    ),
    "circular-convolution": Case(lambda: shake(CircularConvolution(2, 3), 0.05), (2, 12)),
    "circular-convolution-odd": Case(
        lambda: shake(CircularConvolution(1, 5), 0.05), (1, 11), events=[(1, 1), (1, 2), (1, 4)]
    ),
}
