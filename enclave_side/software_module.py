"""What the supervisor of an enclave with a software module keeps for it: its root and its memory.

The root is the file's, made where it is absent, or one of this start's own. Both outlive the
process that serves the module, as the real one outlives every process.
"""

import os
import tempfile
from contextlib import suppress

from enclave_side.trust import require_trust
from vsockproxy.attestation.software_memory import SoftwareMemory
from vsockproxy.errors import VsockproxyError
from vsockproxy.nsm_locations import SOFTWARE_NSM
from vsockproxy.passed_memory import memory_descriptor

__all__ = ("SoftwareModuleError", "make_memory")

_KEY: str = f"attestation.device: {SOFTWARE_NSM}"

MOST_ROOT_BYTES = 64 * 1024


class SoftwareModuleError(VsockproxyError):
    """There can be no software module; the text names the key, the cause and the mend."""


def make_memory(root_file: str | None) -> int:
    """Memory with the root; the caller closes the descriptor.

    Args:
        root_file: of the file's `attestation.root`; made, for its owner alone, where it is absent.

    Raises:
        SoftwareModuleError: the file cannot be read or made, or holds no root.
        TrustMissing: the packages for it are not installed.
    """
    require_trust(_KEY)
    # Here, since an enclave without a software module has no use for them.
    from vsockproxy.attestation.software_pki import SoftwareRootError, read_root, write_root
    from vsockproxy.software_nsm_keys import make_root

    if root_file is None:
        pem = write_root(make_root())
    else:
        try:
            pem = _read(root_file)
        except FileNotFoundError:
            pem = _write_first(root_file, write_root(make_root()))
        except OSError as error:
            raise _unusable(root_file, error.strerror or str(error)) from error
        try:
            pem = write_root(read_root(pem))  # and nothing else that the file may hold
        except SoftwareRootError as error:
            raise _unusable(root_file, str(error)) from error
    return memory_descriptor("vsockproxy-software-nsm", SoftwareMemory(pem).encode())


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(MOST_ROOT_BYTES)


def _write_first(path: str, pem: bytes) -> bytes:
    """Make the file, whole from its first moment; what it holds if another was faster."""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".root-", dir=os.path.dirname(path))
        try:
            with open(descriptor, "wb") as file:
                file.write(pem)
            with suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            os.unlink(temporary)
        return _read(path)
    except OSError as error:
        cause = f"it cannot be made: {error.strerror}"
        raise _unusable(path, cause) from error


def _unusable(path: str, cause: str) -> SoftwareModuleError:
    return SoftwareModuleError(
        f"attestation.root: {path}: {cause}: write a file with the certificate and the key of a "
        "test root, or one that can be made"
    )
