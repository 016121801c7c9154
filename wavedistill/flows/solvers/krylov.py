"""log |det J| estimated from products with J': Hutchinson's trace of log J, its quadratic forms by Arnoldi's method.

    log det J = tr log J = E[v' log(J) v],    v' log(J) v ~ |v|^2 (log H)_11,    E[v v'] = I

where H is the Hessenberg matrix of J' in the Krylov space of v. No bound on the spectrum is needed, and a dozen
products reach what a power series would need hundreds for; it must stay clear of the negative half-axis, as that of a
strongly monotone map's Jacobian does.

References:
    Fast Estimation of tr(f(A)) via Stochastic Lanczos Quadrature (Ubaru, Chen & Saad, 2017),
        https://doi.org/10.1137/16M1104974: for symmetric matrices
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


@torch.no_grad()
def krylov_log_det(f: Map, x: Tensor, noises: Tensor, products: int) -> Tensor:
    """Estimates (probes, batch) of log |det J| for the Jacobian J of f at x, float64; without gradient.

    Args:
        f: a map of (batch, size) that treats examples separately.
        x: (batch, size).
        noises: (probes, size), every one with E[v v'] = I, see `log_det.draw_noise`; shared by the batch.
        products: dimension of the Krylov space.

    Example:
        >>> import torch
        >>> from wavedistill.flows.solvers.krylov import krylov_log_det
        >>> krylov_log_det(lambda x: 1.5 * x, torch.ones(1, 2), torch.ones(1, 2), products=2)
        tensor([[0.8109]], dtype=torch.float64)
    """
    _, pullback = torch.func.vjp(f, x)
    return torch.stack([_quadratic_form(pullback, noise.expand_as(x), products) for noise in noises])


def _quadratic_form(pullback: Callable[[Tensor], tuple[Tensor]], noise: Tensor, products: int) -> Tensor:
    """v' log(J) v (batch,) in float64."""
    size = noise.norm(dim=1, keepdim=True)
    basis = (noise / size).unsqueeze(1)  # (batch, count, size), orthonormal
    hessenberg = torch.zeros(noise.shape[0], products, products, dtype=torch.float64, device=noise.device)
    for column in range(products):
        image = pullback(basis[:, -1].contiguous())[0]
        length = image.norm(dim=1, keepdim=True)
        for _ in range(2):  # once more, for what rounding left
            shares = (basis @ image.unsqueeze(2)).squeeze(2)
            image = image - (shares.unsqueeze(1) @ basis).squeeze(1)
            hessenberg[:, : column + 1, column] += shares
        rest = image.norm(dim=1, keepdim=True)
        closed = rest <= 10 * torch.finfo(image.dtype).eps * length  # the space maps to itself: all there is is known
        empty = (length == 0)[:, 0]  # it did so before this column
        hessenberg[:, column, column] = torch.where(empty, 1.0, hessenberg[:, column, column])
        if column + 1 < products:
            hessenberg[:, column + 1, column] = torch.where(closed, 0.0, rest)[:, 0].double()
            basis = torch.cat([basis, torch.where(closed, 0.0, image / rest).unsqueeze(1)], dim=1)
    values, vectors = torch.linalg.eig(hessenberg.nan_to_num())
    first = torch.zeros_like(vectors[..., :1])
    first[:, 0] = 1.0
    weights = torch.linalg.solve(vectors, first)[..., 0] * vectors[:, 0]
    form = (weights * values.log()).sum(1).real
    return torch.where(hessenberg.isnan().flatten(1).any(1), torch.nan, form) * size[:, 0].double().square()
