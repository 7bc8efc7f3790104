"""What the kernels of all families share."""

from . import interpreter  # noqa: F401  (mends the interpreter before the first kernel runs)
