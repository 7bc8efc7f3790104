"""Section ``entropy``: how sharply the heads of real transformers look, and how sure they are."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import log_softmax
from transformers import AttentionInterface

from ..benchmarks.common.call import largest_error
from ..benchmarks.common.memory import MB, peak_growth
from ..entropy import linear_token_stats, token_stats
from ..integrations.transformers import register
from ..viz import entropy_map
from . import language_model
from .context import Context
from .report import Claim, Report, Results, Row
from .timing import in_turns

EAGER = "eager attention, output_attentions=True, entr(maps).sum(-1)"
SDPA = "sdpa, without entropies"
TORCH = "hidden @ weight.T, log_softmax, gather, -(p * log p).sum(-1)"
TOKEN_STATS = "token_stats(hidden @ weight.T)"
MODEL = "SmolLM2-135M"


@dataclass(frozen=True)
class Protocol:
    """``rounds`` of timing by length of text; the first length is described and checked, too."""

    rounds: dict[int, int]


FULL = Protocol({512: 2, 1024: 1})
QUICK = Protocol({64: 1})


@torch.no_grad()
def run(context: Context) -> Report:
    """Times and checks a model's entropies, of heads and of tokens, and draws the former."""
    protocol = QUICK if context.quick else FULL
    register()
    context.start(f"loading {MODEL}", 4 + len(protocol.rounds))
    model, ids = language_model.smollm2(), language_model.smollm2_tokens()
    context.advance("the same in float64")
    described = next(iter(protocol.rounds))
    text = ids[:, :described]
    exact = exact_outputs(model, text)
    found = outputs(model, "synops", text)
    report = Report(claims=_claims(found, outputs(model, "eager", text)))
    report.results.append(_description(found, text))
    memory = []
    for tokens, rounds in protocol.rounds.items():
        context.advance(f"heads, {tokens} tokens")
        forms = _head_forms(model, ids[:, :tokens])
        report.rows.append(
            Row(
                system=f"{MODEL}, blocks",
                case=f"{tokens} tokens",
                times=in_turns(forms, seconds=0, min_rounds=rounds),
                today=EAGER,
                error=largest_error((found.entropies,), (exact.entropies,)),
            )
        )
        memory.append([str(tokens), *(f"{peak_growth(f) / MB:.0f}" for f in forms.values())])
    context.advance("entropies of tokens")
    report.rows.append(_token_row(model, found.hidden, text, protocol.rounds[described]))
    title = f"{MODEL}, blocks: largest memory above the weights, MB"
    columns = ["tokens", "eager, entropies", "sdpa, none", "synops, entropies"]
    report.results.append(Results(title, columns, memory))
    context.advance("heat maps")
    report.files.append(_draw(context.out, found.entropies))
    context.advance()
    return report


@dataclass(frozen=True)
class Outputs:
    """Of one text: ``hidden`` (N, D), ``logits`` (N, V), ``entropies`` (layers, heads, N)."""

    hidden: Tensor
    logits: Tensor
    entropies: Tensor


def outputs(model: Any, implementation: str, ids: Tensor) -> Outputs:
    """By one of the implementations of attention."""
    model.set_attn_implementation(implementation)
    found = model.model(ids, output_attentions=True)
    attentions = torch.cat(found.attentions)
    entropies = torch.special.entr(attentions).sum(-1) if attentions.dim() == 4 else attentions
    hidden = found.last_hidden_state[0]
    return Outputs(hidden, model.lm_head(hidden), entropies)


def exact_outputs(model: Any, ids: Tensor) -> Outputs:
    """In float64 throughout; eager attention takes its softmax in float32."""
    AttentionInterface.register("float64", _exact_attention)
    return outputs(copy.deepcopy(model).double(), "float64", ids)


def _exact_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, scaling: float, **_: Any
) -> tuple[Tensor, Tensor]:
    """Causal, in plain torch; entropies in place of the maps."""
    groups, rows = query.shape[1] // key.shape[1], query.shape[2]
    scores = scaling * query @ key.repeat_interleave(groups, 1).mT
    p = scores.masked_fill(torch.ones(rows, rows).triu(1).bool(), -torch.inf).softmax(-1)
    output = p @ value.repeat_interleave(groups, 1)
    return output.transpose(1, 2), torch.special.entr(p).sum(-1)


