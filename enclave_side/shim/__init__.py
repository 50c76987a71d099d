"""The ways in for unmodified programs."""
