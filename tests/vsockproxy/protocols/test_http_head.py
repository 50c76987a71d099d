import time

import pytest

from tests.vsockproxy.protocols.feeding import Feed, every_feed
from vsockproxy.protocols.errors import HeadError
from vsockproxy.protocols.http_head import HeadReader


def read(data: bytes, feed: Feed) -> tuple[bytes, bytes] | None:
    reader = HeadReader(32, 2)
    rest = feed(data)
    for piece in rest:
        if (parts := reader.receive(piece)) is not None:
            return parts[0], parts[1] + b"".join(rest)
    return None


READ = {
    "nothing yet": (b"", None),
    "no blank line yet": (b"a\r\nb\r\n", None),
    "half of a line end": (b"a\r\nb\r\n\r", None),
    "31 bytes without an end": (b"x" * 31, None),
    "a head and no more": (b"a\r\n\r\n", (b"a\r\n\r\n", b"")),
    "whatever follows the head": (b"a\r\n\r\n\n\x00\r ", (b"a\r\n\r\n", b"\n\x00\r ")),
    "a second head is what follows": (b"a\r\n\r\nb\r\n\r\n", (b"a\r\n\r\n", b"b\r\n\r\n")),
    "two headers": (b"a\r\nb\r\nc\r\n\r\n", (b"a\r\nb\r\nc\r\n\r\n", b"")),
    "32 bytes": (b"x" * 28 + b"\r\n\r\ntail", (b"x" * 28 + b"\r\n\r\n", b"tail")),
}


@every_feed
@pytest.mark.parametrize(("data", "expected"), READ.values(), ids=READ)
def test_heads(data: bytes, expected: tuple[bytes, bytes] | None, feed: Feed) -> None:
    assert read(data, feed) == expected


REFUSED = {
    "LF without CR": (b"a\n", False),
    "LF first": (b"\n", False),
    "CR without LF": (b"a\rb", False),
    "CR before CRLF": (b"a\r\r\n", False),
    "CR before the blank line": (b"a\r\n\r\r\n", False),
    "NUL": (b"a\x00", False),
    "vertical tab": (b"a\x0b", False),
    "form feed": (b"a\x0c", False),
    "a line that begins with a space": (b"a\r\n b", False),
    "a line that begins with a tab": (b"a\r\n\tb", False),
    "three headers": (b"a\r\nb\r\nc\r\nd\r\n\r\n", True),
    "32 bytes without an end": (b"x" * 32, True),
    "a head of 33 bytes": (b"x" * 29 + b"\r\n\r\n", True),
    "an endless head": (b"a\r\n" * 1000, True),
    "a forbidden byte before the limit": (b"x" * 31 + b"\n" + b"x" * 8, False),
    "a forbidden byte behind the limit": (b"x" * 32 + b"\n", True),
}


@every_feed
@pytest.mark.parametrize(("data", "is_too_large"), REFUSED.values(), ids=REFUSED)
def test_refused_heads(data: bytes, is_too_large: bool, feed: Feed) -> None:
    with pytest.raises(HeadError) as caught:
        read(data, feed)

    assert caught.value.is_too_large is is_too_large


def test_a_head_that_h11_is_slow_on_never_reaches_it() -> None:
    head = b"a\r\nX:" + b" " * 60_000 + b"\x0b\r\n\r\n"
    began = time.process_time()

    with pytest.raises(HeadError):
        HeadReader(65_536, 100).receive(head)

    assert time.process_time() - began < 0.5  # h11 itself takes more than ten seconds.
