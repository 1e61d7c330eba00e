"""numba kernels of compositing. One ray is one piece of work, so results do not depend on threads.

Sums run in double precision whatever the arrays hold. ``offsets[r]`` to ``offsets[r + 1]`` are the
samples of ray ``r``. An array of length 0 stands for a gradient that is absent or not wanted.
"""

from __future__ import annotations

import math

import numpy as np

from threestudio_redream.kernels.jit import njit, prange

__all__ = ["accumulate_backward", "accumulate_forward", "weights_backward", "weights_forward"]


@njit(parallel=True, error_model="numpy")
def weights_forward(optical, offsets, weights, trans, alphas, decays):
    """Fill weights, transmittance, alphas and ``exp(-optical)`` (all ``[M]``) from optical thickness."""
    for ray in prange(offsets.shape[0] - 1):
        light = 1.0
        for i in range(offsets[ray], offsets[ray + 1]):
            x = np.float64(optical[i])
            decay = math.exp(-x)
            # 1 - exp(-x) without cancellation; the series is exact to 1e-14 and faster than expm1.
            alpha = 1.0 - decay if abs(x) > 1e-3 else x * (1.0 - x * (0.5 - x * (1.0 / 6.0 - x / 24.0)))
            trans[i] = light
            alphas[i] = alpha
            decays[i] = decay
            weights[i] = light * alpha
            light *= decay


@njit(parallel=True, error_model="numpy")
def weights_backward(weights, trans, decays, offsets, grad_weights, grad_trans, grad_alphas, grad_optical):
    """Fill the gradient of optical thickness; see ``render_weight_from_density`` for the formula."""
    has_weights, has_trans, has_alphas = grad_weights.shape[0] > 0, grad_trans.shape[0] > 0, grad_alphas.shape[0] > 0
    for ray in prange(offsets.shape[0] - 1):
        behind = 0.0  # what all samples behind this one lose when it gets denser
        for i in range(offsets[ray + 1] - 1, offsets[ray] - 1, -1):
            direct, shade = 0.0, 0.0
            if has_weights:
                direct += grad_weights[i] * trans[i]
                shade += grad_weights[i] * weights[i]
            if has_alphas:
                direct += grad_alphas[i]
            if has_trans:
                shade += grad_trans[i] * trans[i]
            grad_optical[i] = direct * decays[i] - behind
            behind += shade


@njit(parallel=True, error_model="numpy")
def accumulate_forward(weights, values, offsets, out):
    """``out[ray, c] = sum of weights[i] * values[i, c]`` over the samples of the ray."""
    for ray in prange(offsets.shape[0] - 1):
        for channel in range(values.shape[1]):
            total = 0.0
            for i in range(offsets[ray], offsets[ray + 1]):
                total += np.float64(weights[i]) * values[i, channel]
            out[ray, channel] = total


@njit(parallel=True, error_model="numpy")
def accumulate_backward(weights, values, offsets, grad_out, grad_weights, grad_values):
    """Fill the gradients of weights ``[M]`` and values ``[M, C]``; a length of 0 means not wanted."""
    want_weights, want_values = grad_weights.shape[0] > 0, grad_values.shape[0] > 0
    for ray in prange(offsets.shape[0] - 1):
        for i in range(offsets[ray], offsets[ray + 1]):
            total = 0.0
            for channel in range(values.shape[1]):
                total += np.float64(grad_out[ray, channel]) * values[i, channel]
                if want_values:
                    grad_values[i, channel] = weights[i] * grad_out[ray, channel]
            if want_weights:
                grad_weights[i] = total
