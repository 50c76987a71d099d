"""The directory that programs under the socket shim have on PYTHONPATH: it holds `sitecustomize`."""
