"""`vsockproxy doctor`: what this machine can do for us, and what to do about the rest."""

import click

__all__ = ("command",)


@click.command(name="doctor")
@click.option("--strict", is_flag=True, help="Exit with 1 if there is a warning, too.")
@click.pass_context
def command(context: click.Context, strict: bool) -> None:
    """Look at this machine, an enclave, a parent or any other, and say what was seen.

    Prints a line for each thing: ok, warning or error, what it is, and what to do. Changes nothing,
    and needs no configuration and no privileges.

    Exits with 0 if there is no error, with 1 if there is one.
    """
    from vsockproxy.diagnosis.probes import look
    from vsockproxy.diagnosis.verdicts import exit_code, judge

    findings = judge(look())
    for finding in findings:
        click.echo(str(finding))
    context.exit(exit_code(findings, strict=strict))
