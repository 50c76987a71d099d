"""A directory for PYTHONPATH of programs under the socket shim: it holds `sitecustomize`."""
