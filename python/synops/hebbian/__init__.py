"""Hebbian: local plasticity, fast weights and associative memory."""

__all__: list[str] = []
