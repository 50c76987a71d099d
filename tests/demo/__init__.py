"""What `make demo` shows: two unmodified programs, a list of one host, and no network."""
