"""A mode that fails where a device would have to be waited for, on any device."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_WAITS = {
    torch.ops.aten._local_scalar_dense,  # item, bool, a 0-dimensional tensor as an index
    torch.ops.aten.nonzero,  # and indexing by bool
    torch.ops.aten.masked_select,
    torch.ops.aten._unique2,
    torch.ops.aten.unique_dim,
    torch.ops.aten.unique_consecutive,
    torch.ops.aten.equal,
    torch.ops.aten.is_nonzero,
    torch.ops.aten.bincount,
}


class NoSync(TorchDispatchMode):
    """Raises on an op whose shape or result needs a value of a tensor on the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket not in _WAITS, f"{func} waits for the device"
        if func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put_):
            masks = [i for i in args[1] if i is not None and i.dtype == torch.bool]
            assert not masks, f"{func} by bool waits for the device"
        kwargs = kwargs or {}
        if func.overloadpacket is torch.ops.aten._to_copy:
            assert kwargs.get("device") is None, f"{func} goes to another device"
        return func(*args, **kwargs)
