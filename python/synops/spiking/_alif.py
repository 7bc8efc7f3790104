"""alif: leaky integrate-and-fire neurons whose threshold adapts, over a whole sequence."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ._neuron_op import NeuronOp


class ALIF(NamedTuple):
    """What :func:`alif` returns.

    Attributes:
        spikes: as those of :func:`lif`.
        v: ``(..., N)``, the membrane after the last step, float32 (float64 for float64).
        a: ``(..., N)``, the adaptation after it, likewise.
        trajectory: ``(T, ..., N)``, the membrane after every step; None unless recorded.
    """

    spikes: Tensor
    v: Tensor
    a: Tensor
    trajectory: Tensor | None = None


_op = NeuronOp(
    "alif",
    ("v0", "a0"),
    ("beta", "threshold", "rho", "beta_a"),
    fractions=("beta", "rho"),
    adaptive=True,
)


def alif(
    input: Tensor,
    v0: Tensor | None = None,
    a0: Tensor | None = None,
    *,
    beta: float | Tensor,
    rho: float | Tensor,
    beta_a: float | Tensor,
    threshold: float | Tensor = 1.0,
    reset: str = "subtract",
    detach_reset: bool = True,
    surrogate: str = "fast_sigmoid",
    slope: float = 25.0,
    delayed_reset: bool = False,
    inclusive: bool = False,
    spikes: str = "float",
    save: str = "full",
    record: str | None = None,
    backend: str | None = None,
) -> ALIF:
    r"""Leaky integrate-and-fire neurons with an adaptive threshold, all time steps in one pass.

    .. math::
        u_t = \beta v_{t-1} + x_t, \qquad A_t = \theta + \beta_a a_t, \qquad s_t = [u_t > A_t],
        \qquad a_{t+1} = \rho a_t + s_t

    and v_t as of :func:`lif`: what is subtracted is the base threshold, not the adapted one. The
    ALIF neuron of Bellec et al., "Long short-term memory and learning-to-learn in networks of
    spiking neurons" (2018, arXiv:1803.09574) and "A solution to the learning dilemma" (2020), which
    have a delayed reset (``delayed_reset=True``) and surrogate "triangle". Same spikes, bit for bit
    in float32 and float64, as

        v, a, spikes = v0, a0, []
        for x in input.unbind(0):
            u = beta * v + x
            s = spike(u - (threshold + beta_a * a))  # a step forward, the surrogate backward
            v = u - s.detach() * threshold
            a = rho * a + s
            spikes.append(s)
        spikes = torch.stack(spikes)

    A gradient flows through the spike in a, as in backpropagation through time there (norse's
    lsnn_step has none, and a current of its own). The forward saves u - A_t; a_t, too, if beta, rho
    or beta_a need a gradient.

    Args:
        input, beta, threshold: as of :func:`lif`.
        v0, a0: ``(..., N)``, membrane and adaptation before the first step. Default: 0.
        rho: what a step leaves of the adaptation, ``exp(-dt / tau_a)``: a number in [0, 1], or a
            tensor ``()`` or ``(N,)``, which may need a gradient.
        beta_a: how much the threshold rises with a, the strength of the adaptation: any finite
            number, or likewise a tensor.
        delayed_reset: a spike resets the membrane, and adds to the adaptation, at the next step:
            v and a are then those by which the last step fired, u_T and a_T.
        reset, detach_reset, surrogate, slope, inclusive, spikes, save, record, backend: as of
            :func:`lif`.

    Returns:
        :class:`ALIF`, with gradients to input, v0, a0 and all parameters, once.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`lif`.
    """
    fired, (v, a), trajectory = _op(
        input,
        (v0, a0),
        (beta, threshold, rho, beta_a),
        reset=reset,
        detach_reset=detach_reset,
        surrogate=surrogate,
        slope=slope,
        delayed_reset=delayed_reset,
        inclusive=inclusive,
        spikes=spikes,
        save=save,
        record=record,
        backend=backend,
    )
    return ALIF(fired, v, a, trajectory)
