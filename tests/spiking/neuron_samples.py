"""Inputs of alif and cuba_lif, as lif_samples.py has them for lif, and what float64 says."""

import torch
from lif_samples import DISTANCE, SLOPE
from torch import Tensor

from close import assert_close, assert_grad_close
from synops.spiking import alif, cuba_lif

OPS = {"alif": alif, "cuba_lif": cuba_lif}
PARAMETERS = {
    "alif": {"beta": 0.9, "rho": 0.95, "beta_a": 0.2},
    "cuba_lif": {"alpha": 0.5, "beta": 0.9},
}
STATES = {"alif": ("v0", "a0"), "cuba_lif": ("v0", "i0")}
RULES = [
    {"reset": "subtract", "surrogate": "triangle"},
    {"reset": "subtract", "surrogate": "atan", "detach_reset": False, "inclusive": True},
    {"reset": "subtract", "surrogate": "sigmoid", "delayed_reset": True},
    {
        "reset": "subtract",
        "surrogate": "superspike",
        "delayed_reset": True,
        "detach_reset": False,
    },
    {"reset": "zero", "surrogate": "boxcar"},
    {"reset": "zero", "surrogate": "qgate", "detach_reset": False},
    {"reset": "zero", "surrogate": "fast_sigmoid", "delayed_reset": True, "detach_reset": False},
    {"reset": "none", "surrogate": "atan", "delayed_reset": True},
]


def sample(name: str, shape, dtype, *, per_neuron=True, start=True, **rule) -> dict:
    """Arguments in float64 whose numbers are of ``dtype``; no spike is within a rounding."""
    rule = {"slope": SLOPE} | rule
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    n = shape[-1:] if per_neuron else ()

    def number(low, high, shape=n):
        return (low + (high - low) * torch.rand(shape)).to(wide).double()

    s = {"beta": number(0.6, 0.95), "threshold": number(0.7, 1.3)}
    if name == "alif":
        s |= {"rho": number(0.7, 0.97), "beta_a": number(0.1, 0.4)}
    else:
        s |= {"alpha": number(0.2, 0.6)}
    s |= {k: number(-0.5, 0.5, shape[1:]) if start else None for k in STATES[name]}
    x = (torch.randn(shape) * 0.6 + 0.2).to(dtype).double()
    half = dtype in (torch.bfloat16, torch.float16)
    states = {k: s[k] for k in STATES[name]}
    for t in range(shape[0]):  # step by step, since a step moves all behind it
        while (near := _near(name, s, rule, x[t], states)).any():
            x[t] = (x[t] + near * (0.0625 if half else 0.01)).to(dtype).double()
        got = OPS[name](x[t : t + 1], **s | states, **rule, backend="reference")
        states = dict(zip(STATES[name], got[1:3], strict=True))
    return s | {"input": x, "rule": rule}


def _near(name, s, rule, x, states) -> Tensor:
    """Where something jumps: found by moving the threshold."""
    jumps = [0.0, 0.5 / SLOPE, 1 / SLOPE]
    edges = [sign * e for e in jumps for sign in (-1, 1)]
    near = torch.zeros_like(x, dtype=torch.bool)
    if rule["reset"] != "none" and rule.get("delayed_reset"):
        # the reset of the step before would move, too: take it from the state alone
        before = _fired(name, s, rule, states)
        u, bar = _membrane(name, s, rule, x, states, before)
    else:
        u, bar = _membrane(name, s, rule, x, states, torch.zeros_like(x))
    for e in edges:
        near |= (u - bar - e).abs() < DISTANCE
    return near


def _state(s, states, name, like):
    return torch.zeros_like(like) if states[name] is None else states[name]


def _fired(name, s, rule, states) -> Tensor:
    like = s["beta"].new_zeros(()) if states["v0"] is None else states["v0"]
    v = _state(s, states, "v0", like)
    bar = s["threshold"]
    if name == "alif":
        bar = bar + s["beta_a"] * _state(s, states, "a0", like)
    return (v >= bar if rule.get("inclusive") else v > bar).double()


def _membrane(name, s, rule, x, states, before):
    v = _state(s, states, "v0", x)
    w = _state(s, states, STATES[name][1], x)
    bar, drive = s["threshold"], x
    if name == "alif":
        late = rule["reset"] != "none" and rule.get("delayed_reset")
        bar = bar + s["beta_a"] * (s["rho"] * w + before if late else w)
    else:
        drive = s["alpha"] * w + x
    if rule["reset"] == "zero":
        v = (1 - before) * v
    owed = before * s["threshold"] if rule["reset"] == "subtract" else 0
    return s["beta"] * v + drive - owed, bar


def call(name, s, dtype, **options):
    """On the arguments in ``dtype``, states and parameters in that of the state."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    kinds = {
        k: t.to(dtype if k == "input" else wide) for k, t in s.items() if isinstance(t, Tensor)
    }
    return OPS[name](**kinds, **s["rule"], **options), kinds


def gradients(name, s, dtype, grads, wanted=None, **options):
    """Of all arguments, or of those ``wanted``, for the gradients of all results."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    leaves = {}
    for k, t in s.items():
        if isinstance(t, Tensor):
            leaf = t.to(dtype if k == "input" else wide).detach().clone()
            leaves[k] = leaf.requires_grad_(wanted is None or k in wanted)
    got = OPS[name](**leaves, **s["rule"], record="v", **options)
    pairs = [(o, g.to(o.dtype)) for o, g in zip(got, grads, strict=True) if g is not None]
    outputs, incoming = zip(*pairs, strict=True)
    wanted = [k for k in leaves if leaves[k].requires_grad]
    found = torch.autograd.grad(
        outputs, [leaves[k] for k in wanted], incoming, materialize_grads=True
    )
    return dict(zip(wanted, found, strict=True))


def incoming_for(s, dtype):
    """A gradient for each result, of the numbers of its type."""
    shape = s["input"].shape
    return (
        torch.randn(shape).to(dtype).double(),
        *(torch.randn(shape[1:]).double() for _ in range(2)),
        torch.randn(shape).double(),
    )


def check(name, s, dtype, **options):
    """Results and gradients in ``dtype`` against those of the reference in float64."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    got, _ = call(name, s, dtype, record="v", **options)
    want, _ = call(name, s, torch.float64, record="v", backend="reference")
    assert got.spikes.dtype == dtype
    assert torch.equal(got.spikes.double(), want.spikes)
    size = torch.tensor(3.0, dtype=torch.float64)  # of membranes and adaptations
    for one, other in zip(got[1:], want[1:], strict=True):
        assert_close(one, other, wide, 10, size.expand_as(other))
    grads = incoming_for(s, dtype)
    found = gradients(name, s, dtype, grads, **options)
    exact = gradients(name, s, torch.float64, grads, backend="reference")
    T = s["input"].shape[0]
    for k, g in found.items():
        kind = dtype if k == "input" else wide
        assert_grad_close(g, exact[k], kind, max(10, 2 * T), scale(exact, k, T))


def scale(exact, name, steps):
    """The size of partial sums: of the terms of a gradient, which may cancel."""
    g, of_input = exact[name], exact["input"]
    terms = 1 if name in ("input", "v0", "a0", "i0") else of_input.numel() / steps / g.numel()
    typical = of_input.square().mean().sqrt()
    return (g.abs() + 8 * max(1, terms) ** 0.5 * typical).expand_as(g)
