"""A parent whose clock is ahead of this machine's.

python -m tests.as_init.parent_ahead FILE
"""

import sys

from parent_side import service
from vsockproxy.config.load import load

if __name__ == "__main__":
    document = load(sys.argv[1], "parent")
    sys.exit(service.run(document, worker_module="tests.as_init.worker_ahead"))
