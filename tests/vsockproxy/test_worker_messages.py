import gc
import os
import socket
import typing
from collections.abc import Iterator
from pathlib import Path

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cddl import Schema
from vsockproxy import worker_messages
from vsockproxy.addresses import UnixAddress
from vsockproxy.config.document import Document
from vsockproxy.config.model import AllowRule, EnclaveConfig, ParentConfig
from vsockproxy.passed_memory import document_descriptor, read_document
from vsockproxy.worker_messages import (
    MAX_DESCRIPTORS,
    MAX_MESSAGE_BYTES,
    Certificate,
    CertificateWanted,
    ChannelClosed,
    Configure,
    Connection,
    Heartbeat,
    ListenerKind,
    Listeners,
    ListenerSummary,
    ListStreams,
    Message,
    MessageError,
    Named,
    NameOf,
    NoCertificate,
    NumberName,
    Offer,
    Ready,
    RegionKnown,
    RegionMissing,
    Reload,
    Reloaded,
    Routed,
    Sockets,
    SocketsWanted,
    Statistics,
    Stop,
    Stopped,
    StreamsListed,
    SupervisionChanged,
    WorkerStatistics,
    receive,
    send,
)

INSTANCE = bytes(range(16))
LISTENERS = [
    ListenerSummary("forwards[0].listen", "forward", "tcp://127.0.0.1:5432"),
    ListenerSummary("shim.http_proxy", "http_proxy", "tcp://127.0.0.1:3128"),
]

LONGEST_ROUTED = Routed(
    cid=0xFFFF_FFFF,
    worker=255,
    service="s" * 64,
    cids=[0xFFFF_FFFF] * 1000,
    source="f" * 255,
    port=443,
    client=f"[{'1' * 39}]:65535",
    server=f"[{'1' * 39}]:65535",
    first_bytes=bytes(3 * 16 * 1024),
    tried=[0xFFFF_FFFF] * 8,
)

Channel = tuple[socket.socket, socket.socket]


@pytest.fixture
def channel() -> Iterator[Channel]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def open_descriptors() -> set[str]:
    gc.collect()
    return set(os.listdir("/proc/self/fd"))


def null_descriptors(number: int) -> list[int]:
    return [os.open(os.devnull, os.O_RDONLY) for _ in range(number)]


