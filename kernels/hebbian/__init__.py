"""Triton kernels of the hebbian family."""
