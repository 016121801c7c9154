"""Invertible convolutions along time: causal, with a triangular Jacobian, and circular, diagonal for each frequency.

References:
    Emerging Convolutions for Generative Normalizing Flows (Hoogeboom et al., 2019), https://arxiv.org/abs/1901.11137
    MaCow: Masked Convolutional Generative Flow (Ma et al., 2019), https://arxiv.org/abs/1902.04208
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from wavedistill.errors import WavedistillError
from wavedistill.flows.transform import Transform, require_sizes
from wavedistill.nn.masked_conv import MaskedConv1d
from wavedistill.numerics import full_precision, log_positive


class CausalConvolution(Transform):
    """y_t = d * (x_t + sum_k A_k x_{t - k dilation}), k = 0 .. kernel_size - 1, A_0 strictly lower triangular.

    log|det| = samples * sum_c log d_c, d > 0: in the order of samples, and of channels inside a sample, the Jacobian is
    triangular. A is a `MaskedConv1d` of type A with every channel a group of its own.

    The inverse is the recursive filter x_t = y_t / d - sum_k A_k x_{t - k dilation}, run block by block: inside a block
    it is one triangular matrix, the same for all blocks, inverted once. It is exact, but a filter that is not
    minimum-phase has an inverse that grows exponentially, and rounding errors with it. ``max_gain`` < 1 excludes that:
    it bounds the sum of |A| over all taps and inputs of each output, so that |x| <= max |y / d| / (1 - max_gain) at all
    times. The layer begins near the identity, far below 1.

    Args:
        dim: channels.
        kernel_size: taps, the present sample among them.
        dilation: samples between taps.
        anticausal: look into the future instead of the past. A causal and an anticausal layer in turn have the
            receptive field of an ordinary convolution: an emerging convolution.
        max_gain: bound on the gain of A; None: no bound.

    Shapes: (batch, dim, samples). Step by step.

    References:
        Emerging Convolutions for Generative Normalizing Flows (Hoogeboom et al., 2019),
            https://arxiv.org/abs/1901.11137, section 3.1
        MaCow: Masked Convolutional Generative Flow (Ma et al., 2019), https://arxiv.org/abs/1902.04208

    Example:
        >>> import torch
        >>> from wavedistill.flows import CausalConvolution, Compose
        >>> emerging = Compose(CausalConvolution(2, 3), CausalConvolution(2, 3, anticausal=True))
        >>> x = torch.randn(4, 2, 100)
        >>> y, log_det = emerging.forward(x)
        >>> bool(torch.allclose(emerging.inverse(y).value, x, atol=1e-5))
        True
    """

    ranks = (3,)

    def __init__(
        self, dim: int, kernel_size: int, dilation: int = 1, anticausal: bool = False, max_gain: float | None = None
    ) -> None:
        super().__init__()
        require_sizes(self, dim=dim, kernel_size=kernel_size, dilation=dilation)
        if max_gain is not None and not 0 < max_gain < 1:
            raise WavedistillError(f"CausalConvolution needs a max_gain between 0 and 1, got {max_gain}.")
        self.dim = dim
        self.anticausal = anticausal
        self.max_gain = max_gain
        self.mixing = MaskedConv1d(dim, dim, kernel_size, "A", dilation, num_groups=dim, bias=False)
        with torch.no_grad():
            self.mixing.weight.mul_(0.1)
        self.block = min(
            64, max(16, 512 // dim)
        )  # samples: larger ones mean fewer steps of the inverse and larger matrices
        self.raw_scale = nn.Parameter(torch.zeros(dim))  # d; see wavedistill.numerics

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        kernel, log_scale = self._kernel()
        dilation = self.mixing.dilation[0]
        with torch.autocast(x.device.type, enabled=False):
            values, kernel = _same_precision(self._in_time(x), kernel)
            padded = nn.functional.pad(values, ((kernel.shape[-1] - 1) * dilation, 0))
            mixed = values + nn.functional.conv1d(padded, kernel, dilation=dilation)
            return self._in_time(mixed * torch.exp(log_scale)), log_scale.expand_as(x)

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        kernel, log_scale = self._kernel()
        with torch.autocast(y.device.type, enabled=False):
            values, kernel = _same_precision(self._in_time(y), kernel)
            values = values * torch.exp(-log_scale)
            x = _by_phase(values, self.mixing.dilation[0], lambda part: _solve_blocks(part, kernel, self.block))
            return self._in_time(x), -log_scale.expand_as(y)

    def _kernel(self) -> tuple[Tensor, Tensor]:
        """A (dim, dim, taps), oldest first, and log d (dim, 1)."""
        kernel = full_precision(self.mixing.masked_weight())
        log_scale = log_positive(full_precision(self.raw_scale))
        if self.max_gain is not None:
            gain = kernel.abs().sum((1, 2), keepdim=True)
            kernel = kernel * (self.max_gain / gain.clamp_min(self.max_gain))
        return kernel, log_scale.unsqueeze(-1)

    def _in_time(self, x: Tensor) -> Tensor:
        return x.flip(-1) if self.anticausal else x


def _by_phase(x: Tensor, dilation: int, function: Callable[[Tensor], Tensor]) -> Tensor:
    """A dilated filter is ``dilation`` filters without, each over every dilation-th sample."""
    if dilation == 1:
        return function(x)
    batch, channels, samples = x.shape
    padded = nn.functional.pad(x, (0, -samples % dilation))
    steps = padded.shape[-1] // dilation
    phases = (
        padded.reshape(batch, channels, steps, dilation).permute(0, 3, 1, 2).reshape(batch * dilation, channels, steps)
    )
    phases = function(phases).reshape(batch, dilation, channels, steps).permute(0, 2, 3, 1)
    return phases.reshape(batch, channels, steps * dilation)[..., :samples]


def _solve_blocks(y: Tensor, kernel: Tensor, block: int) -> Tensor:
    """x with x_t + sum_k A_k x_{t-k} = y_t, A_0 strictly lower triangular.

    With x and y of one block as vectors, samples outside, channels inside, the equation is L x + P past = y: L unit
    lower triangular and made of the A's, P the reach of the last ``order`` samples into the block. L^-1 y is one
    product for all blocks; what remains in sequence is the product of L^-1 P with the past.
    """
    batch, channels, samples = y.shape
    order = kernel.shape[-1] - 1
    block = max(block, order)
    blocks = -(-samples // block)
    row = torch.arange(block, device=y.device)[:, None]
    column = torch.arange(order + block, device=y.device)[None, :]
    lag = row + order - column  # of the samples [past, block]
    taps = kernel.flip(-1)[..., lag.clamp(0, order)] * ((lag >= 0) & (lag <= order)).to(kernel)
    matrix = taps.permute(2, 0, 3, 1).reshape(block * channels, (order + block) * channels)
    past_matrix, lower = matrix.split([order * channels, block * channels], dim=1)
    identity = torch.eye(block * channels, dtype=y.dtype, device=y.device)
    solved = torch.linalg.solve_triangular(
        identity + lower, torch.cat([identity, past_matrix], dim=1), upper=False, unitriangular=True
    )
    from_block, from_past = solved.T.split([block * channels, order * channels])

    padded = nn.functional.pad(y, (0, blocks * block - samples))
    vectors = (
        padded.reshape(batch, channels, blocks, block).permute(0, 2, 3, 1).reshape(batch, blocks, block * channels)
    )
    free = vectors @ from_block
    outputs = [free[:, :1]]
    for index in range(1, blocks):
        past = outputs[-1][..., (block - order) * channels :]
        outputs.append(free[:, index : index + 1] - past @ from_past)
    x = torch.cat(outputs, dim=1).reshape(batch, blocks, block, channels).permute(0, 3, 1, 2)
    return x.reshape(batch, channels, blocks * block)[..., :samples]


class CircularConvolution(Transform):
    """y = sum_k W_k x_{t-k} on a circle of time: one matrix product for each frequency of the Fourier transform.

    log|det| = sum over all samples' frequencies of log|det W(frequency)|, for any number of samples; a kernel longer
    than the signal wraps around. The inverse divides frequency by frequency. No phase is excluded: unlike a causal
    filter, one that is not minimum-phase has a stable inverse, but a zero at a frequency has none.

    Args:
        dim: channels.
        kernel_size: taps; the kernel begins near the identity, at tap 0.

    Shapes: (batch, dim, samples).

    Raises:
        WavedistillError: if W is singular to the precision of its type at a frequency of this length (compiled code
            does not look).

    References:
        Invertible Convolutional Flow (Karami et al., 2019), NeurIPS 32
        Emerging Convolutions for Generative Normalizing Flows (Hoogeboom et al., 2019),
            https://arxiv.org/abs/1901.11137, section 3.2

    Example:
        >>> import torch
        >>> from wavedistill.flows import CircularConvolution
        >>> layer = CircularConvolution(2, kernel_size=5)
        >>> x = torch.randn(4, 2, 101)
        >>> y, log_det = layer.forward(x)
        >>> bool(torch.allclose(layer.inverse(y).value, x, atol=1e-5))
        True
    """

    ranks = (3,)

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__()
        require_sizes(self, dim=dim, kernel_size=kernel_size)
        self.dim = dim
        weight = 0.1 / math.sqrt(dim * kernel_size) * torch.randn(dim, dim, kernel_size)
        weight[..., 0] += torch.eye(dim)
        self.weight = nn.Parameter(weight)

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        return self._filter(x, 1, lambda matrices, spectrum: matrices @ spectrum)

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        return self._filter(y, -1, lambda matrices, spectrum: torch.linalg.solve_ex(matrices, spectrum)[0])

    def _filter(self, x: Tensor, sign: int, apply: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """``apply`` to the matrices (frequencies, dim, dim) and the spectra (frequencies, dim, batch)."""
        samples = x.shape[-1]
        with torch.autocast(x.device.type, enabled=False):
            x, weight = _same_precision(x, self.weight)
            matrices, log_det = self._spectrum(weight, samples)
            if len(x):  # no Fourier transform of nothing
                spectrum = apply(matrices, torch.fft.rfft(x).permute(2, 1, 0))
                x = torch.fft.irfft(spectrum.permute(2, 1, 0), n=samples)
            return x, sign * log_det.expand(len(x))

    def _spectrum(self, weight: Tensor, samples: int) -> tuple[Tensor, Tensor]:
        """W at the frequencies 0 .. samples // 2, (frequencies, dim, dim), and log|det| of the whole map, ()."""
        wrapped = nn.functional.pad(weight, (0, -weight.shape[-1] % samples)).unflatten(-1, (-1, samples)).sum(-2)
        matrices = torch.fft.rfft(wrapped).permute(2, 0, 1)
        log_dets = torch.linalg.slogdet(matrices).logabsdet
        if not torch.compiler.is_compiling():
            # Hadamard: |det| is at most the product of the rows' gains
            largest = weight.detach().abs().sum((1, 2)).log().sum()
            rounding = math.log(4 * self.dim * torch.finfo(weight.dtype).eps)
            singular = ~(log_dets.detach() > largest + rounding)
            if bool(singular.any() & ~largest.isnan()):
                first = int(singular.nonzero()[0])
                raise WavedistillError(
                    f"CircularConvolution(dim={self.dim}) has no inverse for {samples} samples: its kernel is "
                    f"singular at frequency {first}/{samples}."
                )
        twice = torch.full(
            (len(log_dets),), 2.0, dtype=log_dets.dtype, device=log_dets.device
        )  # the conjugate half of the spectrum
        alone = torch.arange(len(log_dets), device=log_dets.device) * 2 % samples == 0
        return matrices, (torch.where(alone, 1.0, twice) * log_dets).sum()


def _same_precision(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the wider of their types, float32 at least."""
    dtype = torch.promote_types(full_precision(x).dtype, full_precision(weight).dtype)
    return x.to(dtype), weight.to(dtype)
