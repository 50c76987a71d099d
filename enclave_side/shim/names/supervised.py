"""The supervisor's address table, as a worker asks for it."""

from ipaddress import IPv4Address

from vsockproxy.dataplane.questions import Questions

__all__ = ("SupervisedTable",)


class SupervisedTable:
    """The one table that gives numbers.

    Args:
        questions: what carries them to the supervisor.
    """

    def __init__(self, questions: Questions) -> None:
        self._questions = questions

    async def number(self, name: str) -> IPv4Address | None:
        """The address of a name under a wildcard; None when none is left for it.

        Raises:
            SupervisorBusy: the supervisor cannot be asked.
        """
        number = await self._questions.number(name)
        return None if number is None else IPv4Address(number)

    async def name_of(self, address: IPv4Address) -> str | None:
        """The name that an address of the block was given to, if any.

        Raises:
            SupervisorBusy: the supervisor cannot be asked.
        """
        return await self._questions.name_of(int(address))
