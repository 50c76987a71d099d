"""Unmodified programs in a real sandbox, through both sides."""
