"""ei_one_step_design: inhibition that puts every unit's mean field at its target rate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._check import check_device, check_float, check_shape, fail
from ..sparse import Pattern, sparse_linear
from ._ei_reservoir import check_dale, check_networks
from ._neurons import parameter_of


def ei_one_step_design(
    excitatory: Tensor,
    excitatory_pattern: Pattern,
    inhibitory: Tensor,
    inhibitory_pattern: Pattern,
    *,
    target: float | Tensor,
    drive: float | Tensor = 0.0,
    gain: float | Tensor = 10.0,
    threshold: float | Tensor = 0.0,
) -> Tensor:
    r"""Inhibitory weights at which the rates :math:`\rho` are a fixed point, without a run.

    The inhibition of unit i is multiplied by

    .. math:: \Omega_i = \frac{\sum_j A^E_{ij} \rho_j + \langle W_{in} u \rangle_i - \theta
              - \mathrm{logit}(\rho_i) / c}{\sum_j A^I_{ij} \rho_j}

    so that :math:`\sigma(c (V_i - \theta)) = \rho_i` where all units have their target rate. A unit
    that would need less than none gets none; one without inhibitory entries stays as it is.

    Args:
        excitatory, excitatory_pattern, inhibitory, inhibitory_pattern, gain, threshold: as in
            :func:`ei_reservoir`.
        target: rho, a number in (0, 1) or a tensor ``()`` or ``(N,)``.
        drive: mean of ``input_weight @ u``, likewise.

    Returns:
        ``(nnz,)``, the new inhibitory weights; differentiable.

    Raises:
        TypeError, ValueError: as :func:`ei_reservoir`.

    Source: K. Srinivasan et al., arXiv:2504.12480 (one-step design).
    """
    op = "ei_one_step_design"
    check_float(op, "excitatory", excitatory)
    check_float(op, "inhibitory", inhibitory)
    check_networks(op, excitatory_pattern, inhibitory_pattern, excitatory)
    check_device(op, "inhibitory", inhibitory, excitatory)
    networks = (
        ("excitatory", excitatory, excitatory_pattern),
        ("inhibitory", inhibitory, inhibitory_pattern),
    )
    for name, values, pattern in networks:
        check_shape(op, name, values, "(nnz,)", (pattern.nnz,))
        check_dale(op, name, values)
    if isinstance(target, bool) or (isinstance(target, int | float) and not 0 < target < 1):
        fail(ValueError, op, "target", "lie in (0, 1)", target)
    rows, units = excitatory_pattern.shape
    like = excitatory.new_empty((0, rows))
    each: dict[str, Any] = {"target": target, "drive": drive, "gain": gain, "threshold": threshold}
    rho, mean, c, theta = (parameter_of(op, k, v, like) for k, v in each.items())
    rho = rho.expand(rows)
    wide = rho.dtype
    weights = inhibitory.to(wide)
    excites = sparse_linear(rho[None, :units], excitatory.to(wide), excitatory_pattern)[0]
    inhibits = sparse_linear(rho[None, units:], weights, inhibitory_pattern)[0]
    wanted = (excites + mean - theta - torch.logit(rho) / c).clamp_min(0)
    scale = torch.where(inhibits > 0, wanted / inhibits.where(inhibits > 0, 1), 1)
    row = inhibitory_pattern.crow.diff().long()
    return weights * scale.repeat_interleave(row)
