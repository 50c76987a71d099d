"""An ordinary program, which knows nothing of a proxy."""

from urllib.request import urlopen

with urlopen("https://origin.test/") as answer:
    print(answer.read().decode(), end="")
