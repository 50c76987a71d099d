"""A machine with a real AF_VSOCK loopback for the tests, made where there is none.

`python -m tests.on_vsock.machine -- COMMAND` runs a command where CID 1 reaches listeners of the
same machine: on this one if its kernel has the `vsock_loopback` module, else in User Mode Linux, a
Linux kernel that runs as an ordinary process, needs neither KVM nor root, and sees this machine's
files. It has one CPU, and a system call there costs some forty times what it costs outside: time
limits in tests must be generous, and speed measured there means nothing outside.
"""
