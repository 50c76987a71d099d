"""Connections from outside to the services that enclaves offer."""
