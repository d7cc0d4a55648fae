"""``fluxperf recipes``: every token of the recipe grammar, and what this machine lacks for it."""

from __future__ import annotations

import argparse

from pytest_fluxperf.cli.arguments import Commands, add_device, device


def add_parser(commands: Commands) -> None:
    """What the command takes."""
    parser = commands.add_parser("recipes", help="list what a recipe can be made of, and what this machine lacks")
    add_device(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """List every token in every choice, and why this environment cannot run it."""
    from pytest_fluxperf.pipelines.pool import survey

    family = ""
    for token, lacking in survey(device(options.device)):
        if token.family != family:
            family = token.family
            print(f"{family}:")
        state = "yes" if lacking is None else f"no: {lacking}"
        print(f"  {token!s:<28} {token.spec.summary}\n  {'':<28} {state}")
    return 0
