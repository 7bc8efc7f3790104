"""An induction head appears: attention_with_stats trains it, head_scores watches it.

    pip install "synops[demo]"
    python examples/induction_head.py

A transformer of two attention layers learns to go on with a random text that repeats itself. For a
few hundred steps nothing happens; then a head of layer 1 looks at the token before, a head of layer
2 at what followed this token the last time, and the loss falls at once. Prints and plots loss,
accuracy, the scores of each head and the entropy of each layer, all from the pass that trains: no
N x N map is made. With looking at the token before forbidden (a clamp) the fall comes later or not.

Source: C. Olsson et al., arXiv:2209.11895 (induction heads and their phase change); A. Singh et
al., arXiv:2404.07129 (two attention-only layers with rotary positions; clamping).
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from synops.entropy import attention_with_stats, head_scores

VOCABULARY, ROWS, WIDTH, HEADS, LAYERS, BATCH = 48, 48, 64, 4, 2, 32
SCORES = ("previous_token", "induction", "prefix_matching")


class Seen(NamedTuple):
    """What an attention layer looked at: its entropy, and all that head_scores needs."""

    entropy: torch.Tensor  # (B, H, N), nats
    query: torch.Tensor  # (B, H, N, D), rotated
    key: torch.Tensor
    lse: torch.Tensor  # (B, H, N)
    attn_mask: torch.Tensor | None

    def scores(self, tokens):
        """(scores, heads), means over the batch."""
        _, *attention, attn_mask = self
        found = head_scores(*attention, tokens, scores=SCORES, attn_mask=attn_mask)
        return torch.stack([getattr(found, name).nanmean(0) for name in SCORES])


class Course(NamedTuple):
    """Of training, a row a look: at which step, and what was found there."""

    step: torch.Tensor
    loss: torch.Tensor  # nats, where the text repeats itself
    accuracy: torch.Tensor
    entropy: torch.Tensor  # (looks, layers), nats
    scores: dict[str, torch.Tensor]  # (looks, layers, heads) each

    def fall(self):
        """The first step with less than half of the first loss, or None."""
        fallen = (self.loss < self.loss[0] / 2).nonzero()
        return int(self.step[fallen[0, 0]]) if len(fallen) else None


class Attention(nn.Module):
    """Causal self-attention with rotary positions; ``clamp`` forbids the token before."""

    def __init__(self, clamp):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.inward = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.outward = nn.Linear(WIDTH, WIDTH, bias=False)
        half = WIDTH // HEADS // 2
        angle = torch.arange(ROWS)[:, None] * 10_000 ** (-torch.arange(half) / half)
        self.register_buffer("turn", torch.polar(torch.ones_like(angle), angle))
        place = torch.arange(ROWS)
        back = place[:, None] - place
        self.register_buffer("seen", (back >= 0) & (back != 1) if clamp else None)

    def rotated(self, x):
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * self.turn).flatten(-2)

    def forward(self, x):
        parts = self.inward(self.norm(x)).unflatten(-1, (3, HEADS, -1)).transpose(1, 3)
        query, key, value = parts.unbind(2)
        query, key = self.rotated(query), self.rotated(key)
        output, stats = attention_with_stats(
            query, key, value, self.seen, is_causal=self.seen is None, stats=("entropy", "lse")
        )
        looked = (t.detach() for t in (stats.entropy, query, key, stats.lse))
        return x + self.outward(output.transpose(1, 2).flatten(2)), Seen(*looked, self.seen)


class Transformer(nn.Module):
    """Attention only: logits (B, N, V), and what each layer has Seen."""

    def __init__(self, clamp=False):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(Attention(clamp) for _ in range(LAYERS))
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False))

    def forward(self, tokens):
        x, seen = self.embedding(tokens), []
        for layer in self.layers:
            x, found = layer(x)
            seen.append(found)
        return self.head(x), seen


def texts(generator):
    """Tokens (B, N), random text and then the same again; and where the next one has come before.

    Of another length each: a head that looks back a fixed way finds nothing.
    """
    random = torch.rand(BATCH, VOCABULARY, generator=generator).argsort(1)
    period = torch.randint(ROWS // 4, ROWS // 2 + 1, (BATCH, 1), generator=generator)
    place = torch.arange(ROWS + 1)
    tokens = random.gather(1, place % period)
    return tokens, place[1:] > period


def train(seed=0, clamp=False, steps=900, lr=1e-3, every=10, look=lambda step, tokens, seen: None):
    """The Course; ``look`` is called with every batch that gets into it."""
    torch.manual_seed(seed)
    model, generator = Transformer(clamp), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    rows = []
    for step in range(steps + 1):
        tokens, known = texts(generator)
        tokens, following = tokens[:, :-1], tokens[:, 1:][known]
        logits, seen = model(tokens)
        logits = logits[known]
        loss = F.cross_entropy(logits, following)
        if step % every == 0:
            accuracy = (logits.argmax(1) == following).float().mean()
            entropy = torch.stack([layer.entropy.mean() for layer in seen])
            scores = torch.stack([layer.scores(tokens) for layer in seen], 1)
            rows.append((torch.tensor(step), loss.detach(), accuracy, entropy, scores))
            look(step, tokens, seen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    *found, scores = (torch.stack(column) for column in zip(*rows, strict=True))
    return Course(*found, dict(zip(SCORES, scores.unbind(1), strict=True)))


def plot(courses, file):
    """Loss, accuracy, entropy of both runs, and the heads of the free one; dotted: its fall."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    (losses, accuracies), (heads, entropies) = figure.subplots(2, 2, sharex=True)
    layers = ("#0072B2", "#D55E00")  # Okabe and Ito's colours
    free = courses["free"]
    for (name, course), dashes in zip(courses.items(), ("-", "--"), strict=True):
        for axes, values in ((losses, course.loss), (accuracies, course.accuracy)):
            axes.plot(course.step, values, dashes, color="black", label=name)
        for layer, color in enumerate(layers):
            label = f"layer {layer + 1}, {name}"
            entropies.plot(course.step, course.entropy[:, layer], dashes, color=color, label=label)
    watched = (("previous_token", "token before"), ("induction", "induction"))
    for layer, ((name, words), color) in enumerate(zip(watched, layers, strict=True)):
        for head, values in enumerate(free.scores[name][:, layer].T):
            label = f"layer {layer + 1}: {words}" if head == 0 else None
            heads.plot(free.step, values, color=color, alpha=0.8, label=label)
    losses.set(title="Loss where the text repeats itself", ylabel="nats", ylim=0)
    accuracies.set(title="Accuracy there", ylim=(0, 1.02))
    heads.set(title="Heads of the free run, a line each", ylabel="probability", ylim=(0, 1))
    entropies.set(title="Entropy of the attention", ylabel="nats", ylim=0)
    for axes in (losses, accuracies, heads, entropies):
        if free.fall() is not None:
            axes.axvline(free.fall(), color="gray", linestyle=":", zorder=1)
        axes.legend(**({"loc": "lower right", "ncols": 2} if axes is entropies else {}))
        axes.margins(x=0)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (heads, entropies):
        axes.set(xlabel="step")
    figure.savefig(file, dpi=150)


