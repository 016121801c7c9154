"""Muon: momentum steps whose singular values are brought near one, for the hidden matrices of the networks.

References:
    Muon: An optimizer for hidden layers in neural networks (Jordan et al., 2024),
        https://kellerjordan.github.io/posts/muon/
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wavedistill.nn.mel_encoder import MelEncoder
from wavedistill.nn.wavenet_stack import WaveNetStack

MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the odd polynomial that is applied to the singular values at each iteration: steep at zero, near one above it."""


class Muon(torch.optim.Optimizer):
    """Each matrix moves along its momentum (Nesterov's), all of whose singular values are brought to about one.

    m <- 0.95 m + 0.05 g;  W <- (1 - lr weight_decay) W - lr sqrt(max(1, rows / columns)) O(0.05 g + 0.95 m), where g is
    the gradient and O is `orthogonalized`. Matrices of one shape are orthogonalised together. `torch.optim.Muon` does
    the same, but refuses the kernels of convolutions, which have more than two dimensions.

    Args:
        matrices: matrices (rows, columns), and kernels (out, in, ...), each taken as the matrix (out, in * ...).
        lr: of the next step, a length: every singular value of a square matrix's step is about ``lr``.
        weight_decay: decoupled, as AdamW's.
        dtype: in which steps are orthogonalised. bfloat16's 8 bits are enough, and for the teacher of recipes/speech
            on one core with AVX-512 it takes 3 % of a training step in bfloat16, where float32 takes 9 %. So a run
            takes bfloat16 where the run's precision is bf16, and else float32, which is 2 % of such a step.
    """

    def __init__(
        self,
        matrices: Sequence[nn.Parameter],
        lr: float,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})
        self._dtype = dtype

    @torch.no_grad()
    def step(self) -> None:
        """Change the matrices that have a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape.setdefault((matrix.shape[0], matrix[0].numel()), []).append(matrix)
            for (rows, columns), matrices in by_shape.items():
                directions = torch.stack([self._direction(matrix) for matrix in matrices])
                rate = group["lr"] * max(1.0, rows / columns) ** 0.5
                for matrix, step in zip(matrices, orthogonalized(directions.to(self._dtype)), strict=True):
                    matrix.mul_(1.0 - group["lr"] * group["weight_decay"])
                    matrix.add_(step.to(matrix.dtype).reshape(matrix.shape), alpha=-rate)

    def _direction(self, matrix: nn.Parameter) -> Tensor:
        """Update the momentum; where it and the gradient point to, (rows, columns)."""
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        momentum = state["momentum"].mul_(MOMENTUM).add_(matrix.grad, alpha=1.0 - MOMENTUM)
        return matrix.grad.lerp(momentum, MOMENTUM).flatten(1)


def orthogonalized(matrices: Tensor) -> Tensor:
    """U diag(s) V^T with s of about 0.7 to 1.2, of matrices U diag(...) V^T: by Newton-Schulz iterations.

    X <- a X + (b X X^T + c (X X^T)^2) X, from X = matrix / its Frobenius norm. Singular values below about 0.002 of
    that norm stay smaller.

    Shapes: (count, rows, columns) -> the same, in the same precision.
    """
    a, b, c = COEFFICIENTS
    upright = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if upright else matrices
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if upright else x


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The trained matrices between the first and the last layer of a model's WaveNet stacks and mel encoders.

    Of a `WaveNetStack` all but ``input`` and ``output``; of a `MelEncoder` the kernels, not the table of speakers.
    """
    found: list[nn.Parameter] = []
    for module in model.modules():
        if isinstance(module, WaveNetStack):
            found += [conv.weight for conv in module.convs]
            found += [*module.residual, *module.skip, module.hidden.weight]
            if module.cond is not None:
                found.append(module.cond.weight)
        elif isinstance(module, MelEncoder) and module.frames is not None:
            found += [conv.weight for conv in (*module.frames, module.blocks)]
    return [matrix for matrix in found if matrix.requires_grad]
