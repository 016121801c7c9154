"""Linear maps of the features, the same for every sample: rotations and the invertible 1x1 convolution.

References:
    Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma & Dhariwal, 2018), https://arxiv.org/abs/1807.03039
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from wavedistill.errors import WavedistillError
from wavedistill.flows.transform import Transform, require_sizes
from wavedistill.numerics import full_precision


class Orthogonal(Transform):
    """y = Q x with a learned rotation Q = exp(A - A^T), a matrix exponential; log|det| = 0.

    A - A^T is skew-symmetric, the inverse the transpose. Any rotation can be reached, reflections (det -1) cannot; Q is
    orthogonal to the precision of its type, however the parameters move. It begins at a random rotation, evenly
    distributed (Haar).

    Args:
        dim: features.

    Shapes: (batch, dim) or (batch, dim, samples). Step by step for waveforms only.

    References:
        Cheap Orthogonal Constraints in Neural Networks (Lezcano-Casado & Martinez-Rubio, 2019),
            https://arxiv.org/abs/1901.08428

    Example:
        >>> import torch
        >>> from wavedistill.flows import Orthogonal
        >>> x = torch.tensor([[3.0, 4.0]])
        >>> y, log_det = Orthogonal(2).forward(x)
        >>> bool(torch.allclose(y.norm(), x.norm())), log_det
        (True, tensor([0.]))
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        require_sizes(self, dim=dim)
        self.dim = dim
        skew = _rotation_logarithm(_random_rotation(dim, torch.float64))
        linear = nn.Linear(dim, dim, bias=False)
        with torch.no_grad():
            linear.weight.copy_(skew.tril(-1))
        # "trivialization" would keep a base matrix that is orthogonal in the type it was made in, not in float64
        self.rotation = parametrizations.orthogonal(linear, orthogonal_map="matrix_exp", use_trivialization=False)

    @torch.no_grad()
    def set_matrix(self, rotation: Tensor) -> None:
        """Make Q this rotation (orthogonal, determinant 1)."""
        self.rotation.parametrizations.weight.original.copy_(_rotation_logarithm(rotation.double()).tril(-1))

    def matrix(self) -> Tensor:
        """Q, (dim, dim)."""
        rough = full_precision(self.rotation.weight)
        # one step of Newton's iteration to the nearest orthogonal matrix: the exponential is ten roundings away from it
        return rough @ (1.5 * torch.eye(self.dim, dtype=rough.dtype, device=rough.device) - 0.5 * rough.T @ rough)

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            return _multiply(self.matrix(), x), _terms(x.new_zeros(()), x)

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        with torch.autocast(y.device.type, enabled=False):
            return _multiply(self.matrix().T, y), _terms(y.new_zeros(()), y)


