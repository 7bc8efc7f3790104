"""Base classes of the benchmarks: what asv measures of an op.

asv's own traps, met here once for all:
- It takes a smaller value for a better one, so ratios are time of synops over time of the other.
- Since asv_runner 0.3 it times single calls and runs ``setup`` again before each. So ``setup``
  works once for a choice of parameters, and sets ``number``, the calls that make up a sample.
- It finds every class that is not abstract in every module, so these are abstract, and modules that
  use them import the module and not the class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch

from .call import Call
from .disturbance import disturbance_for
from .interleave import Timer, interleave, ratio, repeats_for, timer_for
from .memory import MB, peak_growth

SYNOPS = "synops"
COMPILE = "compile"


class Suite(ABC):
    """One op, its implementations and cases.

    Attributes:
        op: its public name inside synops, ``"sparse.sparse_linear"``.
        impls: "synops", "torch", and others; append only.
        baseline: the one of them that a good user would write today.
        cases: sizes by name; append only, first the one that represents the op.
        table_impls, table_cases: further ones, for tables (tables.py): neither asv nor ``bench``
            by itself runs them.
        threads: of torch.
    """

    op: ClassVar[str]
    impls: ClassVar[tuple[str, ...]]
    baseline: ClassVar[str] = "torch"
    cases: ClassVar[dict[str, Any]]
    table_impls: ClassVar[tuple[str, ...]] = ()
    table_cases: ClassVar[dict[str, Any]] = {}
    modes: ClassVar[tuple[str, ...]] = ()
    threads: ClassVar[int] = 1

    param_names: ClassVar[list[str]] = ["impl", "case"]
    params: ClassVar[list[list[str]]]
    timeout: ClassVar[float] = 300.0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "impls"):
            cls.params = [list(cls.impls), list(cls.cases)]

    @abstractmethod
    def build(
        self, impl: str, size: Any, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        """An implementation on the inputs of a case; the same numbers for each.

        Raises:
            NotImplementedError: not for this case, or not in this version of synops.
        """

    @classmethod
    def size(cls, case: str) -> Any:
        """The size that is called ``case``, of a table or not."""
        return cls.cases[case] if case in cls.cases else cls.table_cases[case]

    @classmethod
    def smallest(cls) -> str:
        """The name of the case with the least work."""
        return min(cls.cases, key=lambda name: cls.cases[name].work)


class ForwardSuite(Suite):
    """Times and ratios of the forward pass."""

    modes: ClassVar[tuple[str, ...]] = ("forward",)
    repeat = (3, 20, 1.0)  # samples at least, at most, seconds
    _built: tuple[str, str] | None = None

    @property
    def timer(self) -> Timer:
        """The clock of the ``time_`` methods, which asv asks for, and of the ratios."""
        return timer_for(self.threads)

    def setup(self, impl: str, case: str) -> None:
        """Builds the call and warms it up, once for the parameters."""
        torch.set_num_threads(self.threads)
        if self._built == (impl, case):
            return
        self.call = self.build(impl, self.cases[case])
        self.call.prepare()
        self.number = repeats_for(self.call.forward, self.timer)
        self._built = (impl, case)

    def time_forward(self, impl: str, case: str) -> None:
        self.call.forward()

    def track_ratio_forward(self, impl: str, case: str) -> float:
        return self._ratio("forward", case)

    track_ratio_forward.unit = "synops / impl"  # type: ignore[attr-defined]

    def _ratio(self, mode: str, case: str) -> float:
        """Time of synops over the time of ``impl``; for synops itself, the noise of the method."""
        ours = self.build(SYNOPS, self.cases[case])
        functions = [getattr(call, mode) for call in (ours, self.call)]
        disturbance = disturbance_for(self.threads)
        return ratio(*interleave(functions, self.timer, disturbance=disturbance))


class TrainingSuite(ForwardSuite):
    """Times and ratios of the forward pass, and of forward and backward."""

    modes: ClassVar[tuple[str, ...]] = ("forward", "forward_backward")

    def time_forward_backward(self, impl: str, case: str) -> None:
        self.call.forward_backward()

    def track_ratio_forward_backward(self, impl: str, case: str) -> float:
        return self._ratio("forward_backward", case)

    track_ratio_forward_backward.unit = "synops / impl"  # type: ignore[attr-defined]


class MemorySuite(Suite):
    """Peak memory of the process, and what one call adds to it."""

    small: ClassVar[Any]  # a size that costs nothing: the first call loads code

    def setup(self, impl: str, case: str) -> None:
        torch.set_num_threads(self.threads)
        self.build(impl, self.small).prepare()
        self.call = self.build(impl, self.cases[case])

    def peakmem_forward_backward(self, impl: str, case: str) -> None:
        self.call.forward_backward()

    def track_allocated_forward(self, impl: str, case: str) -> float:
        return peak_growth(self.call.forward) / MB

    def track_allocated_forward_backward(self, impl: str, case: str) -> float:
        return peak_growth(self.call.forward_backward) / MB

    track_allocated_forward.unit = "MB"  # type: ignore[attr-defined]
    track_allocated_forward_backward.unit = "MB"  # type: ignore[attr-defined]


class StateSuite(Suite):
    """What a training keeps for each weight: the layer itself, gradients, optimizer's state.

    ``build`` returns the first step of a training, whose inputs are the tensors that are there
    before it.
    """

    small: ClassVar[Any]

    @abstractmethod
    def entries(self, size: Any) -> int:
        """How many weights there are."""

    def setup(self, impl: str, case: str) -> None:
        torch.set_num_threads(self.threads)
        self.build(impl, self.small).forward()
        self.call = self.build(impl, self.cases[case])

    def track_bytes_per_entry(self, impl: str, case: str) -> float:
        before = sum(t.nbytes for t in self.call.inputs)
        return (before + peak_growth(self.call.forward)) / self.entries(self.cases[case])

    track_bytes_per_entry.unit = "bytes"  # type: ignore[attr-defined]
