"""`python -m enclave_side.shim APP ARG...` runs a Python program over the stream socket."""

import sys

from enclave_side.shim.socket_shim.launch import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
