"""Triton kernels of the sparse family."""
