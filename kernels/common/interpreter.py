"""Triton's interpreter (TRITON_INTERPRET=1), which runs kernels on CPU tensors."""

from collections.abc import Callable

import triton
from triton.runtime import interpreter

INTERPRETED: bool = triton.knobs.runtime.interpret


def _with_numpy_scalars(patch_tensor: Callable) -> Callable:
    """Triton 3.6 calls int() on arrays of one element for loop bounds, which numpy 2.4 refuses."""

    def patch(tensor, scope):
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    return patch


if INTERPRETED:
    interpreter._patch_lang_tensor = _with_numpy_scalars(interpreter._patch_lang_tensor)