def close_all(descriptors: list[int] | tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


MESSAGES = [
    pytest.param(Configure(0, INSTANCE, "json", "info", []), 1, id="configure, the parent's"),
    pytest.param(Configure(255, INSTANCE, "text", "debug", LISTENERS), 1, id="listeners stay"),
    pytest.param(
        Configure(7, INSTANCE, "text", "debug", LISTENERS, listeners_follow=True),
        1,
        id="listeners follow",
    ),
    pytest.param(Listeners(), 1, id="one listener"),
    pytest.param(Listeners(), MAX_DESCRIPTORS, id="most listeners"),
    pytest.param(NumberName(1, "a.example"), 0, id="number a name"),
    pytest.param(NameOf(0xFFFF_FFFF, 0xC612_0003), 0, id="name of an address"),
    pytest.param(Named(1, "a.example", 0xC612_0003), 0, id="named"),
    pytest.param(Named(1, None, None), 0, id="no name"),
    pytest.param(Connection("listen[0]", 16, 1025), 1, id="connection"),
    pytest.param(Connection("listen[0]", 0xFFFF_FFFF, 0xFFFF_FFFF), 1, id="highest numbers"),
    pytest.param(Configure(0, INSTANCE, "json", "info", [], reports=True), 1, id="with reports"),
    pytest.param(Configure(0, INSTANCE, "json", "info", []), 2, id="with memory"),
    pytest.param(ListStreams(1, 10_000), 0, id="list of streams"),
    pytest.param(StreamsListed(1), 1, id="streams listed"),
    pytest.param(StreamsListed(0xFFFF_FFFF, 255), 1, id="streams listed, passed on"),
    pytest.param(Statistics(), 1, id="statistics"),
    pytest.param(SupervisionChanged(), 1, id="the supervisor's state"),
    pytest.param(WorkerStatistics(255, 7), 1, id="statistics, passed on"),
    pytest.param(Reload(1, "debug", LISTENERS), 1, id="reload"),
    pytest.param(SocketsWanted(6, 1), 0, id="sockets wanted"),
    pytest.param(Sockets(4), MAX_DESCRIPTORS, id="sockets"),
    pytest.param(Sockets(4), 0, id="no sockets"),
    pytest.param(Offer(16, 1, ["web"], 3, {"web": 1.5}), 0, id="offer"),
    pytest.param(Offer(16, 1), 0, id="offer of nothing"),
    pytest.param(LONGEST_ROUTED, 1, id="the longest that a connection may bring"),
    pytest.param(RegionKnown("eu-west-1"), 0, id="region known"),
    pytest.param(RegionMissing("not_listed: …", True), 0, id="region missing"),
    pytest.param(RegionMissing("\N{GRINNING FACE}" * 500, False), 0, id="the longest reason"),
    pytest.param(Certificate("web", b"key", "generated"), 1, id="certificate"),
    pytest.param(CertificateWanted("web"), 0, id="certificate wanted"),
    pytest.param(NoCertificate("web"), 0, id="no certificate"),
    pytest.param(Stop(), 0, id="stop"),
    pytest.param(Stop(0.5), 0, id="stop soon"),
    pytest.param(Stop(86_400), 0, id="stop late"),
    pytest.param(Ready(), 0, id="ready"),
    pytest.param(Reloaded(1, ended_streams=2), 0, id="reloaded"),
    pytest.param(Reloaded(1, "no memory"), 0, id="not reloaded"),
    pytest.param(Heartbeat(), 0, id="heartbeat"),
    pytest.param(Heartbeat(3, 16_384), 0, id="heartbeat under load"),
    pytest.param(Stopped(), 0, id="stopped"),
]


@pytest.mark.parametrize(("message", "descriptors"), MESSAGES)
def test_a_message_arrives_as_it_was_sent(
    message: Message, descriptors: int, channel: Channel
) -> None:
    given_descriptors = null_descriptors(descriptors)
    send(channel[0], message, given_descriptors)
    received, passed = receive(channel[1])
    assert received == message
    assert len(passed) == descriptors
    assert not set(passed) & set(given_descriptors)
    assert not any(os.get_inheritable(descriptor) for descriptor in passed)
    close_all(given_descriptors)
    close_all(passed)


def test_a_passed_connection_works(channel: Channel) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        send(channel[0], Connection("listen[0]", 16, 0), [theirs.fileno()])
        theirs.close()
        _, (descriptor,) = receive(channel[1])
        with socket.socket(fileno=descriptor) as passed:
            passed.sendall(b"hello")
        assert ours.recv(100) == b"hello"


def test_nothing_has_arrived(channel: Channel) -> None:
    with pytest.raises(BlockingIOError):
        receive(channel[1])


def test_a_full_channel_blocks_and_loses_nothing(channel: Channel) -> None:
    sent = fill(channel[0])
    for port in range(sent):
        message, passed = receive(channel[1])
        assert message == Connection("listen[0]", 16, port)
        close_all(passed)
    send(channel[0], Stop())
    assert receive(channel[1]) == (Stop(), ())


def test_the_end_of_the_other_process(channel: Channel) -> None:
    send(channel[0], Ready())
    channel[0].close()
    assert receive(channel[1]) == (Ready(), ())
    for _ in range(2):
        with pytest.raises(ChannelClosed):
            receive(channel[1])
    with pytest.raises(ChannelClosed):
        send(channel[1], Stop())


def test_the_end_with_unread_messages(channel: Channel) -> None:
    send(channel[0], Ready())
    channel[1].close()
    with pytest.raises(ChannelClosed):
        receive(channel[0])


def fill(sender: socket.socket) -> int:
    """Send numbered connections until the channel is full; how many."""
    for port in range(1 << 20):
        try:
            send(sender, Connection("listen[0]", 16, port), [0])
        except BlockingIOError:
            return port
    raise AssertionError("a channel without a bound")


BROKEN = [
    pytest.param(b"\xff", "no CBOR", id="no CBOR"),
    pytest.param(b"\xa1", "no CBOR", id="CBOR that is cut off"),
    pytest.param(cbor2.dumps([]), "Expected `object`", id="a list"),
    pytest.param(cbor2.dumps({}), "`type`", id="no type"),
    pytest.param(cbor2.dumps({"type": "restart"}), "'restart'", id="an unknown type"),
    pytest.param(cbor2.dumps({"type": 1}), "Expected `str`", id="a type that is a number"),
    pytest.param(cbor2.dumps({"type": "ready", "x": 1}), "`x`", id="an unknown key"),
    pytest.param(cbor2.dumps({"type": "connection"}), "`listener`", id="a missing key"),
    pytest.param(
        cbor2.dumps({"type": "connection", "listener": "l", "cid": -1, "port": 1}),
        "$.cid",
        id="a number below its range",
    ),
    pytest.param(
        cbor2.dumps({"type": "connection", "listener": "l", "cid": 1 << 32, "port": 1}),
        "$.cid",
        id="a number above its range",
    ),
    pytest.param(
        cbor2.dumps({"type": "connection", "listener": "l", "cid": True, "port": 1}),
        "$.cid",
        id="a truth value for a number",
    ),
    pytest.param(
        cbor2.dumps(
            {
                "type": "configure",
                "worker": 0,
                "instance": b"short",
                "log_format": "json",
                "log_level": "info",
                "listeners": [],
            }
        ),
        "$.instance",
        id="an instance of another length",
    ),
]


@pytest.mark.parametrize(("data", "text"), BROKEN)
def test_a_broken_message_is_an_error_and_its_descriptors_are_closed(
    data: bytes, text: str, channel: Channel
) -> None:
    before = open_descriptors()
    socket.send_fds(channel[0], [data], [0, 0])
    with pytest.raises(MessageError) as raised:
        receive(channel[1])
    assert text in str(raised.value)
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("message", "descriptors"),
    [
        pytest.param(Stop(), 1, id="one too many"),
        pytest.param(Connection("listen[0]", 16, 0), 0, id="a connection without"),
        pytest.param(Connection("listen[0]", 16, 0), 2, id="two connections"),
        pytest.param(Configure(0, INSTANCE, "json", "info", []), 0, id="no document"),
        pytest.param(Configure(0, INSTANCE, "json", "info", LISTENERS), 3, id="listeners with it"),
        pytest.param(Listeners(), 0, id="no listeners"),
    ],
)
def test_a_wrong_number_of_descriptors(
    message: Message, descriptors: int, channel: Channel
) -> None:
    with pytest.raises(MessageError, match=f"with {descriptors} descriptors"):
        send(channel[0], message, [0] * descriptors)
    with pytest.raises(BlockingIOError):
        receive(channel[1])


