"""What the enclave's side and the parent's side share, and the command line."""

__version__ = "0.1.0"
