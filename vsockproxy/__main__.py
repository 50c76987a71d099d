"""`python -m vsockproxy` is the `vsockproxy` command."""

from vsockproxy.cli import main

if __name__ == "__main__":
    main()
