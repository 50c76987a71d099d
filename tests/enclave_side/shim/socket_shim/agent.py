"""A program that does with sockets what a test asks for over stdin, line by line."""

import json
import sys
import traceback
from types import FunctionType

from tests.enclave_side.shim.socket_shim import (
    acts_of_connecting,
    acts_of_many,
    acts_on_connections,
)

ACTS = {
    name: act
    for module in (acts_of_connecting, acts_on_connections, acts_of_many)
    for name, act in vars(module).items()
    if isinstance(act, FunctionType)
}


def main() -> None:
    """Serve until there is nothing more on stdin."""
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = ["returned", ACTS[name](*arguments)]
        except Exception:
            answer = ["raised", traceback.format_exc()]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
