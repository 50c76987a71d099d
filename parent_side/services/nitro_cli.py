"""The command lines and answers of AWS's `nitro-cli`. Pure.

Its answers are JSON, sometimes after lines for people (aws-nitro-enclaves-cli, docs/).
"""

from typing import Annotated, Final, TypeVar

import msgspec

from vsockproxy.config.enclave_run import EnclaveRun
from vsockproxy.config.model import MEBIBYTE
from vsockproxy.errors import VsockproxyError

__all__ = (
    "MAX_OUTPUT_BYTES",
    "Described",
    "NitroCliError",
    "console_command",
    "describe_command",
    "parse_described",
    "parse_started",
    "run_command",
    "terminate_command",
)

MAX_OUTPUT_BYTES: Final = 1024 * 1024

RUNNING: Final = "RUNNING"

_T = TypeVar("_T")


class NitroCliError(VsockproxyError):
    """nitro-cli could not be run, failed, or said what cannot be read."""


class Described(msgspec.Struct, frozen=True, rename={"id": "EnclaveID", "cid": "EnclaveCID"}):
    """An enclave, as nitro-cli tells of it."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    cid: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
    name: str = msgspec.field(name="EnclaveName", default="")
    state: str = msgspec.field(name="State", default=RUNNING)

    @property
    def is_running(self) -> bool:
        """Whether it is neither ending nor gone."""
        return self.state == RUNNING


def run_command(config: EnclaveRun) -> list[str]:
    """Start an enclave."""
    command = [
        *(config.nitro_cli, "run-enclave"),
        *("--eif-path", config.eif),
        *("--cpu-count", str(config.cpus)),
        *("--memory", str(-(-config.memory // MEBIBYTE))),
        *("--enclave-name", config.name or ""),
    ]
    if config.cid is not None:
        command += ["--enclave-cid", str(config.cid)]
    if config.debug:
        command.append("--debug-mode")
    return command


def describe_command(config: EnclaveRun) -> list[str]:
    """List the enclaves of this instance."""
    return [config.nitro_cli, "describe-enclaves"]


def console_command(config: EnclaveRun, enclave_id: str) -> list[str]:
    """Follow the console of an enclave in debug mode."""
    return [config.nitro_cli, "console", "--enclave-id", enclave_id]


def terminate_command(config: EnclaveRun, enclave_id: str) -> list[str]:
    """End an enclave."""
    return [config.nitro_cli, "terminate-enclave", "--enclave-id", enclave_id]


def parse_started(output: bytes) -> Described:
    """What `run-enclave` says of the enclave that it started.

    Raises:
        NitroCliError: it says something else.
    """
    return _parse(output, b"{", Described)


def parse_described(output: bytes) -> list[Described]:
    """What `describe-enclaves` says.

    Raises:
        NitroCliError: it says something else.
    """
    return _parse(output, b"[", list[Described])


def _parse(output: bytes, opening: bytes, wanted: type[_T]) -> _T:
    # What stands before it is for people, and may have brackets, but not at the start of a line.
    at = 0 if output.startswith(opening) else output.find(b"\n" + opening) + 1
    try:
        return msgspec.json.decode(output[at:], type=wanted)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NitroCliError(f"nitro-cli's answer cannot be read: {error}") from None
