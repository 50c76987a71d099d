"""Ends what did not end by itself in the time that a process had left."""

from collections.abc import Iterable
from itertools import islice

from vsockproxy.dataplane.link import Link
from vsockproxy.dataplane.stream_end import ENDED_SHUTDOWN
from vsockproxy.session import ErrorCode


def cut_streams(links: Iterable[Link], most: int) -> int:
    """Reset up to `most` streams of `links`, with SHUTDOWN; how many it were."""
    chosen = list(islice((end for link in links for end in link.ends), most))
    for end in chosen:
        end.reset(ErrorCode.SHUTDOWN, ENDED_SHUTDOWN)
    return len(chosen)
