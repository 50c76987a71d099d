"""What the command's start waits for: the region, unless the parent has said no."""

import trio
from trio.testing import MockClock

from tests.support.supervision import RecordingLog
from vsockproxy.control.companion_process import REGION_SECONDS, EnclaveServices
from vsockproxy.worker_messages import RegionKnown, RegionMissing


def services(environment: dict[str, str]) -> EnclaveServices:
    return EnclaveServices("enclave_side.services.process", [], "", environment, has_region=True)


async def test_a_region_that_is_known_is_the_command_s(autojump_clock: MockClock) -> None:
    del autojump_clock
    environment: dict[str, str] = {}
    companion, log = services(environment), RecordingLog()
    companion.received(0, RegionMissing("the parent is away", is_refusal=False), ())
    companion.received(0, RegionKnown("eu-west-1"), ())
    await companion.ready(log)
    assert environment == {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1"}
    assert log.lines == []


async def test_a_refusal_is_not_waited_for(autojump_clock: MockClock) -> None:
    del autojump_clock
    companion, log = services({}), RecordingLog()
    companion.received(0, RegionMissing("not_listed: add 16", is_refusal=True), ())
    began = trio.current_time()
    await companion.ready(log)
    assert trio.current_time() == began
    (line,) = log.events("region_unknown")
    assert line["text"] == (
        "AWS_REGION is not set, not_listed: add 16; or write credentials.region"
    )


async def test_what_may_pass_is_waited_for_and_said(autojump_clock: MockClock) -> None:
    del autojump_clock
    for trouble, cause in (("the parent is away", "the parent is away"), ("", "named none in 5 s")):
        companion, log = services({}), RecordingLog()
        if trouble:
            companion.received(0, RegionMissing(trouble, is_refusal=False), ())
        began = trio.current_time()
        await companion.ready(log)
        assert trio.current_time() - began == REGION_SECONDS
        assert cause in str(log.events("region_unknown")[0]["text"])
