"""The file of `vsockproxy run-enclave`: which image to start as an enclave, and with what."""

import re
from pathlib import PurePath
from typing import Annotated, Any, cast

import msgspec

from vsockproxy.config.conversion import Conversion, convert_section
from vsockproxy.config.errors import WHOLE_FILE, ConfigErrors, Fault
from vsockproxy.config.field_types import Name
from vsockproxy.config.load import locate
from vsockproxy.config.model import MEBIBYTE, Section
from vsockproxy.config.scalars import EndpointText, Size, describe_value
from vsockproxy.config.source import BROKEN, read_source

__all__ = ("EnclaveRun", "parse_enclave_run")

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)

LEAST_MEMORY_BYTES = 64 * MEBIBYTE
"""What nitro-cli itself demands."""


class EnclaveRun(Section, frozen=True):
    """One enclave of this instance."""

    eif: Annotated[str, msgspec.Meta(pattern=r"^/[^\0\n]{1,4000}\Z", description="a whole path")]
    """The enclave image file."""
    cpus: Annotated[int, msgspec.Meta(ge=1, le=1024)]
    """Processors of the enclave; whole cores, so 2 or more where a core has two threads."""
    memory: Size
    """Memory of the enclave, as 2GiB."""
    cid: Annotated[int, msgspec.Meta(ge=4, le=0xFFFF_FFFE)] | None = None
    """The enclave's CID; by default nitro-cli chooses one."""
    name: Name | None = None
    """What nitro-cli calls it; by default the name of this file."""
    debug: bool = False
    """Its console is copied to our output; its measurements are all zeros, so nothing attests."""
    admin: EndpointText | None = None
    """The parent's admin endpoint: the enclave starts when GET /readyz there says that it serves.
    Without it, the order of the units is all that is waited for."""
    nitro_cli: Annotated[str, msgspec.Meta(min_length=1, max_length=4000)] = "nitro-cli"
    """The program."""


def parse_enclave_run(content: bytes, file: str) -> EnclaveRun:
    """Read the content of a file; without `name`, the result has the file's.

    Raises:
        ConfigErrors: it is not valid; holds every fault.
    """
    source = read_source(content)
    faults = list(source.faults)
    config: EnclaveRun | None = None
    if source.value is not BROKEN:
        config = _convert(source.value, PurePath(file).stem, faults)
    if faults or config is None:
        raise ConfigErrors(locate(faults, source, file))
    return config


def _convert(value: Any, stem: str, faults: list[Fault]) -> EnclaveRun | None:
    if not isinstance(value, dict):
        what = "the file is empty" if value is None else f"{describe_value(value)}, not keys"
        faults.append(Fault(WHOLE_FILE, what, "write eif, cpus and memory", line=1))
        return None
    conversion = Conversion()
    config = cast("EnclaveRun", convert_section(value, EnclaveRun, "", conversion))
    faults += conversion.faults
    if not faults and config.memory < LEAST_MEMORY_BYTES:
        faults.append(Fault("memory", "too little for an enclave", "write at least 64MiB"))
    if config.name is None:
        if not _NAME.fullmatch(stem):
            faults.append(Fault("name", f"{stem!r} is no name for nitro-cli", "write name: NAME"))
        config = msgspec.structs.replace(config, name=stem)
    return config
