"""Small reservoirs, and what a loop in numpy says of them."""

import math

import numpy as np
import torch

from synops.sparse import Pattern


def network(neurons=100, degree=10, dtype=torch.float64, weight=3.0):
    """Regular and fast spiking neurons (Izhikevich 2003), a fifth inhibitory; values, pattern,
    keywords."""
    g = torch.Generator().manual_seed(7)
    excites = torch.rand(neurons, generator=g) < 0.8
    r = torch.rand(neurons, generator=g, dtype=torch.float64)
    mask = torch.rand(neurons, neurons, generator=g) < degree / max(1, neurons)
    pattern = Pattern.from_mask(mask)
    sign = torch.where(excites, 1.0, -1.0)
    strength = torch.rand(pattern.nnz, generator=g) * weight
    values = strength * torch.where(excites, 1.0, 2.0)[pattern.col.long()]
    neuron = {
        "a": torch.where(excites, 0.02, 0.02 + 0.08 * r),
        "b": torch.where(excites, 0.2, 0.25 - 0.05 * r),
        "c": torch.where(excites, -65 + 15 * r**2, -65.0),
        "d": torch.where(excites, 8 - 6 * r**2, 2.0),
        "bias": 2 + 8 * r,
    }
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    neuron = {name: t.to(wide) for name, t in neuron.items()}
    return (values * sign[pattern.col.long()]).to(dtype), pattern, neuron


def loop(values, pattern, neuron, steps, v, delay=1, dt=0.5, tau=5.0, tau_rise=None, drive=None):
    """A reservoir step by step, as people write it in numpy with a dense matrix; (T, N) of spikes
    and membranes. drive: (T, N), currents from outside."""
    weights = np.zeros(pattern.shape)
    weights[pattern.mask().numpy()] = values.double().numpy()
    a, b, c, d, bias = (t.double().numpy() for t in neuron.values())
    v = v.double().numpy().copy()
    u = b * v
    slow, fast = np.zeros_like(v), np.zeros_like(v)  # the two exponentials
    if tau_rise is not None:
        t = math.log(tau / tau_rise) * tau * tau_rise / (tau - tau_rise)
        weights = weights / (math.exp(-t / tau) - math.exp(-t / tau_rise))
    delay = np.broadcast_to(np.asarray(delay), v.shape)
    spikes, membranes = [], []
    for t in range(steps):
        current = slow - fast + bias + (0 if drive is None else drive[t].double().numpy())
        v, u = v + dt * (0.04 * v**2 + 5 * v + 140 - u + current), u + dt * a * (b * v - u)
        fired = v >= 30
        v[fired] = c[fired]
        u[fired] += d[fired]
        spikes.append(fired)
        membranes.append(v.copy())
        sent = np.array([t >= k - 1 and spikes[t - k + 1][n] for n, k in enumerate(delay)])
        arriving = weights[:, sent.astype(bool)].sum(1) if len(v) else 0
        slow = slow * math.exp(-dt / tau) + arriving
        if tau_rise is not None:
            fast = fast * math.exp(-dt / tau_rise) + arriving
    return np.array(spikes), np.array(membranes)
