"""Fetches the URL that is its argument, with the standard library."""

import sys
import urllib.request

with urllib.request.urlopen(sys.argv[1]) as response:
    print(response.read().decode(), end="")
