"""Triton kernels of the spiking family."""
