"""Questions for the peer's resolver, in both directions; each direction bounded by MAX_RESOLVES."""

from vsockproxy.errors import Refused
from vsockproxy.session.errors import ErrorCode, LocalProtocolError, PeerProtocolError
from vsockproxy.session.frame_writer import FrameWriter
from vsockproxy.session.frames import PAYLOAD_LIMITS, FrameType
from vsockproxy.session.limits import MAX_RESOLVES
from vsockproxy.session.messages import Resolve, Resolved

MAX_REQUEST_ID = 0xFFFF_FFFF
"""The stream field of the frame holds the id, which is never 0."""

MAX_ANSWER_BYTES = PAYLOAD_LIMITS[FrameType.RESOLVED][1]


class Resolves:
    """Which questions are open, and which frames are due for them."""

    __slots__ = ("_answers_due", "_asked", "_next_id", "_owed", "_questions_due", "is_due")

    def __init__(self) -> None:
        self._next_id = 1
        self._asked: set[int] = set()
        self._owed: set[int] = set()
        self._questions_due: dict[int, bytes] = {}
        self._answers_due: dict[int, bytes] = {}
        self.is_due = False
        """Whether `frames` has something to send."""

    def ask(self, question: Resolve) -> int:
        """Ask the peer; the answer comes as an event with the id that is returned.

        Raises:
            Refused: with reason limit, when too many questions are open.
            LocalProtocolError: when a field is out of bounds.
        """
        if len(self._asked) >= MAX_RESOLVES:
            raise Refused("limit", f"{MAX_RESOLVES} name lookups are open on this link")
        payload = question.encode()
        request_id = self._next_id
        while request_id in self._asked:
            request_id = request_id % MAX_REQUEST_ID + 1
        self._next_id = request_id % MAX_REQUEST_ID + 1
        self._asked.add(request_id)
        self._questions_due[request_id] = payload
        self.is_due = True
        return request_id

    def answer(self, request_id: int, answer: Resolved) -> None:
        """Answer a question of the peer; once each. One that is too long becomes a failure.

        Raises:
            LocalProtocolError: when the peer did not ask, or a field is out of bounds.
        """
        if request_id not in self._owed:
            raise LocalProtocolError(f"nobody asked question {request_id}")
        payload = answer.encode()
        if not answer.has_bounded_records or len(payload) > MAX_ANSWER_BYTES:
            # What a name server sends must never end a session.
            payload = Resolved("lookup_failed", "the answer is too long").encode()
        self._owed.remove(request_id)
        self._answers_due[request_id] = payload
        self.is_due = True

    def receive_question(self, request_id: int, payload: bytes) -> Resolve:
        """A RESOLVE frame."""
        if request_id in self._owed or request_id in self._answers_due:
            raise PeerProtocolError(ErrorCode.PROTOCOL, f"question {request_id} was asked twice")
        if len(self._owed) + len(self._answers_due) >= MAX_RESOLVES:
            raise PeerProtocolError(ErrorCode.ABUSE, f"over {MAX_RESOLVES} questions at once")
        question = Resolve.decode(payload)
        self._owed.add(request_id)
        return question

    def receive_answer(self, request_id: int, payload: bytes) -> Resolved:
        """A RESOLVED frame."""
        if request_id not in self._asked:
            raise PeerProtocolError(ErrorCode.PROTOCOL, f"an answer {request_id} nobody asked for")
        answer = Resolved.decode(payload)
        self._asked.remove(request_id)
        return answer

    def frames(self, writer: FrameWriter, output: bytearray) -> None:
        """Write what is due."""
        for request_id, payload in self._questions_due.items():
            output += writer.frame(FrameType.RESOLVE, request_id, payload)
        for request_id, payload in self._answers_due.items():
            output += writer.frame(FrameType.RESOLVED, request_id, payload)
        self._questions_due.clear()
        self._answers_due.clear()
        self.is_due = False
