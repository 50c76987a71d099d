"""A process of its own that reads and checks a configuration file, so that a supervisor need not.

Whatever a file does to whoever reads it (an editor's accident of any size or depth, a disk that
does not answer), the supervisor goes on, and the process has a limit of time.

    python -m vsockproxy.control.checked_file FILE KIND DESCRIPTOR

The document goes into the descriptor, with exit code 0. What is wrong goes to stdout as `vsockproxy
check` prints it, with exit code 1.
"""

import os
import sys
from typing import Final, cast

from vsockproxy.config.document import CONFIG_TYPES, Kind
from vsockproxy.config.load import ConfigErrors, FileNotReadable, load
from vsockproxy.passed_memory import write_document
from vsockproxy.trusted_roots import trusted_roots_fault
from vsockproxy.upstream_credentials import credentials_fault

__all__ = ("INVALID", "main")

INVALID: Final = 1


def main() -> int:
    """Read, check, hand over; the exit code."""
    file, kind, descriptor_text = sys.argv[1:]
    assert kind in CONFIG_TYPES
    try:
        document = load(file, cast("Kind", kind))
    except (ConfigErrors, FileNotReadable) as error:
        os.write(1, str(error).encode("utf-8", "surrogateescape"))
        return INVALID
    fault = credentials_fault(document) or trusted_roots_fault(document)
    if fault is not None:
        os.write(1, str(fault).encode("utf-8", "surrogateescape"))
        return INVALID
    write_document(int(descriptor_text), document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