def _head_forms(model: Any, ids: Tensor) -> dict[str, Callable[[], None]]:
    def eager() -> None:
        model.set_attn_implementation("eager")
        for maps in model.model(ids, output_attentions=True).attentions:
            torch.special.entr(maps).sum(-1)

    def sdpa() -> None:
        model.set_attn_implementation("sdpa")
        model.model(ids)

    def ours() -> None:
        model.set_attn_implementation("synops")
        model.model(ids, output_attentions=True)

    return {EAGER: eager, SDPA: sdpa, "synops": ours}


def _token_row(model: Any, hidden: Tensor, text: Tensor, rounds: int) -> Row:
    """Log-probability and entropy of each token, from the hidden states before the head."""
    hidden, labels, weight = hidden[:-1], text[0, 1:], model.lm_head.weight

    def plain(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        log_p = log_softmax(hidden @ weight.T, -1)
        return log_p.gather(-1, labels.unsqueeze(-1)).squeeze(-1), -(log_p.exp() * log_p).sum(-1)

    forms: dict[str, Callable[[], Any]] = {
        TORCH: lambda: plain(hidden, weight),
        TOKEN_STATS: lambda: token_stats(hidden @ weight.T, labels),
        "synops": lambda: linear_token_stats(hidden, weight, labels),
    }
    got = forms["synops"]()
    exact = plain(hidden.double(), weight.double())
    return Row(
        system=f"{MODEL}, head",
        case=f"{len(labels)} tokens",
        times=in_turns(forms, seconds=0, min_rounds=rounds),
        today=TORCH,
        error=largest_error((got.logprob, got.entropy), exact),
    )


def _claims(found: Outputs, eager: Outputs) -> list[Claim]:
    logits = float((found.logits - eager.logits).abs().max())
    largest = float(eager.logits.abs().max())
    entropies = float((found.entropies - eager.entropies).abs().max())
    return [
        Claim(
            "logits are those of eager attention, within 1e-5 of the largest",
            logits < 1e-5 * largest,
            f"{logits:.1e} of {largest:.1f}",
        ),
        Claim(
            "entropies of heads are those of its maps, within 1e-4 nat",
            entropies < 1e-4,
            f"{entropies:.1e}",
        ),
    ]


def _description(found: Outputs, text: Tensor) -> Results:
    stats = token_stats(found.logits[:-1], text[0, 1:])
    assert stats.logprob is not None
    assert stats.entropy is not None
    heads = found.entropies.mean(-1)
    late = 3 * len(heads) // 5
    rows = [
        ["perplexity", f"{float((-stats.logprob).mean().exp()):.1f}"],
        ["entropy of a token, mean", f"{float(stats.entropy.mean()):.2f}"],
        ["entropy of attention, mean of layer 0", f"{float(heads[0].mean()):.2f}"],
        [f"lowest and highest mean of a layer, from {late} on", _range(heads[late:].mean(1))],
        ["lowest and highest head", _range(heads)],
        ["heads below .5", f"{int((heads < 0.5).sum())} of {heads.numel()}"],
    ]
    title = f"{MODEL}-Instruct reads {text.shape[1]} tokens of the Apache License 2.0 (nats)"
    return Results(title, ["", "found"], rows)


def _range(values: Tensor) -> str:
    return f"{float(values.min()):.2f} to {float(values.max()):.2f}"


def _draw(out: Path, entropies: Tensor) -> Path:
    """A map a model."""
    minilm = language_model.minilm()
    figure = Figure(figsize=(9.5 if minilm else 4.5, 7), layout="constrained")
    axes = figure.subplots(1, 2 if minilm else 1, squeeze=False)[0]
    title = f"{MODEL}-Instruct, {entropies.shape[2]} tokens"
    entropy_map(entropies.mean(-1), ax=axes[0], title=title)
    if minilm:
        batch = language_model.minilm_batch(8)
        minilm.set_attn_implementation("synops")
        attentions = minilm(**batch, output_attentions=True).attentions
        mask, title = batch["attention_mask"], "MiniLM-L6, 8 paragraphs"
        entropy_map(attentions, attention_mask=mask, ax=axes[1], title=title)
    file = out / "attention_entropy.png"
    figure.savefig(file, dpi=150)
    return file
