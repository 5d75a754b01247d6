"""Changing what is registered at Meta: shown first, asked about, and looked at again afterwards."""

from collections.abc import Callable, Iterable

import click

from service.cli.console import console, wrapped
from service.errors import GraphRefused
from service.meta.graph.client import Graph
from service.meta.graph.plan_types import Plan, PlanStep


def tell(steps: Iterable[PlanStep]) -> None:
    """Say what is there now, and what will be."""
    screen = console()
    for step in steps:
        click.echo(step.what)
        for word, there in (("now", step.now), ("then", step.then)):
            click.echo(wrapped(f"  {word:<6}{there}", screen, 8))


def carry_out(graph: Graph, first: Callable[[], Plan], after: Callable[[], Plan], *, dry_run: bool, yes: bool) -> None:
    """Show the steps of a *first* plan, ask, take them, and plan what is left *after* it: whether Meta has it so now.

    Raises PlanRefused where nothing may be changed, or where it was changed by somebody else meanwhile.
    """
    plan = _permitted(first(), "Nothing was changed.")
    tell(plan.steps)
    for note in plan.notes:
        click.echo(f"note: {note}")
    if not plan.steps:
        click.echo("Nothing to change: at Meta it is so already.")
        return
    if dry_run:
        click.echo("Nothing was changed: this was --dry-run.")
        return
    if not yes:
        if not click.confirm("Change this at Meta?"):
            click.echo("Nothing was changed.", err=True)
            raise SystemExit(1)
        if first() != plan:
            raise PlanRefused(
                "Nothing was changed: somebody else changed something at Meta meanwhile. Look at it again."
            )
    take(graph, plan.steps)
    # Whether fields that are not named are dropped, Meta does not say. Nothing else is done that was not shown.
    take(graph, (step for step in _permitted(after(), "Nothing more was changed.").steps if step.trims))
    left = _permitted(after(), "Nothing more was changed.").steps
    if left:
        tell(left)
        raise click.ClickException(
            "Meta took every request, and it is not so: the above is left. Has somebody else changed it just now? "
            "Look at it again in a minute."
        )
    click.echo("Done, and at Meta it is so now.")


def _permitted(plan: Plan, otherwise: str) -> Plan:
    if plan.refusals:
        raise PlanRefused("\n".join((otherwise, *plan.refusals)))
    return plan


def take(graph: Graph, steps: Iterable[PlanStep]) -> None:
    """Take steps in order; raises GraphRefused, having said which one it was."""
    for step in steps:
        what = step.what
        try:
            graph.ask(step.method, step.path, step.parameters, as_app=step.as_app)
        except GraphRefused:
            click.echo(f"{what}: not changed, nor anything after it.", err=True)
            raise
        click.echo(f"{what}: done")


class PlanRefused(click.ClickException):
    """Nothing was changed, and nothing will be until something else is said: trying again does not help."""

    exit_code = 2