def main(argv=None):
    """Returns {"free": Course, "clamped": Course}."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=900, help="of training (default: 900)")
    parser.add_argument("--seed", type=int, default=0, help="of both runs (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("induction_head.png"), help="the plot")
    args = parser.parse_args(argv)

    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    torch.set_num_threads(1)
    console = Console()
    courses = {}
    with Progress(console=console, transient=True) as progress:
        for name, clamp in (("free", False), ("clamped", True)):
            task = progress.add_task(name, total=args.steps)
            start = time.perf_counter()
            courses[name] = train(
                args.seed,
                clamp,
                args.steps,
                look=lambda step, *_, task=task: progress.update(task, completed=step),
            )
            fall = courses[name].fall()
            when = "no fall" if fall is None else f"loss halved at step {fall}"
            console.print(f"{name}: {when}, {time.perf_counter() - start:.1f} s")

    table = Table(title="the free run: means over a batch, of the highest head where it is a score")
    columns = ("loss", "accuracy", "token before", "induction", "entropy 1", "entropy 2")
    for name in ("step", *columns):
        table.add_column(name, justify="right")
    course = courses["free"]
    for i in range(0, len(course.step), max(1, len(course.step) // 12)):
        before = course.scores["previous_token"][i, 0].max()
        induction = course.scores["induction"][i, 1].max()
        numbers = (course.loss[i], course.accuracy[i], before, induction, *course.entropy[i])
        table.add_row(str(int(course.step[i])), *(f"{float(x):.3f}" for x in numbers))
    console.print(table)
    plot(courses, args.out)
    console.print(f"plot: {args.out}")
    return courses


if __name__ == "__main__":
    main()
