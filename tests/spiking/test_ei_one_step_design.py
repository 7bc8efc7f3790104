"""ei_one_step_design: the rates it is asked for are where the network stays."""

import pytest
import torch

from synops.sparse import Pattern
from synops.spiking import ei_one_step_design, ei_reservoir

N, E = 120, 96


def network(dtype=torch.float64):
    patterns = [Pattern.from_mask(torch.rand(N, k) < 0.2) for k in (E, N - E)]
    values = [torch.rand(p.nnz, dtype=dtype) * 0.2 for p in patterns]
    return {
        "excitatory": values[0],
        "excitatory_pattern": patterns[0],
        "inhibitory": values[1],
        "inhibitory_pattern": patterns[1],
    }


@pytest.mark.parametrize("each", [False, True])
def test_targets_are_a_fixed_point(each):
    net = network()
    target = 0.2 + 0.3 * torch.rand(N, dtype=torch.float64) if each else torch.tensor(0.3).double()
    weight = torch.rand(N, 1, dtype=torch.float64) * 0.1
    rule = {"gain": 6.0, "threshold": 0.05}
    new = ei_one_step_design(**net, target=target, drive=0.7 * weight[:, 0], **rule)
    rho = target.expand(N)
    u = torch.full((1, 1), 0.7, dtype=torch.float64)
    got = ei_reservoir(u, **net | {"inhibitory": new}, state=rho, input_weight=weight, **rule)
    inhibits = net["inhibitory_pattern"].scatter(new).sum(1) > 0
    assert inhibits.float().mean() > 0.9
    torch.testing.assert_close(got.state[inhibits], rho[inhibits], rtol=1e-10, atol=1e-10)
    assert (new >= 0).all()
    assert (got.state[~inhibits] <= rho[~inhibits] + 1e-9).all() or not inhibits.all()


def test_rows_keep_their_proportions():
    """A row is scaled as a whole; one that needs less than no inhibition gets none."""
    net = network()
    drive = torch.zeros(N, dtype=torch.float64)
    drive[3] = -100
    new = ei_one_step_design(**net, target=0.3, drive=drive)
    row = torch.repeat_interleave(net["inhibitory_pattern"].crow.diff().long())
    scale = new / net["inhibitory"]
    assert not new[row == 3].any()
    for n in (0, 50):
        torch.testing.assert_close(scale[row == n], scale[row == n][0].expand((row == n).sum()))


def test_float32_and_gradient():
    net = network(torch.float32)
    net["excitatory"].requires_grad_()
    new = ei_one_step_design(**net, target=0.3)
    assert new.dtype == torch.float32
    new.sum().backward()
    assert net["excitatory"].grad.isfinite().all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"target": 0.0}, ValueError, r"target must lie in \(0, 1\), got 0.0"),
        ({"target": torch.ones(3)}, ValueError, r"target must have shape \(\) or \(N,\)"),
        ({"target": 0.3, "excitatory": torch.ones(2)}, ValueError, "excitatory must have shape"),
        ({"target": 0.3, "inhibitory": [1]}, TypeError, "inhibitory must be a torch.Tensor"),
        ({"target": 0.3, "gain": "1"}, TypeError, "gain must be a number"),
    ],
)
def test_wrong_arguments(change, error, message):
    with pytest.raises(error, match=f"ei_one_step_design: {message}"):
        ei_one_step_design(**network() | change)


def test_negative_weights():
    net = network()
    with pytest.raises(ValueError, match="inhibitory must not be negative"):
        ei_one_step_design(**net | {"inhibitory": -net["inhibitory"]}, target=0.3)
