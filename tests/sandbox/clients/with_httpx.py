"""Fetches the URL that is its argument, with httpx."""

import sys

import httpx

print(httpx.get(sys.argv[1]).text, end="")
