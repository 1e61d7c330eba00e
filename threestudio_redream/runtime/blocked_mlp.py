"""A ReLU network over many rows, block by block, so that hidden layers stay in the processor's cache.

The hidden layer of a small network is the largest tensor of a training step (107,000 samples x 64
neurons = 27 MB, several times over). Here it is never kept: backward computes it again, which on a CPU
costs less than writing it to memory and reading it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["BLOCK", "blocked_mlp", "mlp_reference"]

BLOCK = 16384
"""Rows at once: 64 neurons of float32 make 4 MiB. Much smaller blocks wait for threads more than they compute."""


def blocked_mlp(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """What :func:`mlp_reference` computes, with less memory traffic.

    Args:
        x: ``[N, D0]`` float. weights: matrices ``[D1, D0]``, ``[D2, D1]``, ..., as ``nn.Linear`` has them.

    Returns:
        ``[N, Dn]``; differentiable in everything, any number of times.
    """
    return _BlockedMLP.apply(x, *weights)


def mlp_reference(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """``relu(relu(x W1^T) W2^T) ... Wn^T``, without biases; no ReLU at the end."""
    for weight in weights[:-1]:
        x = (x @ weight.t()).relu()
    return x @ weights[-1].t()


class _BlockedMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        result = x.new_zeros(x.shape[0], weights[-1].shape[0])
        for rows, target in zip(x.split(BLOCK), result.split(BLOCK)):
            torch.mm(_layers(rows, weights)[-1], weights[-1].t(), out=target)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        if torch.is_grad_enabled():  # create_graph=True: somebody will differentiate this backward again
            inputs = [tensor for tensor, want in zip((x, *weights), wanted) if want]
            found = iter(torch.autograd.grad(mlp_reference(x, weights), inputs, grad, create_graph=True))
            return tuple(next(found) if want else None for want in wanted)

        x_grad = torch.zeros_like(x) if wanted[0] else None
        weight_grads = [torch.zeros_like(weight) for weight in weights]
        for start in range(0, x.shape[0], BLOCK):
            rows = slice(start, start + BLOCK)
            layers, flow = _layers(x[rows], weights), grad[rows]
            for index in reversed(range(len(weights))):
                if wanted[index + 1]:
                    weight_grads[index].addmm_(flow.t(), layers[index])
                if index > 0:
                    flow = torch.ops.aten.threshold_backward(flow @ weights[index], layers[index], 0)
            if x_grad is not None:
                torch.mm(flow, weights[0], out=x_grad[rows])
        return x_grad, *(found if want else None for found, want in zip(weight_grads, wanted[1:]))


def _layers(rows: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """The rows and every hidden layer above them."""
    layers = [rows]
    for weight in weights[:-1]:
        layers.append((layers[-1] @ weight.t()).relu_())
    return layers
