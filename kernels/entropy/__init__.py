"""Triton kernels of the entropy family."""
