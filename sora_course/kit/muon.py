"""Muon, the optimiser of the course's matrices (Jordan et al. 2024)."""

from __future__ import annotations

import torch


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: each update of a matrix is replaced by the nearest one whose singular values are all near 1.

    Jordan et al. 2024. torch.optim.Muon (from torch 2.9) takes only 2-D parameters; here a convolution's kernel counts
    as a matrix with one row for each output channel. `dtype` is what directions are computed in: they need few digits, so
    bfloat16 is as good as float32, and faster or many times slower, by whether the hardware multiplies it.
    """

    def __init__(
        self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.0, dtype: torch.dtype = torch.float32
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @staticmethod
    def orthogonalise(matrices: torch.Tensor, iterations: int = 5) -> torch.Tensor:
        """Newton-Schulz iteration for the polar factor of each matrix (n, rows, columns), with Jordan's coefficients."""
        tall = matrices.shape[1] > matrices.shape[2]
        x = matrices.mT if tall else matrices
        x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
        for _ in range(iterations):
            a = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
        return x.mT if tall else x

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            updates: dict[torch.Size, list] = {}
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            gradients = [p.grad for p in params]
            for p in params:
                if "momentum" not in self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            momenta = [self.state[p]["momentum"] for p in params]
            torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
            for p, update in zip(params, torch._foreach_lerp(gradients, momenta, group["momentum"])):  # Nesterov
                updates.setdefault(update.flatten(1).shape, []).append((p, update.flatten(1)))
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            for (rows, columns), same_shape in updates.items():  # together, in one batched product
                directions = self.orthogonalise(torch.stack([update for _, update in same_shape]).to(self.dtype))
                step = group["lr"] * max(1, rows / columns) ** 0.5
                directions = [d.to(p.dtype).reshape(p.shape) for (p, _), d in zip(same_shape, directions)]
                torch._foreach_add_([p for p, _ in same_shape], directions, alpha=-step)
