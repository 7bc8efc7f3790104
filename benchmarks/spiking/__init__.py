"""Benchmarks of the spiking family."""