class InvertibleConv1x1(Transform):
    """y = W x at every sample: a learned mixing of the channels, in place of a fixed permutation.

    log|det| = samples * log|det W|. W begins at a random rotation. ``lu=False`` learns W itself and factorises it at
    each call, which costs dim^3 operations (8 channels: 25 microseconds); the inverse is made anew from the present
    weights each time, never kept. ``lu=True`` learns the factors, W = P L (U + diag(s)) with a fixed permutation P,
    unit lower and strictly upper triangular L and U, and s of fixed sign and learned logarithm: log|det W| = sum
    log|s|, and W cannot become singular.

    Args:
        dim: channels (of a vector: features).
        lu: learn the LU factors instead of the matrix.

    Shapes: (batch, dim) or (batch, dim, samples). Step by step for waveforms only.

    Raises:
        WavedistillError: if W is singular to the precision of its type (``lu=False``; compiled code does not look).

    References:
        Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma & Dhariwal, 2018),
            https://arxiv.org/abs/1807.03039, section 3.2
        WaveGlow: A Flow-based Generative Network for Speech Synthesis (Prenger et al., 2018),
            https://arxiv.org/abs/1811.00002

    Example:
        >>> import torch
        >>> from wavedistill.flows import InvertibleConv1x1
        >>> layer = InvertibleConv1x1(4)
        >>> x = torch.randn(2, 4, 100)
        >>> y, log_det = layer.forward(x)
        >>> log_det.shape, bool(torch.allclose(layer.inverse(y).value, x, atol=1e-5))
        (torch.Size([2]), True)
    """

    def __init__(self, dim: int, lu: bool = False) -> None:
        super().__init__()
        require_sizes(self, dim=dim)
        self.dim = dim
        rotation = _random_rotation(dim, torch.get_default_dtype())
        self.matrix = _FactorizedMatrix(rotation) if lu else _PlainMatrix(rotation)

    def _forward(self, x: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            weight, log_abs_det = self.matrix()
            return _multiply(weight, x), _terms(log_abs_det, x)

    def _inverse(self, y: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        with torch.autocast(y.device.type, enabled=False):
            inverse, log_abs_det = self.matrix.inverse()
            return _multiply(inverse, y), _terms(-log_abs_det, y)


class _LU(NamedTuple):
    """LU factors as `torch.linalg.lu_factor` packs them, and log|det W|."""

    factors: Tensor
    pivots: Tensor
    log_abs_det: Tensor


class _Triangles(NamedTuple):
    """L and U + diag(s), and log|det W|."""

    lower: Tensor
    upper: Tensor
    log_abs_det: Tensor


class _PlainMatrix(nn.Module):
    """A matrix that is its own parameter. Both methods give (matrix, log|det W|) in float32 at least."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self) -> tuple[Tensor, Tensor]:
        return full_precision(self.weight), self._factors().log_abs_det

    def inverse(self) -> tuple[Tensor, Tensor]:
        factors, pivots, log_abs_det = self._factors()
        identity = torch.eye(len(factors), dtype=factors.dtype, device=factors.device)
        return torch.linalg.lu_solve(factors, pivots, identity), log_abs_det

    def _factors(self) -> _LU:
        factors, pivots, _ = torch.linalg.lu_factor_ex(full_precision(self.weight))
        diagonal = factors.diagonal().abs()
        if not torch.compiler.is_compiling():
            rounding = len(factors) * torch.finfo(factors.dtype).eps
            if bool((diagonal <= rounding * diagonal.max()).any()):
                raise WavedistillError(
                    f"InvertibleConv1x1(dim={len(factors)}) has no inverse: its matrix is singular. "
                    "Lower the learning rate, or use lu=True, which cannot become singular."
                )
        return _LU(factors, pivots, diagonal.log().sum())


class _FactorizedMatrix(nn.Module):
    """P L (U + diag(s)); methods as `_PlainMatrix`."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        permutation, lower, upper = torch.linalg.lu(weight)
        self.register_buffer("permutation", permutation.argmax(1))  # (P m)[i] = m[permutation[i]]
        self.register_buffer("sign", upper.diagonal().sign())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_diagonal = nn.Parameter(upper.diagonal().abs().log())

    def forward(self) -> tuple[Tensor, Tensor]:
        lower, upper, log_abs_det = self._factors()
        return (lower @ upper)[self.permutation], log_abs_det

    def inverse(self) -> tuple[Tensor, Tensor]:
        lower, upper, log_abs_det = self._factors()
        identity = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
        inverse = torch.linalg.solve_triangular(lower, identity, upper=False, unitriangular=True)
        inverse = torch.linalg.solve_triangular(upper, inverse, upper=True)
        return inverse[:, self.permutation], log_abs_det

    def _factors(self) -> _Triangles:
        lower, upper, log_diagonal = (full_precision(p) for p in (self.lower, self.upper, self.log_diagonal))
        identity = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
        diagonal = torch.diag(self.sign * log_diagonal.exp())
        return _Triangles(lower.tril(-1) + identity, upper.triu(1) + diagonal, log_diagonal.sum())


def _multiply(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix @ x at every sample, in float32 at least."""
    dtype = torch.promote_types(matrix.dtype, full_precision(x).dtype)
    matrix = matrix.to(dtype)
    columns = x.to(dtype)
    return matrix @ columns if x.dim() == 3 else columns @ matrix.T


def _terms(log_abs_det: Tensor, x: Tensor) -> Tensor:
    """The log-determinant of each sample of a waveform (batch, samples), or of a whole vector (batch,)."""
    return log_abs_det.expand(x.shape[0], *x.shape[2:])


def _random_rotation(dim: int, dtype: torch.dtype) -> Tensor:
    """Haar-distributed orthogonal matrix with determinant 1."""
    matrix = nn.init.orthogonal_(torch.empty(dim, dim, dtype=dtype))
    matrix[:, 0] *= torch.linalg.slogdet(matrix).sign  # the determinant as a product of pivots underflows at 350
    return matrix


def _rotation_logarithm(rotation: Tensor) -> Tensor:
    """Real skew-symmetric A with exp(A) = rotation: eigenvalues e^{i angle} become i angle."""
    values, vectors = torch.linalg.eig(rotation)
    return (vectors @ torch.diag(1j * values.angle()) @ torch.linalg.inv(vectors)).real
