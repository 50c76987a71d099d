"""Which headers of a call go on to KMS, and which of an answer go back."""

from collections.abc import Iterable, Mapping

__all__ = ("answer_headers", "passed_headers", "signed_headers")

_REPLACED = frozenset({"x-amz-content-sha256", "x-amz-date", "x-amz-security-token"})
"""Parts of the program's signature, in place of which comes ours."""

_PASSED = frozenset(
    {"amz-sdk-invocation-id", "amz-sdk-request", "content-type", "user-agent", "x-amzn-trace-id"}
)
_ANSWERED = frozenset({"content-encoding", "date", "retry-after"})
_OF_THE_BODY = frozenset({"x-amz-crc32", "x-amzn-content-sha256", "x-amz-content-sha256"})
"""Sums over a body, which are wrong once it is another."""


def passed_headers(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Those of a program's call that KMS gets.

    Args:
        headers: by their names in lower case.
    """
    passed = [
        (name, value)
        for name, value in headers.items()
        if name in _PASSED or (name.startswith("x-amz-") and name not in _REPLACED)
    ]
    return [*passed, ("accept-encoding", "identity")]


def signed_headers(host: str, passed: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those that the signature covers: AWS wants Host, Content-Type and all of X-Amz."""
    wanted = [
        (name, value)
        for name, value in passed
        if name == "content-type" or name.startswith("x-amz-")
    ]
    return [("host", host), *wanted]


def answer_headers(
    headers: Iterable[tuple[str, str]], *, is_body_changed: bool
) -> list[tuple[str, str]]:
    """Those of KMS's answer that the program gets, beside Content-Type and Content-Length."""
    return [
        (name, value)
        for name, value in headers
        if (name in _ANSWERED or name.startswith(("x-amz-", "x-amzn-")))
        and not (is_body_changed and name in _OF_THE_BODY)
    ]
