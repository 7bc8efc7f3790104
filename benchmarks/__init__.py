"""Benchmarks of synops: asv runs them over commits, ``python -m synops bench`` on this machine now.

One class an op in ``benchmarks/<family>/<op>.py``; sizes, measurement, base classes in ``common``.
Everything here imports relatively and uses synops' public functions only: asv imports it as
``benchmarks`` beside any older synops, the command as ``synops.benchmarks``.
"""
