"""The bytes of `vsockproxy.clock`, by which an enclave asks its parent for the time.

A question is a number of the asker's, 8 bytes; its answer is that number and nanoseconds since the
epoch, 8 bytes each, big-endian. Questions are answered in their order, each as soon as it has come.
"""

import struct
from typing import Final

__all__ = (
    "ANSWER_BYTES",
    "MOST_QUESTIONS",
    "QUESTION_BYTES",
    "SERVICE",
    "encode_answer",
    "encode_question",
    "parse_answer",
    "split_questions",
)

SERVICE: Final = "vsockproxy.clock"

MOST_QUESTIONS: Final = 64
"""On one stream; the parent ends it then."""

_QUESTION: Final = struct.Struct(">Q")
_ANSWER: Final = struct.Struct(">QQ")

QUESTION_BYTES: Final = _QUESTION.size
ANSWER_BYTES: Final = _ANSWER.size


def encode_question(number: int) -> bytes:
    """A question."""
    return _QUESTION.pack(number)


def split_questions(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole questions of what has come, and the rest."""
    end = len(data) - len(data) % QUESTION_BYTES
    return [data[at : at + QUESTION_BYTES] for at in range(0, end, QUESTION_BYTES)], data[end:]


def encode_answer(question: bytes, time_ns: int) -> bytes:
    """The answer to a question.

    Args:
        question: its 8 bytes.
        time_ns: nanoseconds since the epoch.
    """
    return _ANSWER.pack(*_QUESTION.unpack(question), time_ns)


def parse_answer(data: bytes) -> tuple[int, int]:
    """The number of the question, and nanoseconds since the epoch; `data` is `ANSWER_BYTES`."""
    number, time_ns = _ANSWER.unpack(data)
    return number, time_ns
