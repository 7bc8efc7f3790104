"""hopfield_retrieve: the retrieval of modern Hopfield networks, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def _widened(t: Tensor) -> Tensor:
    return t if t.dtype == torch.float64 else t.float()


def _softmax(query: Tensor, patterns: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """lse (B, H, M) and log p (B, H, M, N)."""
    scores = beta.reshape(-1, 1, 1) * (_widened(query) @ _widened(patterns).mT)
    lse = scores.logsumexp(-1)
    return lse, scores - lse[..., None]


def _entropy(log_p: Tensor) -> Tensor:
    return -(log_p.exp() * log_p.clamp_min(torch.finfo(log_p.dtype).min)).sum(-1)


def hopfield_retrieve(
    state: Tensor,  # (B, H, M, D)
    patterns: Tensor,  # (B or 1, H or 1, N, D)
    values: Tensor | None,  # (B or 1, H or 1, N, Dv)
    beta: Tensor,  # (H,) or (1,)
    steps: int,
    tolerance: float,  # below 0: none
    entropy: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Output (B, H, M, D or Dv); lse of the scores, their entropy (or empty) and half the squared
    norm of the state before each step (steps, B, H, M); steps made (B, H, M); with ``save`` the
    states before all steps but the first."""
    shape = state.shape[:3]
    updates = steps if values is None else steps - 1
    now, moving = state, torch.ones(shape, dtype=torch.bool, device=state.device)
    iterations = moving.new_zeros(shape, dtype=torch.int64)
    states = [now]
    found: list[tuple[Tensor, ...]] = []
    for t in range(steps):
        lse, log_p = _softmax(now, patterns, beta)
        half_norm = _widened(now).square().sum(-1) / 2
        row: tuple[Tensor, ...] = (lse, _entropy(log_p) if entropy else lse, half_norm)
        if t == updates:
            assert values is not None
            found.append(row)
            output = (log_p.exp() @ _widened(values)).to(state.dtype)
            iterations = iterations + 1
            break
        after = (log_p.exp() @ _widened(patterns)).to(state.dtype)
        change = (_widened(after) - _widened(now)).square().sum(-1).sqrt()
        if t > 0:
            row = tuple(torch.where(moving, a, b) for a, b in zip(row, found[-1], strict=True))
        found.append(row)
        now = torch.where(moving[..., None], after, now)
        iterations = iterations + moving
        moving = moving & ~(change <= tolerance)
        states.append(now)
        output = now
    lse, h, half_norm = (torch.stack(rows) for rows in zip(*found, strict=True))
    empty = lse.new_empty(0)
    saved = torch.stack(states[1:steps]) if steps > 1 else state.new_empty((0, *state.shape))
    return (
        output.clone() if output is state else output,
        lse,
        h if entropy else empty,
        half_norm,
        iterations,
        saved if save else state.new_empty(0),
    )


def hopfield_retrieve_backward(
    grad_output: Tensor | None,
    grad_lse: Tensor | None,  # (steps, B, H, M), as the next two
    grad_entropy: Tensor | None,
    grad_half_norm: Tensor | None,
    state: Tensor,
    patterns: Tensor,
    values: Tensor | None,
    beta: Tensor,
    output: Tensor,
    lse: Tensor,
    entropy: Tensor,
    iterations: Tensor,
    states: Tensor,
    need_state: bool,
    need_patterns: bool,
    need_values: bool,
    need_beta: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Through all steps, last to first, with u = log p + H and g the gradient of what a step makes:
    dS = p (g . x - sum_j p g . x + dlse - dH u); of the state beta dS X + dnorm xi, of the patterns
    beta dS^T xi + p^T g, of beta sum dS X . xi. A step that a row did not make passes g on, and
    repeats what was found in the row's last one: so the gradients of these go there."""
    steps = lse.shape[0]
    updates = steps if values is None else steps - 1
    wide, scale = _widened(state), beta.reshape(-1, 1, 1)
    x = _widened(patterns)
    g = torch.zeros_like(_widened(output)) if grad_output is None else _widened(grad_output)
    to_patterns = x.new_zeros(state.shape[:2] + x.shape[2:])
    to_values = None
    to_beta = x.new_zeros(state.shape[:2])
    zero = torch.zeros_like(lse)
    of_stats = [zero if t is None else t for t in (grad_lse, grad_entropy, grad_half_norm)]
    carried = [torch.zeros_like(lse[0]) for _ in of_stats]
    for t in reversed(range(steps)):
        now = wide if t == 0 else _widened(states[t - 1])
        projects = t == updates
        v = _widened(values) if projects and values is not None else x
        made = torch.ones_like(iterations, dtype=torch.bool)
        if not projects:
            made = iterations - (steps - updates) > t
        arriving = [
            of[t] if projects else of[t] + c for of, c in zip(of_stats, carried, strict=True)
        ]
        of_lse, of_h, of_norm = (torch.where(made, a, 0) for a in arriving)
        if not projects:
            carried = [torch.where(made, 0, a) for a in arriving]
        passed = torch.where(made[..., None], g, 0)
        log_p = scale * (now @ x.mT) - lse[t][..., None]
        p = log_p.exp()
        w = passed @ v.mT
        w = w - (p * w).sum(-1, keepdim=True) + of_lse[..., None]
        if grad_entropy is not None:
            w = w - of_h[..., None] * torch.where(p > 0, log_p + entropy[t][..., None], 0)
        ds = p * w
        to_v = p.mT @ passed
        if projects:
            to_values = to_v
        else:
            to_patterns = to_patterns + to_v
        to_patterns = to_patterns + scale * (ds.mT @ now)
        drive = ds @ x
        to_beta = to_beta + (drive * now).sum((-1, -2))
        to_now = scale * drive + of_norm[..., None] * now
        g = to_now if projects else torch.where(made[..., None], to_now, g)
    none = x.new_empty(0)

    def like(grad: Tensor | None, t: Tensor | None) -> Tensor:
        assert grad is not None
        assert t is not None
        return grad.sum_to_size(t.shape).to(t.dtype)

    return (
        g.to(state.dtype) if need_state else none.to(state.dtype),
        like(to_patterns, patterns) if need_patterns else none.to(state.dtype),
        like(to_values, values) if need_values else none.to(state.dtype),
        to_beta.sum(0).sum_to_size(beta.shape) if need_beta else none,
    )
