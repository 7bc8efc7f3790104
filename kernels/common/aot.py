"""What a kernel file lists for compilation without a GPU, see tests/test_aot.py."""

from typing import Any, NamedTuple

import torch

# Triton's names of the element types, as in a signature: "*" + NAMES[dtype] is a pointer.
NAMES = {
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
}


class Build(NamedTuple):
    """One compilation of a kernel."""

    kernel: Any
    signature: dict[str, str]  # of pointers and sizes; "i32:16" is always a multiple of 16
    constants: dict[str, Any]  # with what Triton takes for one: a stride of 1, None
    options: dict[str, int]  # num_warps, num_stages
