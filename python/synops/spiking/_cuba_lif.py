"""cuba_lif: leaky integrate-and-fire neurons with a synaptic current, over a whole sequence."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ._neuron_op import NeuronOp


class CubaLIF(NamedTuple):
    """What :func:`cuba_lif` returns.

    Attributes:
        spikes: as those of :func:`lif`.
        v: ``(..., N)``, the membrane after the last step, float32 (float64 for float64).
        i: ``(..., N)``, the current after it, likewise.
        trajectory: ``(T, ..., N)``, the membrane after every step; None unless recorded.
    """

    spikes: Tensor
    v: Tensor
    i: Tensor
    trajectory: Tensor | None = None


_op = NeuronOp(
    "cuba_lif", ("v0", "i0"), ("beta", "threshold", "alpha"), fractions=("beta", "alpha")
)


def cuba_lif(
    input: Tensor,
    v0: Tensor | None = None,
    i0: Tensor | None = None,
    *,
    alpha: float | Tensor,
    beta: float | Tensor,
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
) -> CubaLIF:
    r"""Current-based leaky integrate-and-fire neurons, all time steps in one pass.

    .. math::
        i_t = \alpha i_{t-1} + x_t, \qquad u_t = \beta v_{t-1} + i_t, \qquad s_t = [u_t > \theta]

    and v_t as of :func:`lif`; a reset leaves the current as it is. Same spikes, bit for bit in
    float32 and float64, as

        v, i, spikes = v0, i0, []
        for x in input.unbind(0):
            i = alpha * i + x
            u = beta * v + i
            s = spike(u - threshold)  # a step forward, the surrogate backward
            v = u - s.detach() * threshold
            spikes.append(s)
        spikes = torch.stack(spikes)

    The forward saves u where a gradient is needed; i, too, if alpha needs one.

    Args:
        input, beta, threshold: as of :func:`lif`.
        v0, i0: ``(..., N)``, membrane and current before the first step. Default: 0.
        alpha: what a step leaves of the current, ``exp(-dt / tau_syn)``: a number in [0, 1], or a
            tensor ``()`` or ``(N,)``, one for each neuron, which may need a gradient.
        reset, detach_reset, surrogate, slope, delayed_reset, inclusive, spikes, save, record,
            backend: as of :func:`lif`.

    Returns:
        :class:`CubaLIF`, with gradients to input, v0, i0 and all parameters, once.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`lif`.

    What others compute, with the same spikes and gradients:

    ======================================= ========================================================
    snnTorch ``Synaptic(alpha, beta)``      ``delayed_reset=True, surrogate="atan", slope=2`` (with
                                            ``reset_mechanism="zero"`` it drops the current and the
                                            input of the step after a spike, too: not here)
    norse ``lif_feed_forward_step``         ``cuba_lif(input * m, i0=i0 * m / alpha,
                                            alpha=1 - dt * tau_syn_inv, beta=1 - m, reset="zero",
                                            detach_reset=False, surrogate="superspike",
                                            slope=1)`` with m = dt * tau_mem_inv; its state i is
                                            ``alpha / m`` times this one
    SpikingJelly ``ILCCUBALIFNode``         its neurons are ``alpha=c_decay, beta=v_decay,
                                            inclusive=True``, with the reset as of :func:`lif`
    ======================================= ========================================================
    """
    fired, (v, i), trajectory = _op(
        input,
        (v0, i0),
        (beta, threshold, alpha),
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
    return CubaLIF(fired, v, i, trajectory)
