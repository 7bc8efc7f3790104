"""Attention maps in full, and the scores of heads read off them position by position."""

import torch

from synops.entropy import HeadScores

ALL = HeadScores._fields


def probabilities(query, key, attn_mask=None, window=None, scale=None, is_causal=True):
    """The N x N maps, in float64."""
    key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    n, size = query.shape[2:]
    scores = (size**-0.5 if scale is None else scale) * query.double() @ key.double().mT
    place = torch.arange(n)
    far = place[:, None] - place
    seen = far >= 0 if is_causal else far == far
    if window is not None:
        seen &= far.abs() < window
    scores = scores.masked_fill(~seen, -torch.inf)
    if attn_mask is not None:
        bias = attn_mask.double()
        scores = scores + (attn_mask.double().log() if attn_mask.dtype == torch.bool else bias)
    blind = (scores == -torch.inf).all(-1, keepdim=True)
    return scores.masked_fill(blind, 0).softmax(-1).masked_fill(blind, 0)


def loops(p, tokens, mask=None):
    """The definitions, position by position: {name: (B, H)}."""
    b, heads, n = p.shape[:3]
    found = {name: p.new_full((b, heads), torch.nan) for name in ALL}
    for s in range(b):
        here = [i for i in range(n) if mask is None or mask[s, i]]
        terms = {name: [] for name in ALL}
        for i in here:
            if i - 1 in here:
                terms["previous_token"].append(p[s, :, i, i - 1])
            terms["current_token"].append(p[s, :, i, i])
            terms["sink"].append(p[s, :, i, here[0]])
            before = [k for k in here if k < i and tokens[s, k] == tokens[s, i]]
            if before:
                terms["induction"].append(p[s, :, i, before[-1] + 1])
                terms["prefix_matching"].append(sum(p[s, :, i, k + 1] for k in before))
                terms["duplicate_token"].append(sum(p[s, :, i, k] for k in before))
        for name, made in terms.items():
            if made:
                found[name][s] = torch.stack(made).mean(0)
    return HeadScores(**found)
