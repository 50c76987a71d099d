"""What a worker asks its supervisor: the names and addresses of the command's network."""

from collections.abc import Callable, Sequence
from typing import Protocol

from vsockproxy.dataplane.loop import Future, Semaphore, new_future
from vsockproxy.errors import VsockproxyError
from vsockproxy.worker_messages import ChannelClosed, FromWorker, Named, NameOf, NumberName

QUESTIONS_AT_ONCE = 64
"""Questions that wait for their answer; further ones wait for their turn."""


class Say(Protocol):
    """Sends a message."""

    def __call__(self, message: FromWorker, descriptors: Sequence[int] = ()) -> None:
        """BlockingIOError when the channel is full, ChannelClosed when the supervisor is gone."""


class SupervisorBusy(VsockproxyError):
    """The supervisor does not take questions now."""


class Questions:
    """Asks the supervisor, which outlives the workers and numbers names for all of them.

    Args:
        say: sends a message, with descriptors if there are any.
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._turns = Semaphore(QUESTIONS_AT_ONCE)
        self._waiting: dict[int, Future[Named]] = {}
        self._next = 0

    async def number(self, name: str) -> int | None:
        """The address of `name`, as a number; None if there are none left.

        Raises:
            SupervisorBusy: it cannot be asked now.
        """
        return (await self._ask(lambda request: NumberName(request, name))).address

    async def name_of(self, address: int) -> str | None:
        """The name that `address` was given to, if any.

        Raises:
            SupervisorBusy: it cannot be asked now.
        """
        return (await self._ask(lambda request: NameOf(request, address))).name

    def tell(self, message: FromWorker, descriptors: Sequence[int] = ()) -> None:
        """Send a message whose answer, if there is one, comes to the side.

        Raises:
            SupervisorBusy: it cannot be sent now.
        """
        try:
            self._say(message, descriptors)
        except (BlockingIOError, ChannelClosed) as error:
            raise SupervisorBusy("the supervisor cannot be told") from error

    async def _ask(self, make: Callable[[int], FromWorker]) -> Named:
        async with self._turns:
            self._next = (self._next + 1) & 0xFFFF_FFFF
            request = self._next
            answer: Future[Named] = new_future()
            self._waiting[request] = answer
            try:
                self._say(make(request))
                return await answer
            except (BlockingIOError, ChannelClosed) as error:
                raise SupervisorBusy("the supervisor cannot be asked") from error
            finally:
                del self._waiting[request]

    def answered(self, message: Named) -> None:
        """The channel: an answer came. One that nobody waits for any more is dropped."""
        answer = self._waiting.get(message.request)
        if answer is not None and not answer.done():
            answer.set_result(message)
