"""The socket shim: Python's own sockets, led over the stream socket, in unmodified programs.

`launch` starts a program with `for_children` on PYTHONPATH, whose `sitecustomize` calls
`installation.install` in that program and in all Python programs that it starts. From then on
`connecting` makes the connections of `socket.socket`, and `lookups` answers for names.
"""
