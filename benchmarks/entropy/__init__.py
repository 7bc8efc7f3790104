"""Benchmarks of the entropy family."""
