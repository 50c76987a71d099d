"""`vsockproxy run-enclave`: starts an enclave, follows it, and starts it again when it ends."""

import click

__all__ = ("command",)

EXIT_INVALID = 2


@click.command(name="run-enclave")
@click.argument("file", metavar="FILE")
@click.pass_context
def command(context: click.Context, file: str) -> None:
    """Run the enclave that FILE describes, until SIGTERM.

    FILE is a YAML file with eif, cpus and memory, and perhaps cid, name, debug, admin and
    nitro_cli; docs/operations.md explains them. The enclave is started with nitro-cli, and again
    when it has ended, after 1 s at first and after 60 s at most. The log has its CID, and tells
    systemd too. SIGTERM ends the enclave.

    Example: vsockproxy run-enclave /etc/vsockproxy/enclaves/web.yaml

    Exits with 0 on SIGTERM, with 2 if FILE is not valid.
    """
    # Imported here: other commands read no such file.
    from vsockproxy.config.enclave_run import parse_enclave_run
    from vsockproxy.config.load import ConfigErrors, FileNotReadable, read_file

    try:
        config = parse_enclave_run(read_file(file), file)
    except (ConfigErrors, FileNotReadable) as error:
        click.echo(error, err=True)
        context.exit(EXIT_INVALID)
    from parent_side.services import enclave_runner

    context.exit(enclave_runner.run(config))
