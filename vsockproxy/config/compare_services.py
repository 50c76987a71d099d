"""Services that one side's file names and the other's does not, found before a connection fails.

A file of the enclave does not say its CID, so any of the enclaves may be the one that is meant.
"""

from collections.abc import Iterator, Sequence

from vsockproxy.config.document import Document, line_of
from vsockproxy.config.errors import ConfigError
from vsockproxy.config.model import EnclaveConfig, ParentConfig

__all__ = ("compare_services",)


def compare_services(
    parents: Sequence[Document], enclaves: Sequence[Document]
) -> Iterator[ConfigError]:
    """Compare every parent's file with all of the enclaves', and the other way round."""
    wanted = {service for parent in parents for _, service in _wanted(parent)}
    offered = {service for enclave in enclaves for _, service in _offered(enclave)}
    if not parents or not enclaves:
        return
    for parent in parents:
        for path, service in _wanted(parent):
            if service not in offered:
                what = f"no enclave offers the service {service}"
                mend = f"add it to ingress of {_names(enclaves)}, or remove it here"
                yield ConfigError(parent.file, line_of(parent.lines, path), path, what, mend)
    for enclave in enclaves:
        for path, service in _offered(enclave):
            if service not in wanted:
                what = f"no listener of the parent leads to the service {service}"
                mend = f"add one to ingress of {_names(parents)}, or remove it here"
                yield ConfigError(enclave.file, line_of(enclave.lines, path), path, what, mend)


def _wanted(document: Document) -> Iterator[tuple[str, str]]:
    assert isinstance(document.config, ParentConfig)  # the caller has sorted them
    for index, listener in enumerate(document.config.ingress):
        path = f"ingress[{index}]"
        if listener.service is not None:
            yield f"{path}.service", listener.service
        for number, route in enumerate(listener.routes):
            yield f"{path}.routes[{number}].service", route.service


def _offered(document: Document) -> Iterator[tuple[str, str]]:
    assert isinstance(document.config, EnclaveConfig)  # the caller has sorted them
    for index, ingress in enumerate(document.config.ingress):
        yield f"ingress[{index}].service", ingress.service


def _names(documents: Sequence[Document]) -> str:
    return " or ".join(document.file for document in documents)
