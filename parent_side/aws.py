"""One raw port for one listed destination: what the command `vsock-proxy` runs, in place of AWS's.

It is the service of `vsockproxy parent`, with a configuration that is made here instead of read.
"""

from typing import Final

from parent_side import service
from vsockproxy.addresses import Destination, Endpoint
from vsockproxy.config.document import Document, line_of
from vsockproxy.config.model import (
    FIRST_ENCLAVE_CID,
    AllowRule,
    AwsAllowlist,
    EnclaveEntry,
    ParentConfig,
    ParentForward,
    ParentLog,
    Resolver,
)
from vsockproxy.log_lines import Level
from vsockproxy.worker_messages import ForwardKind

__all__ = ("make_document", "serve")

DRAIN_SECONDS: Final = 3.0
"""AWS's ends at once; whoever restarts it, as the ACM agent does, does not wait for long."""


def make_document(
    allowlist: Document,
    index: int,
    *,
    listen: Endpoint,
    to: Destination,
    log_level: Level,
    resolver: Resolver,
) -> Document:
    """The configuration of the proxy; its places are those of AWS's file.

    Args:
        allowlist: AWS's file.
        index: which of its entries allows `to`. The entry's addresses may be private, and every
            CID may connect, 0-3 included, as with AWS's.
        listen: where enclaves connect.
        to: where each connection goes.
        log_level: the least important level that is logged.
        resolver: how names are resolved.
    """
    file = allowlist.config
    assert isinstance(file, AwsAllowlist)
    listed = file.allowlist[index]
    rules = [AllowRule(address=listed.address, port=listed.port, private=True)]
    low_cids = range(FIRST_ENCLAVE_CID)
    config = ParentConfig(
        listen=[listen],  # there has to be one; what is listened on is for `serve` to say
        allowlist=rules,
        enclaves=[EnclaveEntry(cid=cid, allowlist=rules) for cid in low_cids],
        forwards=[ParentForward(listen=listen, to=to)],
        resolver=resolver,
        drain=DRAIN_SECONDS,
        log=ParentLog(level=log_level),
    )
    paths = ("allowlist[0]", *(f"enclaves[{cid}].allowlist[0]" for cid in low_cids))
    line = line_of(allowlist.lines, f"allowlist[{index}]")
    return Document(config, allowlist.file, dict.fromkeys(paths, line))


def serve(document: Document, kind: ForwardKind) -> int:
    """Serve the raw port of `make_document` until SIGTERM or SIGINT; the exit code.

    Raises:
        ListenError: the port cannot be bound.
    """
    config = document.config
    assert isinstance(config, ParentConfig)
    listen = config.forwards[0].listen
    return service.serve(
        document, lambda _: [("forwards[0].listen", kind, listen)], is_service=True
    )
