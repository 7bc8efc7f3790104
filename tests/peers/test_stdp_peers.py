"""Parity of stdp with SpikingJelly 2.0.0 and BindsNET 0.3.4: `make peers` has the first of them.

BindsNET imports torchvision, gymnasium and more with its learning rules; where it does not import,
its equations are the loop of docs/stdp.md, which test_stdp.py has.
"""

import pytest
import torch

from synops.hebbian import STDPState, stdp

pytestmark = pytest.mark.peers
REASON = "not installed"
STEPS, BATCH, INPUTS, OUTPUTS = 30, 3, 20, 12


def spikes():
    torch.manual_seed(0)
    return [(torch.rand(STEPS, BATCH, n) < 0.2).double() for n in (INPUTS, OUTPUTS)]


def test_spikingjelly():
    learning = pytest.importorskip(
        "spikingjelly.activation_based.functional.learning", reason=REASON
    )
    pre, post = spikes()
    start = torch.rand(OUTPUTS, INPUTS, dtype=torch.float64)
    traces = (torch.rand_like(pre[0]), torch.rand_like(post[0]))
    rule = {"lr": 0.01, "leak": "euler", "reduction": "sum", "tau_plus": 5.0, "tau_minus": 9.0}
    got = stdp(start, pre, post, STDPState(*traces), **rule, clip=(0.0, 1.0))
    theirs = {"tau_pre": 5.0, "tau_post": 9.0, "f_pre": lambda w: 0.01, "f_post": lambda w: 0.01}
    w = start.clone()
    for x, y in zip(pre, post, strict=True):
        change, traces = learning.stdp_linear_step(x, y, traces, w, **theirs)
        w.add_(change).clamp_(0, 1)
    torch.testing.assert_close(got.weight, w, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(got.state.pre, traces[0])
    torch.testing.assert_close(got.state.post, traces[1])


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("additive", [False, True])
def test_bindsnet(soft, additive):
    learning = pytest.importorskip("bindsnet.learning", reason=REASON, exc_type=Exception)
    nodes = pytest.importorskip("bindsnet.network.nodes", reason=REASON)
    topology = pytest.importorskip("bindsnet.network.topology", reason=REASON)
    pre, post = (t.float() for t in spikes())
    start = torch.rand(OUTPUTS, INPUTS)
    sides = [nodes.Input(n=n, traces=True, traces_additive=additive) for n in (INPUTS, OUTPUTS)]
    kind = learning.WeightDependentPostPre if soft else learning.PostPre
    link = topology.Connection(*sides, w=start.t().clone(), update_rule=kind, nu=(0.02, 0.01),
                               wmin=0.0, wmax=1.0, reduction=torch.sum)  # fmt: skip
    for side in sides:
        side.set_batch_size(BATCH)
        side.compute_decays(1.0)
    for x, y in zip(pre, post, strict=True):
        for side, s in zip(sides, (x, y), strict=True):
            side.forward(s.bool())
        link.update_rule.update()
    rule = {"lr": 0.01, "a_minus": 2.0, "reduction": "sum", "clip": (0.0, 1.0)}
    rule |= {"pairing": "all" if additive else "nearest", "bounds": "soft" if soft else "hard"}
    got = stdp(start, pre, post, **rule)
    torch.testing.assert_close(got.weight, link.w.data.t(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got.state.pre, sides[0].x.view(BATCH, INPUTS))


def test_bindsnet_reward():
    learning = pytest.importorskip("bindsnet.learning", reason=REASON, exc_type=Exception)
    nodes = pytest.importorskip("bindsnet.network.nodes", reason=REASON)
    topology = pytest.importorskip("bindsnet.network.topology", reason=REASON)
    pre, post = (t[:, :1].float() for t in spikes())
    start = torch.rand(OUTPUTS, INPUTS)
    sides = [nodes.Input(n=n, traces=True) for n in (INPUTS, OUTPUTS)]
    link = topology.Connection(*sides, w=start.t().clone(), update_rule=learning.MSTDPET, nu=0.1,
                               wmin=0.0, wmax=1.0, tc_e_trace=25.0, zero_lag=True)  # fmt: skip
    for side in sides:
        side.set_batch_size(1)
    link.dt = 1.0
    rewards = torch.randn(STEPS)
    for x, y, reward in zip(pre, post, rewards, strict=True):
        sides[0].s, sides[1].s = x.bool(), y.bool()
        link.update_rule.update(reward=reward)
    rule = {"lr": 0.1 / 25, "tau_e": 25.0, "clip": (0.0, 1.0)}
    got = stdp(start, pre, post, reward=rewards, **rule)
    torch.testing.assert_close(got.weight, link.w.data.t(), rtol=1e-5, atol=1e-6)
