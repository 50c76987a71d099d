"""Attestation documents and KMS for programs without a loop: `attestation_document`, `kms`."""

import socket
import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from vsockproxy.attestation.nsm_errors import NsmRequestError
from vsockproxy.client import kms_calls
from vsockproxy.client.kms_calls import Call
from vsockproxy.client.kms_errors import KmsError
from vsockproxy.client.kms_exchange import CALL_SECONDS, READ_BYTES, Exchange, begin
from vsockproxy.nsm_device import Nsm, nsm_location
from vsockproxy.session.attesting import SESSION_LABEL

__all__ = ("Kms", "attestation_document", "kms")

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def attestation_document(
    *,
    user_data: bytes | None = None,
    nonce: bytes | None = None,
    public_key: bytes | None = None,
    device: str | None = None,
) -> bytes:
    """A document in which the Nitro Secure Module says what runs here, to be verified elsewhere.

    Takes milliseconds, and up to 120 s if the hypervisor does not answer.

    Args:
        user_data: stands in it, up to 1024 bytes.
        nonce: likewise; what the verifier has chosen, so that it knows the document to be new.
        public_key: likewise; a key that others are to encrypt with, in DER.
        device: the module's, where VSOCKPROXY_NSM does not name it and it is not /dev/nsm.

    Raises:
        NsmMissing: there is no module, or this process may not use it.
        NsmRefused: it said no.
        NsmRequestError: an argument is too long, or the user data are those of a session's document
            (`vsockproxy.session.attesting`), which no program has a use for.
        NsmTimedOut, NsmFailed, NsmResponseError: it did not answer, or not properly.
    """
    if user_data is not None and user_data.startswith(SESSION_LABEL):
        raise NsmRequestError(
            f"user data that begin with {SESSION_LABEL!r} are for sessions with the parent alone: "
            "begin them otherwise"
        )
    return Nsm(device or nsm_location()).attest(user_data, nonce, public_key)


class Kms:
    """KMS, through the enclave's proxy, which attests and decrypts; threads may share it.

    Args:
        region: of the keys; by default what AWS_REGION or AWS_DEFAULT_REGION says.
        endpoint: of the proxy; by default what AWS_ENDPOINT_URL_KMS says.
        timeout: seconds for a call.
    """

    def __init__(
        self,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        timeout: float = CALL_SECONDS,
    ) -> None:
        self._region = region
        self._endpoint = endpoint
        self._timeout = timeout
        self.decrypt = self._waited_for(kms_calls.decrypt)
        self.generate_data_key = self._waited_for(kms_calls.generate_data_key)
        self.generate_data_key_pair = self._waited_for(kms_calls.generate_data_key_pair)
        self.generate_random = self._waited_for(kms_calls.generate_random)
        self.derive_shared_secret = self._waited_for(kms_calls.derive_shared_secret)

    def _waited_for(self, make: Callable[Parameters, Call[Result]]) -> Callable[Parameters, Result]:
        @wraps(make)
        def call(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
            exchange = begin(make(*arguments, **options), self._endpoint, self._region)
            return self._carry_out(exchange)

        return call

    def _carry_out(self, exchange: Exchange[Result]) -> Result:
        proxy = exchange.proxy
        deadline = time.monotonic() + self._timeout
        try:
            with socket.create_connection((proxy.host, proxy.port), self._timeout) as connection:
                connection.sendall(exchange.request)
                while True:
                    connection.settimeout(_left(deadline))
                    received = exchange.receive(connection.recv(READ_BYTES))
                    if received is not None:
                        return received.result
        except KmsError:
            raise  # they are of these kinds too
        except TimeoutError:
            raise proxy.silent(self._timeout) from None
        except OSError as error:
            raise proxy.lost(error) from error


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


kms = Kms()
"""KMS as the environment says, at the time of each call."""