def test_more_descriptors_than_a_message_may_have(channel: Channel) -> None:
    with pytest.raises(MessageError, match="descriptors"):
        send(channel[0], Listeners(), [0] * (1 + MAX_DESCRIPTORS))
    before = open_descriptors()
    data = cbor2.dumps({"type": "stop"})
    socket.send_fds(channel[0], [data], [0] * (1 + MAX_DESCRIPTORS))
    with pytest.raises(MessageError, match=f"{MAX_DESCRIPTORS} descriptors"):
        receive(channel[1])
    assert open_descriptors() == before


def test_a_message_that_is_too_large(channel: Channel) -> None:
    large = Connection("x" * MAX_MESSAGE_BYTES, 16, 0)
    with pytest.raises(MessageError, match=f"more than {MAX_MESSAGE_BYTES}"):
        send(channel[0], large, [0])
    channel[0].send(b"x" * (MAX_MESSAGE_BYTES + 1))
    with pytest.raises(MessageError, match=f"more than {MAX_MESSAGE_BYTES} bytes"):
        receive(channel[1])


@given(st.binary(max_size=200))
def test_any_packet_is_a_message_or_an_error(data: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.send(data)
        with pytest.raises((MessageError, ChannelClosed)):
            receive(theirs)


DOCUMENTS = [
    pytest.param(
        Document(
            ParentConfig(
                listen=[UnixAddress("/run/link.sock", cid=16)],
                allowlist=[AllowRule(address="kms.example", port=443, private=True)],
            ),
            "/etc/vsockproxy/parent.yaml",
            {"listen": 1, "allowlist[0]": 3},
        ),
        id="a parent's",
    ),
    pytest.param(
        Document(EnclaveConfig(parent=UnixAddress("/run/link.sock")), "--allow", {}),
        id="an enclave's, without a file",
    ),
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_travels_in_a_descriptor(document: Document) -> None:
    descriptor = document_descriptor(document)
    assert not os.get_inheritable(descriptor)
    for _ in range(2):  # workers that share it each read all of it
        assert read_document(descriptor) == document
    os.close(descriptor)


def test_a_large_document() -> None:
    rules = [AllowRule(address=f"host-{number}.example", port=443) for number in range(5000)]
    lines = {f"allowlist[{number}]": number for number in range(5000)}
    config = EnclaveConfig(parent=UnixAddress("/run/link.sock"), allowlist=rules)
    document = Document(config, "enclave.yaml", lines)
    descriptor = document_descriptor(document)
    assert os.fstat(descriptor).st_size > MAX_MESSAGE_BYTES
    assert read_document(descriptor) == document
    os.close(descriptor)


def test_a_document_without_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    document = Document(EnclaveConfig(parent=UnixAddress("/run/link.sock")), "--allow", {})
    descriptor = document_descriptor(document)
    assert read_document(descriptor) == document
    os.close(descriptor)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff", id="no CBOR"),
        pytest.param(cbor2.dumps([]), id="no map"),
        pytest.param(cbor2.dumps({"kind": "parent"}), id="an incomplete map"),
        pytest.param(
            cbor2.dumps({"kind": "enclave", "config": {"parent": "x"}, "file": "", "lines": {}}),
            id="a wrong address",
        ),
    ],
)
def test_what_is_no_document(content: bytes) -> None:
    descriptor = os.memfd_create("test")
    os.write(descriptor, content)
    with pytest.raises(MessageError, match="a document that cannot be read"):
        read_document(descriptor)
    os.close(descriptor)


