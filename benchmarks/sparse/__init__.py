"""Benchmarks of the sparse products."""
