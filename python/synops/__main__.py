"""The command line: ``python -m synops demo``, ``bench`` and ``info``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import _bench, _demo
from ._config import show_config


def _info(args: argparse.Namespace) -> int:
    print(show_config())
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; the exit status."""
    parser = argparse.ArgumentParser(
        prog="synops",
        description="Fast kernels for sparse, spiking, plastic and entropy-controlled networks.",
    )
    subparsers = parser.add_subparsers(required=True, metavar="command")
    _demo.add_parser(subparsers)
    _bench.add_parser(subparsers)
    info = subparsers.add_parser("info", help="versions, instruction set, threads, devices")
    info.set_defaults(run=_info)
    args = parser.parse_args(argv)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
