"""head_scores: what the heads of a self-attention look at, without its N x N maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .._check import check_device, check_shape, check_tensor, dtype_name, fail
from ._attention_pick import attention_pick, check_attention
from ._attention_with_stats import check_window, mask_of_attention, scale_of
from ._occurrences import Attention, earlier_sum, occurrences

_NAME = "head_scores"


class HeadScores(NamedTuple):
    """What was asked for, ``(B, H)``; None for the rest."""

    previous_token: Tensor | None = None
    current_token: Tensor | None = None
    sink: Tensor | None = None
    induction: Tensor | None = None
    prefix_matching: Tensor | None = None
    duplicate_token: Tensor | None = None


_KNOWN = HeadScores._fields
_OF_PLACES = _KNOWN[:3]  # the others are of tokens


def head_scores(
    query: Tensor,
    key: Tensor,
    lse: Tensor,
    tokens: Tensor | None = None,
    *,
    scores: Sequence[str] | str | None = None,
    mask: Tensor | None = None,
    attn_mask: Tensor | None = None,
    window: int | None = None,
    scale: float | None = None,
) -> HeadScores:
    r"""How much each head looks at the token before, at the sink, or where its token led before.

    Means, over the positions i of a sequence, of probabilities :math:`p_{ij} = \exp(s\, q_i \cdot
    k_j + m_{ij} - \text{lse}_i)` of a self-attention, with t the tokens:

    ===================  =======================================  ==================================
    score                probability                              over
    ===================  =======================================  ==================================
    ``previous_token``   :math:`p_{i,i-1}`                        i with a position before it
    ``current_token``    :math:`p_{ii}`                           every i
    ``sink``             :math:`p_{i0}`                           every i, the first one too
    ``induction``        :math:`p_{i,k+1}`, k the last earlier    i whose token occurred before
                         position with :math:`t_k = t_i`
    ``prefix_matching``  :math:`\sum_{k<i,\,t_k=t_i} p_{i,k+1}`   i whose token occurred before
    ``duplicate_token``  :math:`\sum_{k<i,\,t_k=t_i} p_{ik}`      i whose token occurred before
    ===================  =======================================  ==================================

    Where no token occurs more than twice (random tokens repeated once), induction and prefix
    matching are the same. ``previous_token`` is ``softmax(scale * q @ k.mT + mask).diagonal(-1, -2,
    -1).mean(-1)`` and the others likewise: no map is made here. All need the ``lse`` of
    :func:`attention_with_stats`; the first four then take O(N D) time, the last two time in
    proportion to the pairs of equal tokens, and all of them O(N D) memory. Gradients to query, key
    and lse, to any order; that of lse goes on through :func:`attention_with_stats`.

    Args:
        query: ``(B, H, N, D)``, float32, float64, bfloat16 or float16.
        key: ``(B, Hkv, N, D)``, dtype of ``query``; Hkv divides H.
        lse: ``(B, H, N)``, float32 (float64 for float64).
        tokens: ``(B, N)``, integers; what was read at each position. Only whether they are equal
            counts.
        scores: any of the names above; default all, without ``tokens`` the first three.
        mask: ``(B, N)``, bool: False at padding, which is neither averaged over nor counts as
            a position before or an occurrence; the sink is then the first position that is True.
        attn_mask, window, scale: those of the attention, as in :func:`attention_with_stats`
            (``attn_mask`` has no gradient). A place that they hide counts as if it were seen when
            they are not given, and may be above 1. Whether the attention was causal need not be
            said: no position looks ahead here.

    Returns:
        :class:`HeadScores` of ``(B, H)`` tensors, dtype of ``lse``; None for what was not asked
        for. NaN for a sequence in which no position counts (gradient 0), as of any mean of nothing:
        ``nanmean(0)`` is the mean over a batch.

    Raises:
        TypeError: not tensors, or dtypes that do not fit.
        ValueError: a shape, device, option or score that does not fit.
        NotImplementedError: ``attn_mask`` requires a gradient.

    ``prefix_matching`` and ``duplicate_token`` wait for the device once (how often tokens occur);
    the others never, and only they go through ``torch.compile(fullgraph=True)``.

    Source: C. Olsson et al., In-context Learning and Induction Heads, arXiv:2209.11895 (prefix
    matching on repeated random tokens; averaged there over entries, summed here over occurrences).
    TransformerLens' head detector ("mul") has these sums divided by N, whatever counts. G. Xiao et
    al., arXiv:2309.17453 (sinks). The induction strength of A. Singh et al., arXiv:2404.07129, is p
    of the right label less p of the wrong one at the query: two columns of :func:`attention_pick`.
    """
    _check_args(query, key, lse, tokens, mask, window)
    asked = _asked(scores, tokens)
    b, _, n, _ = query.shape
    attn_mask = mask_of_attention(_NAME, attn_mask, query, key)
    attention = Attention(query, key, lse, attn_mask, window, scale_of(_NAME, scale, query))
    exists = query.new_ones(b, n, dtype=torch.bool) if mask is None else mask
    place = torch.arange(n, device=query.device)[None]
    made = {}
    if "previous_token" in asked:
        counts = exists & exists.roll(1, 1) & (place > 0)
        made["previous_token"] = _mean(
            _pick_sum(attention, (place - 1).clamp(min=0), counts), counts
        )
    if "current_token" in asked:
        made["current_token"] = _mean(_pick_sum(attention, place, exists), exists)
    if "sink" in asked:
        first = torch.zeros_like(place)
        if mask is not None and n:
            first = mask.byte().argmax(1, keepdim=True).expand_as(mask)
        made["sink"] = _mean(_pick_sum(attention, first, exists), exists)
    if tokens is not None and asked - set(_OF_PLACES):
        found = occurrences(tokens, exists)
        counts = found.latest >= 0
        if "induction" in asked:
            picked = _pick_sum(attention, found.latest + 1, counts)
            made["induction"] = _mean(picked, counts)
        for name, shift in (("prefix_matching", 1), ("duplicate_token", 0)):
            if name in asked:
                made[name] = _mean(earlier_sum(attention, found, shift), counts)
    return HeadScores(**made)


def _pick_sum(attention: Attention, at: Tensor, counts: Tensor) -> Tensor:
    """Sum of p[i, at[i]] over the i that count: (B, H). ``at`` is (1, N) or (B, N)."""
    b, heads, n = attention.lse.shape
    # where lse is inf, a probability is 0, and so is its gradient
    lse = attention.lse.masked_fill(~counts[:, None], torch.inf)
    batch = torch.arange(b, device=at.device).view(-1, 1, 1, 1)
    row = torch.arange(n, device=at.device).view(-1, 1)
    bias = attention.bias(batch, row, at[:, None, :, None])
    if bias is not None:
        lse = lse - bias.squeeze(-1)
    index = at.mT if len(at) == 1 else at[:, None, :, None].expand(b, heads, n, 1)
    picked = attention_pick(attention.query, attention.key, lse, index, scale=attention.scale)
    return picked.sum((-1, -2))


def _mean(total: Tensor, counts: Tensor) -> Tensor:
    """Of the positions that count; NaN where none does."""
    count = counts.sum(1)[:, None]
    return torch.where(count > 0, total / count.clamp(min=1), torch.nan)


def _asked(scores: Sequence[str] | str | None, tokens: Tensor | None) -> set[str]:
    if scores is None:
        return set(_OF_PLACES if tokens is None else _KNOWN)
    try:
        asked = (scores,) if isinstance(scores, str) else tuple(scores)
    except TypeError:
        fail(TypeError, _NAME, "scores", "be names of scores", type(scores).__name__)
    for name in asked:
        if not isinstance(name, str):
            fail(TypeError, _NAME, "scores", "be names of scores", type(name).__name__)
        if name not in _KNOWN:
            fail(ValueError, _NAME, "scores", f"be of {', '.join(_KNOWN)}", repr(name))
        if tokens is None and name not in _OF_PLACES:
            fail(ValueError, _NAME, "tokens", f"be given for {name}", None)
    return set(asked)


def _check_args(
    query: Tensor,
    key: Tensor,
    lse: Tensor,
    tokens: Tensor | None,
    mask: Tensor | None,
    window: int | None,
) -> None:
    check_attention(_NAME, query, key, lse)
    b, _, n, _ = query.shape
    if key.shape[2] != n:
        fail(ValueError, _NAME, "key", f"have the positions of query ({n})", key.shape[2])
    for name, t in (("tokens", tokens), ("mask", mask)):
        if t is not None:
            check_tensor(_NAME, name, t)
            check_device(_NAME, name, t, query, "query")
            check_shape(_NAME, name, t, "(B, N)", (b, n))
    if tokens is not None and (
        tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool
    ):
        fail(TypeError, _NAME, "tokens", "be integers", dtype_name(tokens.dtype))
    if mask is not None and mask.dtype != torch.bool:
        fail(TypeError, _NAME, "mask", "be bool", dtype_name(mask.dtype))
    check_window(_NAME, window)
