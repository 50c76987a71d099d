"""`vsockproxy sandbox`: both sides and a command on a machine without Nitro."""

import os

import click

from vsockproxy.addresses import AddressError, UnixAddress
from vsockproxy.cli.files import load_or_exit
from vsockproxy.cli.sandbox_documents import (
    AllowOption,
    enclave_document,
    left_out_forwards,
    link_cid,
    parent_document,
)
from vsockproxy.passed_memory import document_descriptor
from vsockproxy.processes import module_command, tell

__all__ = ("command",)


@click.command(name="sandbox", context_settings={"allow_interspersed_args": False})
@click.option(
    "--config-parent",
    "parent_path",
    type=click.Path(),
    metavar="FILE",
    show_default="no file, an empty allowlist",
    help="A parent's file; of its listen only ?cid= counts, and forwards on vsock are left out. "
    "For it the sandbox is the enclave with CID 4, or with that ?cid=. "
    "Example: --config-parent parent.yaml",
)
@click.option(
    "--config-enclave",
    "enclave_path",
    type=click.Path(),
    metavar="FILE",
    show_default="no file, an empty allowlist",
    help="An enclave's file; its parent is replaced. Example: --config-enclave enclave.yaml",
)
@click.option(
    "--allow",
    "allowed",
    metavar="HOST:PORT[=ADDR:PORT]",
    multiple=True,
    show_default="nothing",
    help="Allow it on both sides, private addresses too; with = the parent dials ADDR:PORT. "
    "May be given several times. Example: --allow api.example:443=127.0.0.1:8443",
)
@click.option("--verbose", "is_verbose", is_flag=True, help="Log what is allowed, too.")
@click.argument("words", metavar="-- CMD [ARG]...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def command(
    context: click.Context,
    parent_path: str | None,
    enclave_path: str | None,
    allowed: tuple[str, ...],
    is_verbose: bool,
    words: tuple[str, ...],
) -> None:
    """Run CMD as in an enclave, with the parent's side beside it.

    CMD has no network but what the allowlists name, and simply connects to it. Without files and
    --allow that is nothing. Needs user namespaces, or root; no vsock. Listeners of the parent's
    ingress and admin are those of this machine: they are bound as the file says.

    This is a development tool, not a boundary: CMD sees your files, and runs as you.

    Exits with the status of CMD, with 128+N if signal N ended it, with 127 if there is no such
    program, with 126 if it is not executable. Exits with 1 if there can be no sandbox, with 2 if a
    file or an option is not valid.
    """
    try:
        allow = [AllowOption.parse(text) for text in allowed]
    except AddressError as error:
        raise click.BadParameter(str(error), param_hint="--allow") from None
    parent_file = load_or_exit(context, parent_path, "parent") if parent_path else None
    enclave_file = load_or_exit(context, enclave_path, "enclave") if enclave_path else None
    for index in left_out_forwards(parent_file) if parent_file else ():
        tell(f"forwards[{index}] is left out: a sandbox has no vsock")

    from enclave_side import sandbox

    with sandbox.link_directory() as directory:
        link = UnixAddress(str(directory / "link.sock"), cid=link_cid(parent_file))
        document = document_descriptor(
            parent_document(parent_file, allow, link, is_verbose=is_verbose)
        )
        parent = ("parent_side.service", str(document), "parent_side.worker")
        status = sandbox.run(
            sandbox.Sandbox(
                document=enclave_document(enclave_file, allow, link, is_verbose=is_verbose),
                command=words,
                parent_command=module_command(*parent, str(os.getpid()), str(directory)),
                parent_descriptor=document,
            )
        )
    context.exit(status)
