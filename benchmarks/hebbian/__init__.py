"""Benchmarks of the hebbian family."""
