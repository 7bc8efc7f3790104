"""delta_rule in plain torch: its definition, and what runs where nothing faster does.

query, key (B, H, T, K), value (B, H, T, V), beta and decay (B, H, T), state (B, H, K, V); all of
one dtype, float32 or float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

DELTA, HEBB, OJA = range(3)


def _step(
    state: Tensor, k: Tensor, v: Tensor, b: Tensor, a: Tensor, rule: int
) -> tuple[Tensor, Tensor]:
    """The next state, and what was learned before it was multiplied with beta."""
    state = a[..., None, None] * state
    if rule == OJA:
        error = k - (state @ v[..., None])[..., 0]
        learned = error[..., :, None] * v[..., None, :]
    else:
        error = v if rule == HEBB else v - (k[..., None, :] @ state)[..., 0, :]
        learned = k[..., :, None] * error[..., None, :]
    return state + b[..., None, None] * learned, error


def _numbers(t: Tensor | None, like: Tensor) -> Tensor:
    return like.new_ones(like.shape[:3]) if t is None else t


def delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    beta: Tensor | None,
    decay: Tensor | None,
    state: Tensor | None,
    scale: float,
    rule: int,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """output (B, H, T, V), the last state, and the errors r of all steps or 0-size."""
    shape = (*key.shape[:2], key.shape[3], value.shape[3])
    m = value.new_zeros(shape) if state is None else state.clone()
    b, a = _numbers(beta, value), _numbers(decay, value)
    outputs, errors = [], []
    for t in range(key.shape[2]):
        m, error = _step(m, key[:, :, t], value[:, :, t], b[:, :, t], a[:, :, t], rule)
        outputs.append(scale * (query[:, :, t, None, :] @ m)[:, :, 0])
        errors.append(error.detach())
    output = torch.stack(outputs, 2) if outputs else torch.zeros_like(value)
    if rule == HEBB or not (save or rule == OJA):
        return output, m, value.new_empty(0)
    like = key if rule == OJA else value
    return output, m, torch.stack(errors, 2) if errors else torch.zeros_like(like)


def delta_rule_backward(
    grad_output: Tensor | None,
    grad_last: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    beta: Tensor | None,
    decay: Tensor | None,
    state: Tensor | None,
    last: Tensor,
    error: Tensor,
    scale: float,
    rule: int,
    need_query: bool,
    need_key: bool,
    need_value: bool,
    need_beta: bool,
    need_decay: bool,
    need_state: bool,
) -> tuple[Tensor, ...]:
    """Gradients of query, key, value, beta, decay and state, back in time; 0-size where not needed.

    With M the state before a step, N after it, X the gradient of N: of the delta rule

        d query = scale N g             X += scale query g^T
        d value = beta X^T k            d beta = r . X^T k
        d key = beta (X r - decay M X^T k)
        d decay = <X - beta k (X^T k)^T, M>      X <- decay (X - beta k (X^T k)^T)

    "oja" is the same with key and value exchanged and the state turned; "hebb" without the second
    terms of key, decay and X.
    """
    b, a = _numbers(beta, value), _numbers(decay, value)
    m = torch.zeros_like(last) if state is None else state
    before = []
    for t in range(key.shape[2]):
        before.append(m)
        m, _ = _step(m, key[:, :, t], value[:, :, t], b[:, :, t], a[:, :, t], rule)
    before.append(m)
    x = torch.zeros_like(last) if grad_last is None else grad_last.clone()
    found: list[list[Tensor]] = [[] for _ in range(5)]
    for t in reversed(range(key.shape[2])):
        left, learned = (value, key) if rule == OJA else (key, value)
        left, learned = left[:, :, t], learned[:, :, t]
        b_t, a_t = b[:, :, t, None], a[:, :, t, None]
        of_query = torch.zeros_like(query[:, :, t])
        if grad_output is not None:
            g = grad_output[:, :, t]
            of_query = scale * (before[t + 1] @ g[..., None])[..., 0]
            x = x + scale * query[:, :, t, :, None] * g[..., None, :]
        own, past = (x.mT, before[t].mT) if rule == OJA else (x, before[t])
        of_error = (left[..., None, :] @ own)[..., 0, :]
        r = learned if rule == HEBB else error[:, :, t]
        of_learned = b_t * of_error
        of_left = b_t * (own @ r[..., None])[..., 0]
        if rule != HEBB:
            of_left = of_left - a_t * (past @ of_learned[..., None])[..., 0]
            own = own - left[..., :, None] * of_learned[..., None, :]
        of_key, of_value = (of_learned, of_left) if rule == OJA else (of_left, of_learned)
        of_beta, of_decay = (of_error * r).sum(-1), (own * past).sum((-1, -2))
        for of, g in zip(found, (of_query, of_key, of_value, of_beta, of_decay), strict=True):
            of.append(g)
        x = a_t[..., None] * (own.mT if rule == OJA else own)
    needs = (need_query, need_key, need_value, need_beta, need_decay)
    likes = (query, key, value, b, a)
    series = [
        (torch.stack(g[::-1], 2) if g else torch.zeros_like(like)) if need else like.new_empty(0)
        for g, like, need in zip(found, likes, needs, strict=True)
    ]
    return (*series, x.clone() if need_state else x.new_empty(0))
