"""An ordinary program, which knows nothing of a proxy: prints what a URL leads to."""

import sys
from urllib.request import urlopen

with urlopen(sys.argv[1]) as answer:
    sys.stdout.write(answer.read().decode())
