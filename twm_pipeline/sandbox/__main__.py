"""`python -m twm_pipeline.sandbox`: the sandbox as a process."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twm_pipeline.sandbox.answers import ALL_ANSWERS
from twm_pipeline.sandbox.options import Budgets, SandboxOptions
from twm_pipeline.sandbox.server import serve


def parse_answer(text: str) -> tuple[str, Any]:
    """Return `name=value` as a switch and its value.

    Raises:
        argparse.ArgumentTypeError: If the switch does not exist.
    """
    name, _, value = text.partition("=")
    if name not in ALL_ANSWERS:
        raise argparse.ArgumentTypeError(f"unknown switch {name!r}")
    kind = type(ALL_ANSWERS[name][0])
    if kind is bool:
        return name, value.lower() in ("true", "1", "yes")
    return name, int(value) if kind is int else value


def parse_budgets(text: str) -> Budgets:
    """Return `on`, `off` or a time scale."""
    modes: dict[str, Budgets] = {"on": "on", "off": "off"}
    return modes[text] if text in modes else float(text)


def parse_instant(text: str) -> datetime:
    """Return an ISO 8601 instant, in UTC unless it says otherwise."""
    value = datetime.fromisoformat(text)
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m twm_pipeline.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--conversations", type=int, default=120)
    parser.add_argument("--data", type=Path, metavar="DIR", help="real content instead of generated")
    parser.add_argument("--budgets", type=parse_budgets, default="on", help="on, off, or a time scale")
    parser.add_argument("--anchor", type=parse_instant, help="instant at which generated content ends")
    parser.add_argument("--changes-per-hour", type=float, default=0)
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument(
        "--webhook-time-scale", type=float, default=1.0, metavar="N", help="divides the waits of retries"
    )
    parser.add_argument("--answer", type=parse_answer, action="append", default=[], metavar="NAME=VALUE")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Serve until told to stop."""
    given = build_parser().parse_args(arguments)
    options = SandboxOptions(
        seed=given.seed,
        tasks=given.tasks,
        conversations=given.conversations,
        data_dir=given.data,
        budgets=given.budgets,
        answers=dict(given.answer),
        host=given.host,
        port=given.port,
        anchor=given.anchor,
        changes_per_hour=given.changes_per_hour,
        latency_seconds=given.latency,
        webhook_time_scale=given.webhook_time_scale,
    )
    serve(options)


if __name__ == "__main__":
    main()