SCHEMA = Schema.read(Path(worker_messages.__file__).with_suffix(".cddl"))
MESSAGE_TYPES = (*typing.get_args(Message),)


def as_packet(message: Message) -> dict[str, object]:
    """What a message is on the channel."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, open(os.devnull, "rb") as file:
        _, least = next(
            (values[0], values[1])
            for values in (each.values for each in MESSAGES)
            if type(values[0]) is type(message)
        )
        assert isinstance(least, int)
        send(ours, message, [file.fileno()] * least)
        packet, descriptors, _, _ = socket.recv_fds(theirs, MAX_MESSAGE_BYTES, MAX_DESCRIPTORS)
        close_all(tuple(descriptors))
    content = cbor2.loads(packet)
    assert isinstance(content, dict)
    return content


def test_the_schema_has_a_rule_for_each_message_and_no_other() -> None:
    tags = {
        keys["type"].type.strip('"'): name
        for name in SCHEMA.maps()
        if "type" in (keys := SCHEMA.keys(name))
    }
    assert set(tags) == {each.__struct_config__.tag for each in MESSAGE_TYPES}
    for each in MESSAGE_TYPES:
        keys = SCHEMA.keys(tags[str(each.__struct_config__.tag)])
        fields = {field.encode_name: field.required for field in msgspec.structs.fields(each)}
        assert {key: not keys[key].is_optional for key in keys if key != "type"} == fields
    kind = SCHEMA.keys("listener")["kind"].type
    assert [each for each in typing.get_args(ListenerKind) if not SCHEMA.fits(each, kind)] == []
    assert SCHEMA.keys("listener").keys() == set(ListenerSummary.__struct_fields__)


@pytest.mark.parametrize("message", [each.values[0] for each in MESSAGES])
def test_each_message_fits_the_schema(message: Message) -> None:
    assert SCHEMA.fits(as_packet(message), "message")


WRONG: list[object] = [None, True, -1, 2**32, 1e6, "", "x" * 254, b"x", [], [{}], {}]


@pytest.mark.parametrize("message", [each.values[0] for each in MESSAGES])
def test_the_schema_and_the_types_refuse_the_same(message: Message) -> None:
    good = as_packet(message)
    changed = [{**good, "more": 1}]
    for key in good:
        changed.append({name: value for name, value in good.items() if name != key})
        changed += [{**good, key: value} for value in WRONG]
    for content in changed:
        try:
            msgspec.convert(content, Message, builtin_types=(bytes,))
        except msgspec.ValidationError:
            is_valid = False
        else:
            is_valid = True
        assert SCHEMA.fits(content, "message") == is_valid, content
