"""lif: a layer of leaky integrate-and-fire neurons over a whole sequence."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ._neuron_op import NeuronOp


class LIF(NamedTuple):
    """What :func:`lif` returns.

    Attributes:
        spikes: ``(T, ..., N)``, 0 or 1, in the dtype of the input or uint8; or
            ``(T, ..., ceil(N / 8))``, uint8, a bit a neuron.
        v: ``(..., N)``, the state after the last step, float32 (float64 for float64).
        trajectory: ``(T, ..., N)``, the state after every step; None unless recorded.
    """

    spikes: Tensor
    v: Tensor
    trajectory: Tensor | None = None


_op = NeuronOp("lif", ("v0",), ("beta", "threshold"), fractions=("beta",))


def lif(
    input: Tensor,
    v0: Tensor | None = None,
    *,
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
) -> LIF:
    r"""Leaky integrate-and-fire neurons, all time steps in one pass.

    .. math::
        u_t = \beta v_{t-1} + x_t, \qquad s_t = [u_t > \theta], \qquad
        v_t = u_t - \theta s_t \;\text{ (subtract), }\; (1 - s_t) u_t \;\text{ (zero), }\;
        u_t \;\text{ (none)}

    Same spikes, bit for bit in float32 and float64, as

        v, spikes = v0, []
        for x in input.unbind(0):
            u = beta * v + x
            s = spike(u - threshold)  # a step forward, the surrogate backward
            v = u - s.detach() * threshold
            spikes.append(s)
        spikes = torch.stack(spikes)

    The forward reads the input and writes the spikes, once each; where a gradient is needed it
    saves u, and the backward is one pass back in time over u and the gradient of the spikes.
    Two calls, the second with the ``v`` of the first, give the numbers of one.

    Args:
        input: ``(T, ..., N)``, time first: float32, float64, bfloat16 or float16. Its steps may lie
            in any dense layout (channels-last images keep theirs), or be rows of ``(..., T, N)``.
        v0: ``(..., N)``, the state before the first step. Default: 0.
        beta: what a step leaves of the membrane, ``exp(-dt / tau)`` of a time constant: a number
            in [0, 1], or a tensor ``()`` or ``(N,)``, one for each neuron, which may need a
            gradient.
        threshold: likewise, any finite number.
        reset: what a spike does to the membrane: "subtract" the threshold, set it to "zero", or
            "none".
        detach_reset: no gradient flows through the spike in the reset. (To a threshold that is
            subtracted one does.)
        surrogate: what stands for the derivative of the step at d = u - threshold, k = slope:

            ============== ================================ =======================================
            "fast_sigmoid" 1 / (1 + k \|d\|)^2              Zenke & Ganguli, arXiv:1705.11146
            "superspike"   the same                         its name there and in norse
            "atan"         k/2 / (1 + (pi/2 k d)^2)         Fang et al., arXiv:2007.05785
            "sigmoid"      k e / (1 + e)^2, e = exp(-k d)   Neftci et al., arXiv:1901.09948
            "boxcar"       k where \|d\| < 1 / (2 k)        Wu et al., arXiv:1706.02609
            "triangle"     max(0, 1 - k \|d\|)              Bellec et al., arXiv:1803.09574
            "qgate"        k max(0, 1 - k \|d\|)            quadratic gate of BrainCog
            ============== ================================ =======================================

        slope: k, positive.
        delayed_reset: a spike resets the membrane in the next step and not at once:
            u_t = beta u_{t-1} + x_t - theta s_{t-1} ("zero": beta (1 - s_{t-1}) u_{t-1} + x_t).
            The state ``v`` is then the membrane u itself.
        inclusive: spike where u >= threshold.
        spikes: "float", in the dtype of the input; or, where no gradient is needed, "uint8", or
            "bits": bit i % 8 (the least is bit 0) of byte i // 8 is neuron i of the last dimension,
            and what is behind the last one is 0; :func:`unpack_spikes` has them back.
        save: what the forward saves for the backward where a gradient is needed, "full": u; or
            "half": u - threshold in float16, 2 bytes for 4. Spikes of the backward stay those of
            the forward (the number keeps its sign). Gradients are those of distances rounded to 11
            bits, relative to themselves, so also near the threshold; a distance above 65504 counts
            as infinite. (bfloat16 would have 8 bits, and errors 8 times as large.) Not for float64.
        record: "v" returns the state after every step, which may have a gradient, too.
        backend: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``; default as chosen by
            :func:`synops.backend`.

    Returns:
        :class:`LIF`, with gradients to input, v0, beta and threshold, once. A membrane of NaN
        does not spike and stays NaN, with all gradients of its neuron before.

    Raises:
        TypeError: not tensors or numbers, or of a dtype that is not taken.
        ValueError: a shape, device, number or name is wrong. (The values of tensors are not
            looked at.)
        RuntimeError: ``backend`` cannot run here.

    What others compute, with the same spikes and gradients:

    ===================================== ==========================================================
    snnTorch ``Leaky(beta)``              ``delayed_reset=True, surrogate="atan", slope=2``
    SpikingJelly ``LIFNode(tau)``         ``lif(input / tau, beta=1 - 1 / tau, reset="zero",
                                          inclusive=True, detach_reset=False, surrogate="sigmoid",
                                          slope=4)``; ``decay_input=False``: input as it is;
                                          ``v_reset=None``: ``reset="subtract"``
    norse ``lif_box_feed_forward_step``   ``lif(input * a, beta=1 - a, reset="zero",
                                          detach_reset=False, surrogate="superspike", slope=1)``
                                          with a = dt * tau_mem_inv (its alpha = 100 is not
                                          looked at in release 1.1.0)
    ===================================== ==========================================================

    (SpikingJelly's and norse's products are rounded in another order, which moves a spike where
    the membrane is within a rounding of the threshold. snnTorch's ``reset_delay=False`` is the
    default here with ``detach_reset=False``, but it resets once more where the membrane is above
    the threshold after a reset, too.) SpikingJelly's ``SuperSpike(alpha)`` is
    "fast_sigmoid" of slope 1, alpha times; its ``ATan``, ``Sigmoid``, ``Rect`` and
    ``PiecewiseQuadratic`` are "atan", "sigmoid", "boxcar" and "qgate" of slope alpha.
    """
    spikes_, (v,), trajectory = _op(
        input,
        (v0,),
        (beta, threshold),
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
    return LIF(spikes_, v, trajectory)
