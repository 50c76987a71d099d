"""The enclave's side: the entrypoint, and every way in for unmodified programs."""
