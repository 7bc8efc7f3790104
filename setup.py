"""Builds synops._C from csrc/: op files once, kernel files (.inc) once per instruction set; and
synops._autograd from csrc/autograd, which fits one torch only and may fail to build.

Everything else about the package is in pyproject.toml. torch is not a build requirement on
purpose: pip would fetch its newest CUDA build (gigabytes) into a throw-away environment. Have
torch installed and use ``pip install --no-build-isolation``.
"""

import os
import platform
import sys
from pathlib import Path

from setuptools import setup

try:
    import pybind11
    import torch
    from torch.utils.cpp_extension import BuildExtension, CppExtension
except ModuleNotFoundError:
    sys.exit(
        "synops is built against the torch you use and with pybind11; one is missing here.\n"
        "  pip install pybind11 ninja torch   (CPU only: see https://pytorch.org)\n"
        "  pip install --no-build-isolation ."
    )

ROOT = Path(__file__).parent
CSRC = ROOT / "csrc"
# at::vec chooses its vectors by these names; its headers want both spellings of the macro.
ISA_FLAGS = {"DEFAULT": []}
if platform.machine() in ("x86_64", "AMD64"):
    ISA_FLAGS["AVX2"] = ["-mavx2", "-mfma", "-mf16c"]
    ISA_FLAGS["AVX512"] = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mf16c"]
CXX_FLAGS = ["-O3", "-g0", "-fvisibility=hidden", "-fvisibility-inlines-hidden", "-Wno-psabi"]


class Build(BuildExtension):
    """Compiles every kernel file for one instruction set in one call, then the op files."""

    def build_extension(self, ext):
        if ext.name == "synops._autograd":
            try:
                super().build_extension(ext)
            except Exception as error:  # a later torch: calls with gradients are slower
                print(f"synops._autograd is left out: {error}", file=sys.stderr)
            return
        for isa, flags in ISA_FLAGS.items():
            flags = [*CXX_FLAGS, *flags, f"-DCPU_CAPABILITY={isa}", f"-DCPU_CAPABILITY_{isa}"]
            flags.append("-std=c++20")
            ext.extra_objects += self.compiler.compile(
                self.write_stubs(isa),
                output_dir=os.path.abspath(os.path.join(self.build_temp, isa)),
                # without the stable-ABI macro of the op files: at::vec refuses to be included
                # under it
                include_dirs=ext.include_dirs,
                depends=ext.depends,
                extra_postargs={"cxx": flags} if self.use_ninja else flags,
            )
        ext.define_macros.append(("TORCH_TARGET_VERSION", "0x020b000000000000"))  # torch 2.11
        super().build_extension(ext)

    def write_stubs(self, isa):
        """One .cpp a kernel file: compilers do not take .inc, and object names must differ."""
        stubs = []
        for inc in sorted(CSRC.rglob("*.inc")):
            stub = Path(self.build_temp, isa, f"{inc.stem}_{isa}.cpp").absolute()
            stub.parent.mkdir(parents=True, exist_ok=True)
            text = f'#include "{inc.relative_to(CSRC)}"\n'
            if not stub.exists() or stub.read_text() != text:
                stub.write_text(text)
            stubs.append(str(stub))
        return stubs


kernels = CppExtension(
    "synops._C",
    sorted(
        str(p.relative_to(ROOT))
        for p in CSRC.rglob("*.cpp")
        if p.parent.name not in ("autograd", "sanitize")
    ),
    # first in line: torch ships a pybind11 of its own that refuses the stable-ABI macro
    include_dirs=[pybind11.get_include(), str(CSRC.absolute())],
    depends=[str(p) for p in CSRC.rglob("*") if p.suffix in (".h", ".inc")],
    define_macros=[("SYNOPS_TORCH_VERSION", f'"{torch.__version__}"')],
    extra_compile_args={"cxx": CXX_FLAGS},
)
# the stable ABI needs libtorch_cpu alone; torch_python would tie the module to one release
kernels.libraries = [lib for lib in kernels.libraries if lib != "torch_python"]

autograd = CppExtension(
    "synops._autograd",
    ["csrc/autograd/module.cpp"],
    include_dirs=[str(CSRC.absolute())],  # with torch's own pybind11: its exceptions pass through
    depends=["csrc/autograd/node.h"],
    define_macros=[("SYNOPS_TORCH_VERSION", f'"{torch.__version__}"')],
    extra_compile_args={"cxx": CXX_FLAGS},
    optional=True,
)

setup(ext_modules=[kernels, autograd], cmdclass={"build_ext": Build})
