"""linear_attention: attention without a softmax, as a fast weight that is only added to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .._check import check_float, check_like, fail
from ._delta_rule import FastWeights, fast_weights


def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    decay: Tensor | float | None = None,
    initial_state: Tensor | None = None,
    scale: float | None = None,
    normalize: bool = False,
    backend: str | None = None,
) -> FastWeights:
    r"""Causal linear attention: what Hebb's rule learns of keys and values, read with queries.

    .. math::
        S_t = a_t S_{t-1} + k_t v_t^T, \quad o_t = \mathrm{scale} \; S_t^T q_t

    Without a decay that is ``(scale * query @ key.mT).tril() @ value``. It is
    ``delta_rule(..., rule="hebb")``: states, gradients, dtypes and cost are written there.

    Args:
        query, key: ``(B, H, T, d_k)``, after the feature map if there is one.
        value: ``(B, H, T, d_v)``.
        decay: what is kept of the weight in each step, a number, or a floating point tensor that
            broadcasts to ``(B, H, T)``: of shape (H, 1) retention, of (B, H, T) a gate. Default: 1.
        initial_state: ``(B, H, d_k, d_v)``, with ``normalize`` (B, H, d_k, d_v + 1). Default: 0.
        scale: of the output. Default: ``d_k ** -0.5``, and 1 with ``normalize``, which it cancels
            in.
        normalize: divide the output of each step by the sum of its weights,
            :math:`q_t \cdot z_t` with :math:`z_t = a_t z_{t-1} + k_t`; for keys and queries that
            are not negative, as ``F.elu(x) + 1`` makes them (where the sum is 0, so is the output).
            z is the last column of the state.
        backend: as of :func:`delta_rule`.

    Returns:
        :class:`FastWeights`, differentiable once.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`delta_rule`.

    Source: A. Katharopoulos et al., Transformers are RNNs, arXiv:2006.16236, eq. 16 to 20 (with
    ``normalize``); decays: Y. Sun et al., Retentive network, arXiv:2307.08621.
    """
    op = "linear_attention"
    if not normalize:
        return fast_weights(
            op, query, key, value, None, decay, initial_state, scale, "hebb", backend
        )
    for name, t in (("query", query), ("key", key), ("value", value)):
        check_float(op, name, t)
        check_like(op, name, t, query, "query")
    if value.dim() != 4:
        fail(ValueError, op, "value", "have shape (B, H, T, d_v)", tuple(value.shape))
    # Wide, so that the quotient is rounded once.
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    with_ones = F.pad(value.to(dtype), (0, 1), value=1.0)
    if scale is None:
        scale = 1.0
    given = (query.to(dtype), key.to(dtype), with_ones)
    output, state = fast_weights(op, *given, None, decay, initial_state, scale, "hebb", backend)
    sums = output[..., -1:]
    divided = output[..., :-1] / sums.masked_fill(sums == 0, 1)
    return FastWeights(divided.to(query.dtype), state)
