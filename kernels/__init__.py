"""Triton kernels, in the package as synops.kernels; imported on the first call that runs one.

Each file has, under the name of its op, the launcher that synops._library calls with the arguments
of the schema. ``AOT`` of a file lists what tests/test_aot.py compiles without a GPU.
"""
