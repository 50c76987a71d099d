import os

import trio
from trio.testing import MockClock

from parent_side.services.stream_lists import ANSWER_SECONDS, StreamLists
from vsockproxy.worker_messages import FromWorker, ListStreams, StreamsListed
from vsockproxy.worker_reports import StreamPage, StreamRow, report_descriptor


def row(age: float) -> StreamRow:
    return StreamRow(16, None, 1, f"h{age:g}", 443, None, None, "session", age, 0, 0)


def answer(lists: StreamLists, request: int, worker: int, page: StreamPage) -> None:
    descriptor = report_descriptor(page)
    lists.answered(StreamsListed(request, worker), descriptor)
    os.close(descriptor)


class Supervisor:
    """Answers for the workers that it was given pages of."""

    def __init__(self, pages: dict[int, StreamPage]) -> None:
        self.pages = pages
        self.asked: list[ListStreams] = []
        self.lists = StreamLists(self.say)

    def say(self, message: FromWorker) -> bool:
        assert isinstance(message, ListStreams)
        self.asked.append(message)
        for worker, page in self.pages.items():
            answer(self.lists, message.request, worker, page)
        return True


async def test_the_pages_of_all_workers_become_one() -> None:
    supervisor = Supervisor({0: StreamPage([row(3), row(5)], 1), 1: StreamPage([row(4)], 0)})
    found = await supervisor.lists.ask([0, 1], 2)
    assert [each["host"] for each in found["streams"]] == ["h3", "h4"]
    assert (found["more"], found["unanswered"]) == (2, [])
    assert [question.limit for question in supervisor.asked] == [2]


async def test_a_worker_that_does_not_answer_is_named(autojump_clock: MockClock) -> None:
    supervisor = Supervisor({0: StreamPage([row(3)], 0)})
    began = trio.current_time()
    found = await supervisor.lists.ask([0, 1], 10)
    assert trio.current_time() - began == ANSWER_SECONDS
    assert (len(found["streams"]), found["unanswered"]) == (1, [1])


async def test_nobody_is_asked_where_nobody_serves() -> None:
    supervisor = Supervisor({})
    assert (await supervisor.lists.ask([], 10))["streams"] == []
    assert not supervisor.asked


async def test_late_and_foreign_answers_are_dropped(autojump_clock: MockClock) -> None:
    supervisor = Supervisor({7: StreamPage([row(1)], 0)})
    found = await supervisor.lists.ask([0], 10)
    assert (found["streams"], found["unanswered"]) == ([], [0])
    answer(supervisor.lists, 1, 0, StreamPage([row(1)], 0))
