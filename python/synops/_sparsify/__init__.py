"""sparsify_: a pruned model made fast in one call.

``_find`` walks the model, ``_forms`` has the table of forms and takes their times, ``_swap`` puts
the fastest in place, ``_table`` is what comes back.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from .._check import fail
from ._example import rows_seen, run
from ._find import Layer, Skip, find
from ._forms import FORMS, SPARSE_BELOW, Measured, fitting, group, measure
from ._progress import progress
from ._swap import swap
from ._table import UNCHANGED, Row, Table

_OP = "sparsify_"
# More is kept of a weight that nobody pruned: trained bfloat16 weights have some zeros.
_UNPRUNED = 0.99
WRAPPERS = ("DistributedDataParallel", "FullyShardedDataParallel")


def sparsify_(
    model: nn.Module,
    *,
    batch: int = 128,
    example_input: Any = None,
    training: bool | None = None,
    min_speedup: float = 1.05,
    skip: str | Iterable[str] | Callable[[str, nn.Module], bool] = (),
) -> Table:
    """Gives every pruned linear layer of a model the form that measures fastest here, in place.

    A layer is pruned if it has a mask (``torch.nn.utils.prune``, ``torch.ao.pruning`` or a
    parametrization with a ``mask``) or zeros in its weight (``prune.remove``, ``squash_mask``). Its
    forms are what it is now, a :class:`synops.nn.SparseLinear`, and, where the model is not
    trained, ``nn.Linear`` with the mask multiplied in. The outputs of the model stay what they were
    up to rounding. Weights and biases are copied, and so are dtype, device, ``requires_grad``,
    ``training`` and attributes set on the layer.

    The Parameters are new ones: **make the optimizer after this call**. The ``state_dict`` has the
    keys of the new layers.

    Args:
        model: holds the layers. One that is placed several times stays one layer.
        batch: rows of input that a layer gets in a call (batch x tokens), for the measurement.
        example_input: an input of the model, a tuple of its positional arguments, or a dict of its
            keyword arguments. The model runs on it once before (in ``eval`` mode, without
            gradients) to find how many rows each layer gets (``batch`` is for layers that it does
            not reach), and once after: should that fail, as code does that reads the ``weight`` of
            a layer, everything is undone.
        training: what is timed: forward and backward, or the forward alone. In training a mask is
            never multiplied in, for its weights would grow again; the zeros of a weight without a
            mask stay zero where the layer becomes sparse. Default: ``model.training``.
        min_speedup: how much faster than before another form must be.
        skip: layers to leave alone: names from ``named_modules`` (of layers, or of blocks with all
            that is in them), or a function of name and module.

    Returns:
        A :class:`Table`, one row for each linear layer and each other pruned module: name, shape,
        density, form, measured speed-up, reason. What stays unchanged has its reason there:
        a dense product that is faster, nothing pruned, a tied weight, hooks, weight_norm, a
        subclass of ``nn.Linear``, lazy, quantised, on the meta device, already sparse, ...

    Raises:
        TypeError: ``model`` is not a module, or an argument has a wrong type.
        ValueError: ``model`` is itself a linear layer, is wrapped for distributed training, has
            nothing pruned, or is lazy and to be run; a name in ``skip`` is not in it.

    The model is as it was if the call raises.

    Speed: about .2 s for each group of alike layers (same shape, densities within 10 %), or five
    calls of each form where these take longer; a progress bar after 2 s at a terminal with rich.
    Measured under the number of threads and the autocast in force at the call.

    Example:
        >>> prune.l1_unstructured(model.fc1, "weight", amount=0.9)
        >>> print(synops.sparsify_(model, batch=512))
    """
    batch, skipped = _checked(model, batch, example_input, training, min_speedup, skip)
    training = model.training if training is None else training
    with torch.inference_mode(False):  # Parameters made inside of it could not be trained
        with torch.no_grad():
            layers = find(model, skipped, training)
        _check_pruned(model, layers)
        free = [layer for layer in layers if not layer.obstacle]
        forms = {layer.module: names for layer in free if (names := fitting(layer, training))}
        rows = dict.fromkeys(forms, batch) | rows_seen(model, forms, example_input)
        measured = _measured([layer for layer in free if layer.module in forms], rows, training)
        table, new = [], []
        for layer in layers:
            row = _row(layer, measured.get(layer.module), min_speedup)
            table.append(row)
            if row.form != UNCHANGED:
                with torch.no_grad():
                    new.append((layer, FORMS[row.form].build(layer)))
        swap(model, new, lambda: run(model, example_input))
    return Table(tuple(table), _conditions(training, set(rows.values()) or {batch}))


def _measured(
    layers: list[Layer], rows: dict[nn.Module, int], training: bool
) -> dict[nn.Module, Measured]:
    """The times of all layers, alike ones measured once."""
    groups: dict[object, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(group(layer, rows[layer.module]), []).append(layer)
    found = {}
    for alike in progress(list(groups.values()), "sparsify_: measuring"):
        first = alike[0]
        times = measure(first, fitting(first, training), rows[first.module], training)
        found[first.module] = times
        for layer in alike[1:]:
            found[layer.module] = times._replace(source=first.names[0])
    return found


def _row(layer: Layer, measured: Measured | None, min_speedup: float) -> Row:
    """The form a layer takes, and why."""
    form, speedup = UNCHANGED, None
    times: dict[str, float] = {}
    if measured is not None:
        times, speedups, source = measured
        fastest = max(speedups, key=speedups.__getitem__)
        form = fastest if speedups[fastest] >= min_speedup else UNCHANGED
        speedup = speedups.get(form, 1.0)
        reason = ", ".join(f"{name} {1e3 * seconds:.3g} ms" for name, seconds in times.items())
        reason += f" (as {source})" if source else ""
    elif layer.obstacle:
        reason = layer.obstacle
    elif layer.density == 1:
        reason = "nothing pruned"
    else:
        reason = f"dense is faster above density {SPARSE_BELOW}"
    if len(layer.names) > 1:
        reason += f"; also {', '.join(layer.names[1:])}"
    return Row(layer.names[0], layer.shape, layer.density, form, speedup, reason, times)


def _conditions(training: bool, rows: set[int]) -> str:
    what = "forward + backward" if training else "forward"
    threads = torch.get_num_threads()
    span = " to ".join(str(n) for n in sorted({min(rows), max(rows)}))
    return f"{what}, {span} rows, {threads} thread{'s' if threads > 1 else ''}"


def _checked(
    model: Any, batch: Any, example_input: Any, training: Any, min_speedup: Any, skip: Any
) -> tuple[int, Skip]:
    """The arguments that need no look at the layers."""
    if not isinstance(model, nn.Module):
        fail(TypeError, _OP, "model", "be an nn.Module", type(model).__name__)
    if isinstance(model, nn.Linear):
        rule = "hold its layers (SparseLinear.from_linear converts a layer by itself)"
        fail(ValueError, _OP, "model", rule, f"an {type(model).__name__}")
    for module in model.modules():
        if type(module).__name__ in WRAPPERS:
            rule = "be converted before it is wrapped, which has noted its parameters"
            fail(ValueError, _OP, "model", rule, type(module).__name__)
    try:
        batch = operator.index(batch)
    except TypeError:
        fail(TypeError, _OP, "batch", "be an integer", batch)
    if batch < 1:
        fail(ValueError, _OP, "batch", "be at least 1", batch)
    if example_input is not None and any(map(is_lazy, model.parameters())):
        fail(ValueError, _OP, "model", "be run once before, as it is lazy", "lazy parameters")
    if training is not None and not isinstance(training, bool):
        fail(TypeError, _OP, "training", "be True, False or None", training)
    if isinstance(min_speedup, bool) or not isinstance(min_speedup, (int, float)):
        fail(TypeError, _OP, "min_speedup", "be a number", min_speedup)
    if not min_speedup > 0:
        fail(ValueError, _OP, "min_speedup", "be positive", min_speedup)
    return batch, _skipper(model, skip)


def _skipper(model: nn.Module, skip: Any) -> Skip:
    if callable(skip):
        return lambda names, module: any(skip(name, module) for name in names)
    try:
        blocks = [skip] if isinstance(skip, str) else list(skip)
    except TypeError:
        fail(TypeError, _OP, "skip", "be names or a function of name and module", skip)
    known = dict(model.named_modules(remove_duplicate=False))
    for block in blocks:
        if block not in known:
            fail(ValueError, _OP, "skip", "name modules of the model", repr(block))
    return lambda names, _: any(
        name == block or name.startswith(f"{block}.") for name in names for block in blocks
    )


def _check_pruned(model: nn.Module, layers: list[Layer]) -> None:
    """Whoever calls this on a model without zeros has forgotten to prune, or to load the masks.

    A mask of ones is what ``prepare`` of torch.ao.pruning leaves before the first ``step``.
    """
    rule = "have a pruned nn.Linear"
    if not layers:
        fail(ValueError, _OP, "model", rule, f"a {type(model).__name__} without linear layers")
    densities = {
        layer.names[0]: layer.density
        for layer in layers
        if layer.pruned is None or layer.density == 1
    }
    known = {name: density for name, density in densities.items() if density is not None}
    if len(known) == len(layers) and min(known.values()) > _UNPRUNED:
        name = min(known, key=known.__getitem__)
        least = f"the sparsest, {name}, has density {known[name]:.4g}"
        fail(ValueError, _OP, "model", rule, f"{len(layers)} layers with nothing pruned ({least})")
