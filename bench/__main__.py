"""`python -m bench [NAME …]`: run benchmarks, print tables, write JSON under `bench/results/`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable

from rich.console import Console

from bench import idle, imports, latency, receiver, requests_count, starts, upsert
from bench import publish as publishing
from bench.report import Report, publish

BENCHMARKS: dict[str, Callable[..., Report]] = {
    "upsert": upsert.run,
    "imports": imports.run,
    "requests": requests_count.run,
    "receiver": receiver.run,
    "latency": latency.run,
    "publish": publishing.run,
    "starts": starts.run,
    "idle": idle.run,
}


def main(arguments: list[str] | None = None) -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; none: all")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size (1)")
    given = parser.parse_args(arguments)
    unknown = set(given.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    logging.basicConfig(level=logging.ERROR)
    console = Console(width=150)
    for name in given.names or BENCHMARKS:
        report = BENCHMARKS[name](scale=given.scale)
        path = publish(report, console=console)
        console.print(f"  written to {path}\n", style="dim", highlight=False)


if __name__ == "__main__":
    main()
