"""Calls to KMS on a loop: what `for_asyncio` and `for_trio` have in common."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from vsockproxy.client import kms_calls
from vsockproxy.client.kms_calls import Call
from vsockproxy.client.kms_exchange import Exchange, begin

__all__ = ("AsyncKms",)

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class AsyncKms(ABC):
    """KMS, through the enclave's proxy, which attests and decrypts.

    Every call has a connection of its own, and ends within a minute; a cancelled one is given up.

    Args:
        region: of the keys; by default what AWS_REGION or AWS_DEFAULT_REGION says.
        endpoint: of the proxy; by default what AWS_ENDPOINT_URL_KMS says.
    """

    def __init__(self, *, region: str | None = None, endpoint: str | None = None) -> None:
        self._region = region
        self._endpoint = endpoint
        self.decrypt = self._awaited(kms_calls.decrypt)
        self.generate_data_key = self._awaited(kms_calls.generate_data_key)
        self.generate_data_key_pair = self._awaited(kms_calls.generate_data_key_pair)
        self.generate_random = self._awaited(kms_calls.generate_random)
        self.derive_shared_secret = self._awaited(kms_calls.derive_shared_secret)

    def _awaited(
        self, make: Callable[Parameters, Call[Result]]
    ) -> Callable[Parameters, Awaitable[Result]]:
        @wraps(make)
        async def call(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
            exchange = begin(make(*arguments, **options), self._endpoint, self._region)
            return await self._carry_out(exchange)

        return call

    @abstractmethod
    async def _carry_out(self, exchange: Exchange[Result]) -> Result:
        """Connect, send, and receive until there is a result.

        Raises:
            KmsRefused, KmsUnreachable, KmsAnswerError: as `Exchange.receive` says.
        """
