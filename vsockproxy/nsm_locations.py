"""Where the Nitro Secure Module (NSM) is: for files, processes and programs. Pure values."""

from typing import Final

__all__ = ("DEVELOPMENT_HINT", "NSM_DEVICE", "NSM_SOCKET_NAME", "NSM_VARIABLE", "SOFTWARE_NSM")

NSM_DEVICE: Final = "/dev/nsm"
"""The device of a Nitro enclave."""

SOFTWARE_NSM: Final = "software"
"""What stands for a device in a file that wants a software module, which proves nothing."""

NSM_SOCKET_NAME: Final = "nsm.sock"
"""The software module's socket, beside the stream socket."""

NSM_VARIABLE: Final = "VSOCKPROXY_NSM"
"""The environment variable that tells the command where the module is: a device or a socket."""

DEVELOPMENT_HINT: Final = "attestation: {device: software} in enclave.yaml is for development"
"""What to say where there is no module."""
