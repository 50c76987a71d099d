"""Why there is no machine with a vsock."""


class MachineError(Exception):
    """The machine could not be set up or did not run the command.

    Args:
        what: what failed, with the last words of the program that failed.
        mend: what to do about it, "" where nothing is known.
    """

    def __init__(self, what: str, mend: str = "") -> None:
        super().__init__(f"{what}: {mend}" if mend else what)
        self.what = what
        self.mend = mend
