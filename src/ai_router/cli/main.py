"""The command ``ai-router``: all its parts."""

from __future__ import annotations

import click

from ai_router import __version__
from ai_router.cli.deciding import replay, route
from ai_router.cli.evaluating import evaluate
from ai_router.cli.judging import judge
from ai_router.cli.keys import keys
from ai_router.cli.learning import learn
from ai_router.cli.models import models
from ai_router.cli.serving import doctor, reload, serve


@click.group()
@click.version_option(__version__, prog_name="ai-router")
def main() -> None:
    """A self-hosted, OpenAI-compatible routing proxy."""


for command in (serve, doctor, reload, route, evaluate, learn, replay, judge, models, keys):
    main.add_command(command)
