"""SparseLinear: nn.Linear whose weight exists at the entries of a Pattern only."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .._check import check_shape, fail
from ..sparse import Pattern, Rewired, sparse_linear
from ._dense import as_pattern, bias_of, padded, weight_and_mask
from ._loading import loaded_pattern

# Of a Pattern's tensors, those that are derived from crow and col.
_PLAN = ("row_ptr", "tile_col", "col_ptr", "tile_row", "perm", "bits")
_INDEX = ("crow", "col", *_PLAN)
_PARTS = ("blocks", "rest")  # prefixes of the buffers of the parts


class SparseLinear(nn.Module):
    """Linear layer with a sparse weight; its gradient and optimizer state are sparse as well.

    Same result as ``nn.Linear`` with the weight ``layer.pattern.scatter(layer.values)``.
    ``values`` is an ordinary 1-D Parameter, so every optimizer, DDP, autocast, ``torch.compile``
    and ``deepcopy`` work.

    Args:
        in_features, out_features, bias, device, dtype: as in ``nn.Linear``. The initial values are
            those that ``nn.Linear`` draws from the same generator state, at the kept entries;
            :func:`rescale_fan_in_` makes up for the entries that are not there.
        pattern: :class:`synops.sparse.Pattern`, a bool mask ``(out, in)``, or ``"infer"``: no
            entries until the first state_dict is loaded, whose non-zero entries then become the
            pattern.
        activation, feature_major: as in :func:`synops.sparse.sparse_linear`; :func:`chain_` sets
            them for layers in a row.

    Attributes:
        values: ``(capacity,)`` Parameter, the weight at the kept entries in CSR order.
        bias: ``(out,)`` Parameter or None.
        pattern: the :class:`Pattern`.

    ``state_dict`` holds ``values``, ``crow``, ``col`` and ``bias``. ``load_state_dict`` takes its
    own and those of ``nn.Linear``, ``nn.utils.prune`` and a parametrized mask; a dense weight with
    non-zeros outside the pattern is an error unless the pattern is ``"infer"``. The indices are
    buffers: ``to_empty`` loses them, as it does any buffer's contents.

    Example:
        >>> layer = SparseLinear.from_linear(linear, mask)
        >>> optimizer = torch.optim.AdamW(layer.parameters())
    """

    values: nn.Parameter
    bias: nn.Parameter | None
    activation: str | None
    feature_major: bool
    crow: Tensor
    col: Tensor
    row_ptr: Tensor
    tile_col: Tensor
    col_ptr: Tensor
    tile_row: Tensor
    perm: Tensor
    bits: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        pattern: Pattern | Tensor | str,
        activation: str | None = None,
        feature_major: bool = False,
    ):
        infer = isinstance(pattern, str)
        pattern = as_pattern(pattern, (out_features, in_features))
        device = torch.get_default_device() if device is None else torch.device(device)
        if device.type != "meta":
            pattern = pattern.to(device)
        values = torch.empty(pattern.capacity, device=device, dtype=dtype)
        shift = torch.empty(out_features, device=device, dtype=dtype) if bias else None
        self._set_up(pattern, values, shift)
        self.activation, self.feature_major = activation, feature_major
        self.infer = infer
        self.reset_parameters()

    def _set_up(self, pattern: Pattern, values: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = pattern.shape
        self.infer = False
        self.activation = None
        self.feature_major = False
        self._capacity = pattern.capacity
        self._set_pattern(pattern)
        self.values = nn.Parameter(values)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias))

    @classmethod
    def from_linear(cls, linear: nn.Linear, mask: Pattern | Tensor | None = None) -> SparseLinear:
        """The kept weights and the bias of a dense layer, copied.

        Args:
            linear: ``nn.Linear``; pruned by ``nn.utils.prune`` or ``torch.ao.pruning``, or
                parametrized, too.
            mask: :class:`Pattern` or bool ``(out, in)``. Default: the mask of a pruned layer,
                otherwise the non-zero entries.

        Raises:
            TypeError, ValueError: not an ``nn.Linear``, or a mask of another shape or dtype.
        """
        op = "SparseLinear.from_linear"
        if not isinstance(linear, nn.Linear):
            fail(TypeError, op, "linear", "be an nn.Linear", type(linear).__name__)
        weight, found = weight_and_mask(op, linear)
        if mask is None:
            mask = found
        pattern = as_pattern(mask, tuple(weight.shape), op, "mask").to(weight.device)
        bias, trains_bias = bias_of(linear)
        layer = cls.__new__(cls)  # without the random numbers that the constructor draws
        layer._set_up(pattern, padded(pattern, pattern.gather(weight.detach())), bias)
        layer.values.requires_grad_(weight.requires_grad)
        if layer.bias is not None:
            layer.bias.requires_grad_(trains_bias)
        return layer.train(linear.training)

    def to_linear(self) -> nn.Linear:
        """The dense layer with the same weight and bias, zeros where nothing was kept.

        Raises:
            ValueError: the layer has an activation, which an ``nn.Linear`` has not.
        """
        if self.activation is not None:
            op = "SparseLinear.to_linear"
            fail(ValueError, op, "activation", "be None (put it behind the layer)", self.activation)
        shape = {"in_features": self.in_features, "out_features": self.out_features}
        linear = nn.utils.skip_init(
            nn.Linear,
            **shape,
            bias=self.bias is not None,
            device=self.values.device,
            dtype=self.values.dtype,
        )
        with torch.no_grad():
            linear.weight.copy_(self.pattern.scatter(self.values))
            if self.bias is not None:
                linear.bias.copy_(self.bias)
                linear.bias.requires_grad_(self.bias.requires_grad)
        linear.weight.requires_grad_(self.values.requires_grad)
        return linear.train(self.training)

    @property
    def pattern(self) -> Pattern:
        """The kept entries, on the device of the layer."""
        # on the path of every call: nn.Module's attribute look-up would be most of its cost
        b = self._buffers
        pattern = Pattern(
            (self.out_features, self.in_features),
            self._capacity,
            *(b["crow"], b["col"], b["row_ptr"]),  # type: ignore[arg-type]
            b["tile_col"].view(torch.int16),  # type: ignore[union-attr]
            b["col_ptr"],  # type: ignore[arg-type]
            b["tile_row"].view(torch.int16),  # type: ignore[union-attr]
            *(b["perm"], b["bits"]),  # type: ignore[arg-type]
            self._block,
        )
        return replace(pattern, parts=self._parts()) if self._part_blocks else pattern

    def _parts(self) -> tuple[Pattern, Pattern, Tensor]:
        """Those of the pattern."""
        patterns = []
        for name, block in zip(_PARTS, self._part_blocks, strict=True):
            index = [self._buffers[f"{name}_{field}"] for field in _INDEX]
            index = [t.view(torch.int16) if t.dtype == torch.uint8 else t for t in index]  # type: ignore[union-attr]
            shape = (self.out_features, self.in_features)
            length = index[1].shape[0]  # type: ignore[union-attr]
            patterns.append(Pattern(shape, length, *index, block))  # type: ignore[arg-type, call-arg]
        first, rest = patterns
        return first, rest, self._buffers["select"]  # type: ignore[return-value]

    def _set_pattern(self, pattern: Pattern) -> None:
        # crow and col are the pattern as it is saved; the rest is derived from them.
        self._block = pattern.block
        self.register_buffer("crow", pattern.crow)
        self.register_buffer("col", pattern.col)
        derived = {name: getattr(pattern, name) for name in _PLAN}
        self._part_blocks: tuple[tuple[int, int], ...] = ()
        if pattern.parts is not None:
            *patterns, derived["select"] = pattern.parts
            self._part_blocks = tuple(part.block for part in patterns)
            for prefix, part in zip(_PARTS, patterns, strict=True):
                derived |= {f"{prefix}_{field}": getattr(part, field) for field in _INDEX}
        for name in [name for name in self._buffers if name not in ("crow", "col")]:
            del self._buffers[name]
            self._non_persistent_buffers_set.discard(name)
        for name, tensor in derived.items():
            # As bytes: DDP broadcasts buffers, and neither gloo nor NCCL knows int16.
            tensor = tensor.view(torch.uint8) if tensor.dtype == torch.int16 else tensor
            self.register_buffer(name, tensor, persistent=False)

    def rewire_(self, new: Rewired) -> None:
        """Takes over what :func:`synops.sparse.prune_and_grow` made of its values and pattern.

        ``values`` stays the same Parameter, of the same length; its gradient, which is of the
        entries that were, becomes None. (An optimizer's state is the caller's to carry over:
        :class:`DynamicSparsity` does it.)

        Raises:
            ValueError: another shape or capacity than the layer's.
        """
        op = "SparseLinear.rewire_"
        shape = (self.out_features, self.in_features)
        if new.pattern.shape != shape:
            fail(
                ValueError, op, "new.pattern", f"have shape (out, in) = {shape}", new.pattern.shape
            )
        check_shape(op, "new.values", new.values, "(capacity,)", tuple(self.values.shape))
        with torch.no_grad():
            self.values.copy_(new.values)
        self.values.grad = None
        self._set_pattern(new.pattern)

    def compact_(self) -> None:
        """Shortens ``values`` to the entries there are, where it has room for more.

        The Parameter stays the same object; its gradient becomes None. What knows its length must
        be told: an optimizer's state (:meth:`DynamicSparsity.compact_` does that), DDP (wrap the
        model afterwards).
        """
        self._capacity = self.col.shape[0]
        self.values.grad = None
        self.values.data = self.values.data[: self._capacity].clone()

    def reset_parameters(self) -> None:
        """The initial values of ``nn.Linear`` at the kept entries (draws the dense weight once)."""
        if self.values.is_meta:
            return
        shape = (self.out_features, self.in_features)
        dense = torch.empty(shape, device=self.values.device, dtype=self.values.dtype)
        if dense.numel():
            nn.init.kaiming_uniform_(dense, a=math.sqrt(5))
        with torch.no_grad():
            self.values.copy_(padded(self.pattern, self.pattern.gather(dense)))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features > 0 else 0
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """``(..., in)`` -> ``(..., out)``."""
        return sparse_linear(
            input,
            self.values,
            self.pattern,
            self.bias,
            activation=self.activation,
            feature_major=self.feature_major,
        )

    def extra_repr(self) -> str:
        """As nn.Linear's, with the density."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, nnz={self.col.shape[0]}, "
            f"density={self.pattern.density:.4g}"
            + (f", activation={self.activation!r}" if self.activation else "")
            + (", feature_major=True" if self.feature_major else "")
        )

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        # Checked on copies first: a refused state_dict leaves the layer as it was.
        state = dict(state_dict)
        try:
            pattern = loaded_pattern(self, state, prefix)
        except (TypeError, ValueError, IndexError) as error:
            error_msgs.append(f"SparseLinear {prefix.rstrip('.')!r}: {error}")
            return
        if pattern is not None:
            assign = local_metadata.get("assign_to_params_buffers", False)
            self._set_pattern(pattern if assign else pattern.to(self.col.device))
            self.infer = False
            if self._capacity != pattern.capacity:
                self._capacity = pattern.capacity
                self.values.data = self.values.data.new_empty(pattern.capacity)
        super()._load_from_state_dict(
            state, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
