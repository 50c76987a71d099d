from collections.abc import Sequence

import pytest

from vsockproxy.dataplane import loop
from vsockproxy.dataplane.questions import QUESTIONS_AT_ONCE, Questions, Say, SupervisorBusy
from vsockproxy.worker_messages import ChannelClosed, FromWorker, Named, NameOf, NumberName


def keeper(said: list[FromWorker]) -> Say:
    def say(message: FromWorker, descriptors: Sequence[int] = ()) -> None:
        assert not descriptors
        said.append(message)

    return say


def test_answers_find_their_questions_in_any_order() -> None:
    said: list[FromWorker] = []
    questions = Questions(keeper(said))

    async def main() -> tuple[int | None, str | None]:
        number = loop.spawn(questions.number("a.test"), "number")
        name = loop.spawn(questions.name_of(7), "name")
        await loop.sleep(0)
        first, second = said
        assert isinstance(first, NumberName)
        assert isinstance(second, NameOf)
        assert (first.name, second.address) == ("a.test", 7)
        questions.answered(Named(second.request, "b.test", 7))
        questions.answered(Named(first.request, "a.test", 9))
        return await number, await name

    assert loop.run(main()) == (9, "b.test")


@pytest.mark.parametrize("error", [BlockingIOError(), ChannelClosed("gone")])
def test_a_channel_that_takes_nothing(error: Exception) -> None:
    def say(message: FromWorker, descriptors: Sequence[int] = ()) -> None:
        raise error

    with pytest.raises(SupervisorBusy):
        loop.run(Questions(say).number("a.test"))


def test_an_answer_that_nobody_waits_for_is_dropped() -> None:
    said: list[FromWorker] = []
    questions = Questions(keeper(said))

    async def main() -> int | None:
        given_up = loop.spawn(questions.number("a.test"), "given up")
        await loop.sleep(0)
        given_up.cancel()
        await loop.sleep(0)
        (first,) = said
        assert isinstance(first, NumberName)
        questions.answered(Named(first.request, "a.test", 1))
        questions.answered(Named(12345, None, None))
        again = loop.spawn(questions.number("b.test"), "again")
        await loop.sleep(0)
        questions.answered(Named(first.request + 1, "b.test", 2))
        return await again

    assert loop.run(main()) == 2


def test_questions_beyond_the_limit_wait_for_their_turn() -> None:
    said: list[NumberName] = []

    def say(message: FromWorker, descriptors: Sequence[int] = ()) -> None:
        assert isinstance(message, NumberName)
        said.append(message)

    questions = Questions(say)

    async def main() -> None:
        tasks = [
            loop.spawn(questions.number(f"n{number}.test"), "number")
            for number in range(QUESTIONS_AT_ONCE + 1)
        ]
        await loop.sleep(0)
        assert len(said) == QUESTIONS_AT_ONCE
        questions.answered(Named(said[0].request, said[0].name, 5))
        assert await tasks[0] == 5
        while len(said) == QUESTIONS_AT_ONCE:
            await loop.sleep(0)
        for question in said[1:]:
            questions.answered(Named(question.request, question.name, None))
        assert [await task for task in tasks[1:]] == [None] * QUESTIONS_AT_ONCE

    loop.run(main())
