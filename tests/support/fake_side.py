"""A side with workers that have no data path.

python -m tests.support.fake_side parent FILE
python -m tests.support.fake_side enclave FILE [COMMAND ARG...]
python -m tests.support.fake_side sandbox [COMMAND ARG...]

With the variable FAKE_NAMES=off the sandbox has the proxies only.
"""

import dataclasses
import os
import sys

from msgspec.structs import replace

from vsockproxy.addresses import UnixAddress
from vsockproxy.cli.sandbox_documents import enclave_document, parent_document
from vsockproxy.config.load import load
from vsockproxy.config.model import EnclaveConfig
from vsockproxy.processes import module_command
from vsockproxy.worker_messages import document_descriptor

FAKE_WORKER = "tests.support.fake_worker"


def main(side: str, *arguments: str) -> int:
    if side == "parent":
        from parent_side import service

        (file,) = arguments
        document = load(file, "parent")
        return service.run(document, file=file, is_service=True, worker_module=FAKE_WORKER)
    if side == "enclave":
        from enclave_side import entrypoint

        file, *command = arguments
        document = load(file, "enclave")
        return entrypoint.run(document, command, ground="shared", worker_module=FAKE_WORKER)
    return run_sandbox(arguments)


def run_sandbox(command: tuple[str, ...]) -> int:
    from enclave_side import sandbox

    with sandbox.link_directory() as directory:
        link = UnixAddress(str(directory / "link.sock"), cid=sandbox.LINK_CID)
        document = document_descriptor(parent_document(None, [], link, is_verbose=True))
        parent = ("parent_side.service", str(document), FAKE_WORKER)
        enclave = enclave_document(None, [], link, is_verbose=True)
        if os.environ.get("FAKE_NAMES") == "off":
            assert isinstance(enclave.config, EnclaveConfig)
            shim = replace(enclave.config.shim, names=False)
            enclave = dataclasses.replace(enclave, config=replace(enclave.config, shim=shim))
        return sandbox.run(
            sandbox.Sandbox(
                document=enclave,
                command=command,
                parent_command=module_command(*parent, str(os.getpid()), str(directory)),
                parent_descriptor=document,
                worker_module=FAKE_WORKER,
            )
        )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
