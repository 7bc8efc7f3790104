"""Hugging Face transformers: attention that knows its entropies, in any model, without its maps.

    from synops.integrations import transformers as synops_transformers

    synops_transformers.register()
    model = AutoModelForCausalLM.from_pretrained(name, attn_implementation="synops")
    model(**batch, output_attentions=True).attentions  # a layer each: entropies (B, H, N)

    with synops_transformers.EntropyMonitor(model) as monitor:
        trainer.train()
    monitor.mean  # (layers, heads)

``import synops`` leaves this module, and transformers, alone.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .._check import fail

try:
    from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
    from transformers.masking_utils import sdpa_mask
    from transformers.utils.output_capturing import _active_collector
except ImportError as error:
    raise ImportError(
        "synops.integrations.transformers needs transformers 5.4 or later: "
        'pip install "synops[transformers]"'
    ) from error

from ..entropy import attention_with_stats
from ._entropy_monitor import NAME, EntropyMonitor, observers

__all__ = ["EntropyMonitor", "register"]

# What models hand to their attention that changes the softmax or what it is taken over, and that
# the kernels do not know. Left out, each would give other numbers than the model's.
_REFUSED = {
    "softcap": "scores through tanh (Gemma 2)",
    "s_aux": "attention sinks (gpt-oss)",
    "sinks": "attention sinks",
    "indices": "keys chosen by an indexer (DeepSeek V3.2)",
    "block_indices": "blocks of keys chosen by an indexer",
    "cache": "a paged cache (continuous batching)",
}


def register() -> None:
    """Makes ``attn_implementation="synops"`` known to transformers, with its masks.

    Every model that takes its attention from ``AttentionInterface`` then runs on
    :func:`synops.entropy.attention_with_stats`: grouped queries without repeating keys and values,
    padding on either side, sliding windows (as the bool mask that transformers makes for sdpa),
    caches, cross attention, position biases, gradients, ``torch.compile``. With
    ``output_attentions=True`` the entropies of the rows, ``(B, H, N)`` in nats and with gradients,
    stand where eager attention has maps of ``(B, H, N, M)``; without it nothing is computed for
    them. A row that sees no key (left padding) has output and entropy 0.

    The forward then raises

    - ``ValueError`` where the model asks for what the kernels do not do: attention dropout above 0
      in training (set ``attention_dropout``, ``attention_probs_dropout_prob`` or ``attn_pdrop`` of
      the config to 0), softcapped scores, attention sinks, chosen keys, a paged cache, or computes
      its attention itself (BLOOM; those that also make their masks themselves, as DeBERTa, run as
      always and return maps);
    - ``NotImplementedError`` where a position bias requires a gradient (training of T5).

    Calling it again changes nothing.

    Replaces: ``attn_implementation="eager"`` with ``output_attentions=True``, and
    ``-(p * p.log()).sum(-1)`` of every map.
    """
    AttentionInterface.register(NAME, _attention)
    # Without a mask function of that name models pass no mask at all: padded batches, silently
    # wrong (a left-padded Llama: logits off by .35).
    AttentionMaskInterface.register(NAME, _mask)


def _mask(*args: Any, config: Any, **kwargs: Any) -> Tensor | None:
    """That of sdpa: bool, or None where ``is_causal`` says it all."""
    if name := _own_attention(config):
        # it would add True and False to its scores, or leave None out
        rule = "take its attention from AttentionInterface; this one needs 'eager'"
        fail(ValueError, f"{NAME} attention", "model", rule, name)
    return sdpa_mask(*args, config=config, **kwargs)


@torch.compiler.assume_constant_result
def _own_attention(config: Any) -> str | None:
    """Name of a model of transformers with such a config and attention of its own."""
    kind: Any = type(config)
    return _with_own_attention(kind)


@functools.cache
def _with_own_attention(config: Any) -> str | None:
    for model in _subclasses(PreTrainedModel):
        ours = model.config_class is config and model.__module__.startswith("transformers")
        if ours and not model._can_set_attn_implementation():
            return model.__name__
    return None


def _subclasses(kind: Any) -> Iterator[Any]:
    for below in kind.__subclasses__():
        yield below
        yield from _subclasses(below)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """The attention of one layer, as transformers calls it.

    Returns:
        ``(B, N, H, Dv)``, and the entropies ``(B, H, N)`` where they are asked for.
    """
    if dropout:
        rule = "be 0: an entropy is that of the probabilities before dropout, which stay unseen"
        fail(ValueError, f"{NAME} attention", "dropout", rule, dropout)
    for name, what in _REFUSED.items():
        if kwargs.get(name) is not None:
            rule = f"be None: {what} need attn_implementation='eager'"
            fail(ValueError, f"{NAME} attention", name, rule, type(kwargs[name]).__name__)
    rows = query.shape[2]
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    # As for sdpa, no mask means causal from the top left: all keys there are, or an empty static
    # cache with keys to come. A single row is a step of decoding, and sees them all.
    causal = attention_mask is None and bool(is_causal and rows > 1)
    if position_bias is not None:
        attention_mask = _biased(position_bias, attention_mask, causal, rows, key.shape[2])
        causal = False
    compiling = torch.compiler.is_compiling()
    watching = [] if compiling else observers.get(module, [])
    wanted = bool(kwargs.get("output_attentions")) or _collecting(compiling)
    output, stats = attention_with_stats(
        query,
        key,
        value,
        attention_mask,
        is_causal=causal,
        scale=scaling,
        enable_gqa=True,
        stats=("entropy",) if wanted or watching else (),
    )
    entropy = stats.entropy
    if entropy is not None:
        for monitor in watching:
            monitor.observe(module, entropy, attention_mask)
    return output.transpose(1, 2).contiguous(), entropy if wanted else None


def _collecting(compiling: bool) -> bool:
    """Whether the model's forward collects attentions; not all pass on that they do (GPT-2)."""
    collected = _active_collector.global_var if compiling else _active_collector.get()
    return any("attentions" in key for key in collected or ())


def _biased(bias: Tensor, mask: Tensor | None, causal: bool, rows: int, keys: int) -> Tensor:
    """A position bias ``(1 or B, H, N, M)`` and the mask of the call, in one that is added."""
    if bias.requires_grad and torch.is_grad_enabled():
        raise NotImplementedError(
            f"{NAME} attention: position_bias has no gradient here; train with "
            "attn_implementation='eager', or under torch.no_grad()"
        )
    if causal:
        mask = torch.ones(rows, keys, dtype=torch.bool, device=bias.device).tril()
    if mask is None:
        return bias
    return torch.where(mask, bias, -torch.inf) if mask.dtype == torch.bool else bias + mask
