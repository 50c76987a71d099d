from typing import Any

import cbor2
import pytest
import yaml
from hypothesis import given, settings

from tests.vsockproxy.config.strategies import documents
from vsockproxy.addresses import AddressError, VsockAddress
from vsockproxy.config.document import Document, encode, line_of
from vsockproxy.config.load import parse
from vsockproxy.config.model import EnclaveConfig, Limits, ParentConfig


@settings(max_examples=100)
@given(documents)
def test_a_document_survives_cbor(document: Document) -> None:
    data = cbor2.loads(cbor2.dumps(document.to_builtins()))
    assert Document.from_builtins(data) == document


@settings(max_examples=100)
@given(documents)
def test_a_config_written_as_yaml_means_the_same(document: Document) -> None:
    written = encode(document.config)
    text = yaml.safe_dump(written, allow_unicode=True)
    assert parse(text.encode(), "f", document.kind).config == document.config


DATA: dict[str, Any] = {
    "kind": "parent",
    "config": {"listen": ["vsock://any:5000"]},
    "file": "f",
    "lines": {"": 1},
}
BROKEN_DATA = {
    "an unknown kind": {**DATA, "kind": "peer"},
    "no kind": {key: DATA[key] for key in ("config", "file", "lines")},
    "another kind": {**DATA, "kind": "enclave"},
    "an unknown key": {**DATA, "config": {**DATA["config"], "x": 1}},
    "a listener that is none": {**DATA, "config": {"listen": ["nowhere"]}},
    "lines that are none": {**DATA, "lines": {"": "x"}},
    "a file that is none": {**DATA, "file": 1},
}


@pytest.mark.parametrize("data", BROKEN_DATA.values(), ids=BROKEN_DATA)
def test_other_data_is_no_document(data: dict[str, Any]) -> None:
    assert Document.from_builtins(DATA).config == ParentConfig(
        listen=[VsockAddress(0xFFFF_FFFF, 5000)]
    )
    with pytest.raises((ValueError, KeyError, AddressError)):
        Document.from_builtins(data)


def test_encoding_writes_what_yaml_has() -> None:
    encoded = encode(EnclaveConfig(parent=VsockAddress(3, 5000)))
    assert encoded["parent"] == "vsock://3:5000"
    assert encoded["shim"]["http_proxy"] == "tcp://127.0.0.1:3128"
    assert encoded["limits"] == {
        "streams": 16_384,
        "receive_budget": 512 * 1024**2,
        "dedicated": 64,
        "link_wait": 3.0,
        "connect": 10.0,
        "handshake": 10.0,
        "half_closed": 300.0,
        "idle": 0.0,
        "rate": None,
    }
    assert set(encoded["limits"]) == set(Limits.__struct_fields__)


LINES = {"": 1, "allowlist": 3, "allowlist[0]": 4, "allowlist[0].port": 5}
LOCATIONS = {
    "a key": ("allowlist[0].port", "parent.yaml:5"),
    "a key that is not written": ("allowlist[0].private", "parent.yaml:4"),
    "an item that is not written": ("allowlist[7]", "parent.yaml:3"),
    "a section that is not written": ("limits.streams", "parent.yaml:1"),
    "the file": ("", "parent.yaml:1"),
}


@pytest.mark.parametrize(("path", "location"), LOCATIONS.values(), ids=LOCATIONS)
def test_a_location_names_the_innermost_line(path: str, location: str) -> None:
    config = ParentConfig(listen=[VsockAddress(3, 1)])
    assert Document(config, "/etc/vsockproxy/parent.yaml", LINES).location(path) == location


def test_a_document_without_a_file_has_its_origin_as_location() -> None:
    config = ParentConfig(listen=[VsockAddress(3, 1)])
    assert Document(config, "--allow", {}).location("allowlist[0]") == "--allow"
    assert line_of({}, "allowlist[0]") == 1
