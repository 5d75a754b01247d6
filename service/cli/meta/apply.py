"""Changing what is registered at Meta: print the changes, ask for confirmation, apply them, verify the result."""

from collections.abc import Callable, Iterable

import click

from service.cli.console import console, wrapped
from service.errors import GraphRefused
from service.meta.graph.client import Graph
from service.meta.graph.plan_types import Plan, PlanStep


def print_steps(steps: Iterable[PlanStep]) -> None:
    """Print the current and the future value of each step."""
    screen = console()
    for step in steps:
        click.echo(step.what)
        for label, value in (("now", step.now), ("then", step.then)):
            click.echo(wrapped(f"  {label:<6}{value}", screen, 8))


def carry_out(graph: Graph, first: Callable[[], Plan], after: Callable[[], Plan], *, dry_run: bool, yes: bool) -> None:
    """Print the steps of the *first* plan, ask, apply them, and verify that the plan *after* them has no steps.

    Raises PlanRefused if a change is not allowed, or if somebody else changed something before it was confirmed.
    """
    plan = _permitted(first(), "Nothing was changed.")
    print_steps(plan.steps)
    for note in plan.notes:
        click.echo(f"note: {note}")
    if not plan.steps:
        click.echo("Nothing to change: Meta already has this registration.")
        return
    if dry_run:
        click.echo("Nothing was changed, because of --dry-run.")
        return
    if not yes:
        if not click.confirm("Change this at Meta?"):
            click.echo("Nothing was changed.", err=True)
            raise SystemExit(1)
        if first() != plan:
            raise PlanRefused(
                "Nothing was changed: somebody else changed the registration at Meta meanwhile. Run this command again."
            )
    apply_steps(graph, plan.steps)
    # Meta does not document whether it drops fields that are not named. Only such steps are added to those printed.
    apply_steps(graph, (step for step in _permitted(after(), "Nothing more was changed.").steps if step.trims))
    remaining = _permitted(after(), "Nothing more was changed.").steps
    if remaining:
        print_steps(remaining)
        raise click.ClickException(
            "Meta accepted every request, but the changes above are still missing. Somebody else may have changed the "
            "registration. Run this command again in a minute."
        )
    click.echo("Done: Meta now has this registration.")


def _permitted(plan: Plan, message: str) -> Plan:
    if plan.refusals:
        raise PlanRefused("\n".join((message, *plan.refusals)))
    return plan


def apply_steps(graph: Graph, steps: Iterable[PlanStep]) -> None:
    """Apply steps in order; raises GraphRefused after printing which step failed."""
    for step in steps:
        what = step.what
        try:
            graph.ask(step.method, step.path, step.parameters, as_app=step.as_app)
        except GraphRefused:
            click.echo(f"{what}: failed. This step and those after it were not applied.", err=True)
            raise
        click.echo(f"{what}: done")


class PlanRefused(click.ClickException):
    """A change is not allowed with the given options; a retry does not help."""

    exit_code = 2
