from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.protocols.clock_stream import (
    ANSWER_BYTES,
    encode_answer,
    encode_question,
    parse_answer,
    split_questions,
)

U64 = st.integers(0, 2**64 - 1)


def test_the_bytes() -> None:
    question = encode_question(258)
    assert question == bytes.fromhex("0000000000000102")
    answer = encode_answer(question, 1_000_000_000)
    assert answer == bytes.fromhex("0000000000000102 000000003b9aca00")


@given(U64, U64)
def test_an_answer_is_what_was_encoded(number: int, time_ns: int) -> None:
    answer = encode_answer(encode_question(number), time_ns)
    assert len(answer) == ANSWER_BYTES
    assert parse_answer(answer) == (number, time_ns)


@given(st.lists(U64, max_size=10), st.lists(st.integers(1, 30), max_size=20))
def test_questions_come_in_any_pieces(numbers: list[int], sizes: list[int]) -> None:
    data = b"".join(map(encode_question, numbers))
    found: list[bytes] = []
    rest = b""
    for size in [*sizes, len(data)]:
        questions, rest = split_questions(rest + data[:size])
        data = data[size:]
        found += questions
    assert (found, rest) == (list(map(encode_question, numbers)), b"")
