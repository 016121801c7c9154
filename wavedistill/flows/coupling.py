"""Coupling layers: one part of a value is kept and sets the map of the other part, in both directions at the same cost.

    y_a = x_a,   y_b = g(x_b; network(x_a, cond))

The Jacobian is triangular, its determinant that of the element-wise g. Two layers with exchanged parts (`swap`) move
everything.

References:
    NICE: Non-linear Independent Components Estimation (Dinh et al., 2014), https://arxiv.org/abs/1410.8516
    Density estimation using Real NVP (Dinh et al., 2016), https://arxiv.org/abs/1605.08803
    Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032
    Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma & Dhariwal, 2018), https://arxiv.org/abs/1807.03039
    WaveGlow: A Flow-based Generative Network for Speech Synthesis (Prenger et al., 2018),
        https://arxiv.org/abs/1811.00002
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from wavedistill.errors import WavedistillError
from wavedistill.flows.masks import MASKS, checkerboard, halved_condition, merge, split
from wavedistill.flows.spline import rational_quadratic_spline
from wavedistill.flows.transform import Transform, require_sizes
from wavedistill.nn.coupling_net import CouplingNet, NetworkConfig
from wavedistill.numerics import full_precision


class _Coupling(Transform):
    """What the three layers share: parting the value, calling the network, putting the parts together.

    A layer names ``parameters_per_feature``, in its class or before it calls ``__init__``, and writes ``_couple``,
    which gets parameters of shape (batch, parameters_per_feature, *moved.shape[1:]).
    """

    parameters_per_feature = 1

    def __init__(
        self,
        dim: int,
        *,
        mask: str = "half",
        swap: bool = False,
        network: nn.Module | NetworkConfig | None = None,
        cond_dim: int = 0,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if mask not in MASKS:
            raise WavedistillError(f"{name} needs a mask among {', '.join(MASKS)}, got {mask!r}.")
        over_features = mask in ("half", "alternate")
        require_sizes(self, dim=dim)
        require_sizes(self, 0, cond_dim=cond_dim)
        if over_features and dim < 2:
            raise WavedistillError(
                f"{name} with mask {mask!r} needs at least 2 features (axis 1), got D = {dim}: a part must be kept. "
                "For a waveform of one channel take mask 'time', or Squeeze before this layer."
            )
        self.dim = dim
        self.mask = mask
        self.swap = swap
        self.cond_dim = cond_dim
        sizes = ((dim + 1) // 2, dim // 2) if over_features else (dim, dim)
        kept, moved = reversed(sizes) if swap else sizes
        if isinstance(network, nn.Module):
            _require_two_arguments(network, self)
        else:
            config = NetworkConfig.checked(network, self)
            network = CouplingNet(kept, self.parameters_per_feature * moved, config, cond_dim)
        of_samples = isinstance(network, CouplingNet) and network.kernel_size > 1
        if not over_features or of_samples:
            self.ranks = (3,)
        self.network = network

    def extra_repr(self) -> str:
        return f"dim={self.dim}, mask={self.mask!r}, swap={self.swap}, cond_dim={self.cond_dim}"

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        return self._map(x, cond, inverse=False)

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        return self._map(y, cond, inverse=True)

    def _map(self, x: Tensor, cond: Any, inverse: bool) -> tuple[Tensor, Tensor]:
        if self.mask == "checkerboard":
            keep = checkerboard(x) != self.swap
            parameters = self._predict(torch.where(keep, x, 0.0), cond, x)
            value, terms = self._couple(x, parameters, inverse)
            return torch.where(keep, x, value.to(x.dtype)), torch.where(keep, 0.0, terms)
        kept, moved = split(x, self.mask)
        if self.swap:
            kept, moved = moved, kept
        seen = kept
        if self.mask == "time":
            seen = nn.functional.pad(kept, (0, (x.shape[-1] + 1) // 2 - kept.shape[-1]))
            if self.cond_dim:
                cond = halved_condition(cond, x.shape[-1], 0 if self.swap else 1)
        value, terms = self._couple(moved, self._predict(seen, cond, moved), inverse)
        if x.dim() == 2 and self.mask == "half":  # the cut is along the last axis: a term for each step of it
            terms = nn.functional.pad(terms, (0, kept.shape[1]) if self.swap else (kept.shape[1], 0))
        elif self.mask == "time" or x.dim() == 2:
            terms = self._whole(torch.zeros_like(kept, dtype=terms.dtype), terms)
        return self._whole(kept, value.to(x.dtype)), terms

    def _whole(self, kept: Tensor, moved: Tensor) -> Tensor:
        return merge(moved, kept, self.mask) if self.swap else merge(kept, moved, self.mask)

    def _predict(self, seen: Tensor, cond: Any, moved: Tensor) -> Tensor:
        """(batch, parameters_per_feature, *moved.shape[1:]) from the network, float32 at least."""
        given = self.network(seen, cond)
        needed = (moved.shape[0], self.parameters_per_feature * moved.shape[1], *seen.shape[2:])
        if given.shape != needed:
            raise WavedistillError(
                f"{type(self).__name__}: the network must make {needed} of {tuple(seen.shape)}, got "
                f"{tuple(given.shape)}."
            )
        given = full_precision(given).unflatten(1, (self.parameters_per_feature, moved.shape[1]))
        return given if given.shape[3:] == moved.shape[2:] else given[..., : moved.shape[-1]]

    def _couple(self, moved: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class AdditiveCoupling(_Coupling):
    """y_a = x_a, y_b = x_b + network(x_a): NICE's volume-preserving layer; log|det| = 0 exactly.

    References:
        NICE: Non-linear Independent Components Estimation (Dinh et al., 2014), https://arxiv.org/abs/1410.8516, section
            3.2

    Args:
        dim: features D (axis 1).
        mask: "half" or "alternate" over features, which vectors and waveforms have; "time" (even and odd samples) or
            "checkerboard" (feature + sample) for waveforms, one channel is enough; with one channel a checkerboard
            needs a kernel size of 3 to see anything. See `wavedistill.flows.masks`.
        swap: keep the second part and move the first.
        cond_dim: channels of the condition; 0: none.
        network: the size of a `CouplingNet` (None: `NetworkConfig`'s defaults; a kernel size above 1 sees neighbouring
            samples of a waveform), or a module of your own, called as network(kept, cond). With P parameters a feature
            (here P = 1) and
            half / alternate   it makes (batch, P (D - K)[, samples]) of (batch, K[, samples]), K = ceil(D / 2) or with
                ``swap`` floor(D / 2);
            time               (batch, P D, ceil(samples / 2)) of (batch, D, ceil(samples / 2)): a missing last odd
                sample is zero;
            checkerboard       (batch, P D, samples) of (batch, D, samples): the samples that move are zero.
            The parameters of a feature are D, or D - K, channels apart. With ``time`` it gets the condition of the
                samples that move.

    Shapes:
        (batch, D) or (batch, D, samples); condition (batch, cond_dim[, frames]).

    Raises:
        WavedistillError: for D = 1 with a mask over features, for an unknown mask, for a network whose output does not
            fit.

    Example:
        >>> import torch
        >>> from wavedistill.flows import AdditiveCoupling
        >>> class Sum(torch.nn.Module):
        ...     def forward(self, kept, cond):
        ...         return kept.sum(1, keepdim=True)
        >>> layer = AdditiveCoupling(3, network=Sum())
        >>> y, log_det = layer.forward(torch.tensor([[1.0, 2.0, 3.0]]))
        >>> y, log_det
        (tensor([[1., 2., 6.]]), tensor([0.]))
        >>> layer.inverse(y).value
        tensor([[1., 2., 3.]])
    """

    def _couple(self, moved: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        loc = parameters[:, 0]
        return moved - loc if inverse else moved + loc, torch.zeros_like(loc)


class AffineCoupling(_Coupling):
    """y_a = x_a, y_b = x_b exp(s) + t with (t, r) = network(x_a), s = B tanh(r / B): RealNVP's layer; log|det| = sum s.

    The soft bound B (``log_scale_bound``) keeps each factor within exp(-B) ... exp(B), so that neither direction
    overflows.

    References:
        Density estimation using Real NVP (Dinh et al., 2016), https://arxiv.org/abs/1605.08803, section 3.2
        WaveGlow: A Flow-based Generative Network for Speech Synthesis (Prenger et al., 2018),
            https://arxiv.org/abs/1811.00002

    Args:
        dim, mask, swap, cond_dim, network: as in `AdditiveCoupling`, with P = 2: first all t, then all r.
        log_scale_bound: B.

    Shapes:
        (batch, D) or (batch, D, samples); condition (batch, cond_dim[, frames]).

    Raises:
        WavedistillError: as `AdditiveCoupling`.

    Example:
        >>> import torch
        >>> from wavedistill.flows import AffineCoupling, Compose, NetworkConfig
        >>> options = {"mask": "time", "network": NetworkConfig(kernel_size=3), "cond_dim": 8}
        >>> layers = (AffineCoupling(1, swap=swap, **options) for swap in (False, True))
        >>> flow = Compose(*layers)
        >>> x, mel = torch.randn(2, 1, 100), torch.randn(2, 8, 10)
        >>> z, log_det = flow.forward(x, mel)
        >>> torch.allclose(flow.inverse(z, mel).value, x), log_det.shape
        (True, torch.Size([2]))
    """

    parameters_per_feature = 2

    def __init__(
        self,
        dim: int,
        *,
        mask: str = "half",
        swap: bool = False,
        network: nn.Module | NetworkConfig | None = None,
        cond_dim: int = 0,
        log_scale_bound: float = 5.0,
    ) -> None:
        super().__init__(
            dim,
            mask=mask,
            swap=swap,
            network=network,
            cond_dim=cond_dim,
        )
        if not log_scale_bound > 0:
            raise WavedistillError(f"AffineCoupling needs a log_scale_bound above 0, got {log_scale_bound}.")
        self.log_scale_bound = log_scale_bound

    def _couple(self, moved: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        loc, raw = parameters.unbind(1)
        log_scale = self.log_scale_bound * torch.tanh(raw / self.log_scale_bound)
        if inverse:
            return (moved - loc) * torch.exp(-log_scale), -log_scale
        return torch.addcmul(loc, moved, torch.exp(log_scale)), log_scale


class SplineCoupling(_Coupling):
    """y_a = x_a, y_b = spline(x_b; network(x_a)): a monotone rational-quadratic spline for each element of x_b.

    log|det| = sum log spline'(x_b). See `wavedistill.flows.spline` for the formulas; outside [-bound, bound] the layer
    is the identity.

    References:
        Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032

    Args:
        dim, mask, swap, cond_dim, network: as in `AdditiveCoupling`, with P = 3 bins - 1: first all of the first
            bin's widths, ..., heights, ..., derivatives.
        bins: pieces of a spline (2 at least).
        bound: half the length of the interval.

    Shapes:
        (batch, D) or (batch, D, samples); condition (batch, cond_dim[, frames]).

    Raises:
        WavedistillError: as `AdditiveCoupling`, and for a number of bins or a bound that no spline has.

    Example:
        >>> import torch
        >>> from wavedistill.flows import SplineCoupling
        >>> layer = SplineCoupling(2, bins=4, bound=3.0)  # a new one is the identity
        >>> torch.allclose(layer.forward(torch.tensor([[0.5, -1.0]])).value, torch.tensor([[0.5, -1.0]]))
        True
    """

    def __init__(
        self,
        dim: int,
        *,
        mask: str = "half",
        swap: bool = False,
        network: nn.Module | NetworkConfig | None = None,
        cond_dim: int = 0,
        bins: int = 8,
        bound: float = 5.0,
    ) -> None:
        if bins < 2 or not bound > 0:
            raise WavedistillError(f"SplineCoupling needs 2 bins or more and a bound above 0, got {bins} and {bound}.")
        self.parameters_per_feature = 3 * bins - 1
        super().__init__(
            dim,
            mask=mask,
            swap=swap,
            network=network,
            cond_dim=cond_dim,
        )
        self.bound = bound

    def _couple(self, moved: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        return rational_quadratic_spline(moved, parameters.movedim(1, -1), self.bound, inverse)


def _require_two_arguments(network: nn.Module, owner: nn.Module) -> None:
    try:
        inspect.signature(network.forward).bind("kept", "cond")
    except TypeError:
        raise WavedistillError(
            f"{type(owner).__name__} calls its network as network(kept, cond), which {type(network).__name__} does not "
            "take: wrap it in a module whose forward(kept, cond) does, or give a NetworkConfig."
        ) from None
