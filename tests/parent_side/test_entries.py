"""Which entry of `enclaves` an enclave has, by its CID and by what it has attested."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parent_side.entries import Entries
from parent_side.trust import Attested, Trust
from vsockproxy.addresses import normalise_host
from vsockproxy.config.load import parse

A, B, ZEROS = "aa" * 48, "bb" * 48, "00" * 48
HOST = normalise_host("all.test")


def entries_of(enclaves: str, more: str = "") -> Entries:
    text = f"""\
listen: vsock://any:5000
allowlist: [{{address: all.test, port: 443}}]
{more}
enclaves:
{enclaves}
"""
    return Entries(parse(text.encode(), "parent.yaml", "parent"))


TRUST = Trust(roots=(b"root",), allow_debug=False, instance=None, max_age_seconds=300)


def attested(
    entries: Entries,
    pcrs: Mapping[int, str],
    *,
    is_debug: bool = False,
    module_id: str = "i-1-enc1",
) -> Attested:
    """What an enclave has attested under the conditions of a file."""
    values = {index: bytes.fromhex(value) for index, value in pcrs.items()}
    trust = entries.trust or TRUST
    return Attested(MappingProxyType(values), module_id, is_debug, trust)


TABLE = entries_of(
    f"""\
  - {{name: both, cid: 16, pcrs: {{0: {A}, 8: {B}}}}}
  - {{name: one, cid: 16, pcrs: {{0: {A}}}}}
  - {{name: plain, cid: 17}}
  - {{name: image, pcrs: {{0: {A}}}}}
  - {{name: signer, pcrs: {{8: {B}}}}}
  - {{name: fallback, cid: 18}}
  - {{name: low, cid: 3}}
"""
)


@pytest.mark.parametrize(
    ("cid", "pcrs", "name", "admitted"),
    [
        pytest.param(16, {0: A, 8: B}, "both", True, id="the first that fits counts"),
        pytest.param(16, {0: A}, "one", True, id="fewer measurements, the next entry"),
        pytest.param(16, {0: B, 8: B}, "signer", True, id="an entry for any CID"),
        pytest.param(16, {0: B}, None, False, id="a CID whose entries want other measurements"),
        pytest.param(16, None, None, False, id="and one that attests nothing"),
        pytest.param(17, None, "plain", True, id="an entry without measurements asks for none"),
        pytest.param(17, {0: A}, "plain", True, id="and comes before what follows it"),
        pytest.param(20, {0: A}, "image", True, id="measurements alone"),
        pytest.param(20, {0: A, 8: B}, "image", True, id="of two that fit, the first"),
        pytest.param(20, {0: A, 1: B, 16: B}, "image", True, id="others do not matter"),
        pytest.param(20, {1: A}, None, False, id="the right value in another register"),
        pytest.param(20, {}, None, False, id="no register at all"),
        pytest.param(20, None, None, False, id="the file's list is for none of them"),
        pytest.param(18, None, "fallback", True, id="an entry behind for who cannot attest"),
        pytest.param(18, {0: A}, "image", True, id="who can has the one before it"),
        pytest.param(3, None, "low", True, id="a low CID that is named"),
        pytest.param(3, {0: A}, "low", True, id="measurements alone are not for low CIDs"),
        pytest.param(2, {0: A}, None, False, id="nor do they admit one"),
    ],
)
def test_the_entry_of_an_enclave(
    cid: int, pcrs: dict[int, str] | None, name: str | None, admitted: bool
) -> None:
    shown = None if pcrs is None else attested(TABLE, pcrs)
    assert TABLE.name_of(cid, shown) == name
    assert TABLE.admit(cid, shown) is admitted
    decision = TABLE.policy_for(cid, shown).decide(HOST, 443)
    assert not decision.allowed  # no entry of this file lists anything
    if not admitted and cid > 3:
        assert decision.reason == "attestation_required"


@pytest.mark.parametrize(
    ("cid", "demanded"), [(16, True), (17, False), (18, True), (20, True), (3, False)]
)
def test_who_is_asked(cid: int, demanded: bool) -> None:
    assert TABLE.demand_attestation(cid) is demanded


def test_without_such_entries_all_is_as_ever() -> None:
    entries = entries_of("  - {cid: 16, name: web}\n")
    assert entries.trust is None
    assert not entries.demand_attestation(16)
    assert not entries.demand_attestation(20)
    assert entries.admit(20, None)
    assert entries.policy_for(20).decide(HOST, 443).allowed
    assert not entries.admit(3, None)


def test_a_name_question_is_refused_alike() -> None:
    decision = TABLE.policy_for(20).decide_name(HOST)
    assert (decision.allowed, decision.reason) == (False, "attestation_required")


def test_report_lets_nobody_pass_who_does_not_attest() -> None:
    entries = entries_of(f"  - {{pcrs: {{0: {A}}}}}\n", "mode: report")
    assert not entries.policy_for(20).decide(HOST, 443).allowed
    assert entries.policy_for(20, attested(entries, {0: A})).decide(HOST, 443).reported


def test_limits_are_those_of_the_entry_and_the_hello_offers_the_most() -> None:
    entries = entries_of(
        f"""\
  - {{pcrs: {{0: {A}}}, limits: {{streams: 7}}}}
  - {{pcrs: {{0: {B}}}, limits: {{streams: 9}}}}
  - {{cid: 17, limits: {{streams: 5}}}}
""",
        "limits: {streams: 100}",
    )
    assert entries.limits_of(20, attested(entries, {0: A})).streams == 7
    assert entries.limits_of(20, attested(entries, {0: B})).streams == 9
    assert entries.limits_of(20).streams == 100
    assert entries.most_streams(20) == 9
    assert entries_of("  - {cid: 17, limits: {streams: 5}}\n").most_streams(17) == 5


@pytest.mark.parametrize(
    ("change", "held"),
    [
        pytest.param({}, True, id="the same"),
        pytest.param({"max_age_seconds": 1.0}, True, id="an age is for new documents"),
        pytest.param({"roots": (b"another",)}, False, id="another root"),
        pytest.param({"instance": "i-2"}, False, id="another instance"),
    ],
)
def test_what_was_attested_under_other_conditions(change: dict[str, object], held: bool) -> None:
    shown = attested(TABLE, {0: A})
    then = replace(shown.trust, **change)  # type: ignore[arg-type]  # the table has the types
    assert TABLE.admit(20, replace(shown, trust=then)) is held


def test_debug_mode_is_believed_only_while_it_is_allowed() -> None:
    allowed = entries_of(f"  - {{pcrs: {{0: '{ZEROS}'}}}}\n", "attestation: {allow_debug: true}")
    shown = attested(allowed, {0: ZEROS}, is_debug=True)
    assert allowed.admit(20, shown)
    assert not entries_of(f"  - {{pcrs: {{0: {A}}}}}\n").admit(20, shown)


@pytest.mark.parametrize(
    ("pcrs", "module_id", "same"),
    [
        pytest.param({0: A, 8: B}, "i-1-enc1", True, id="the same"),
        pytest.param({0: A, 8: B, 16: A}, "i-1-enc1", True, id="another register was locked"),
        pytest.param({0: A}, "i-1-enc1", False, id="one is missing, and none is ever unlocked"),
        pytest.param({0: B, 8: B}, "i-1-enc1", False, id="another value"),
        pytest.param({0: A, 8: B}, "i-1-enc2", False, id="another enclave"),
    ],
)
def test_a_later_document_of_the_same_enclave(
    pcrs: dict[int, str], module_id: str, same: bool
) -> None:
    first = attested(TABLE, {0: A, 8: B})
    assert first.is_extended_by(attested(TABLE, pcrs, module_id=module_id)) is same


registers = st.dictionaries(st.sampled_from([0, 8]), st.sampled_from([A, B]), max_size=2)


@given(
    table=st.lists(
        st.tuples(st.none() | st.sampled_from([3, 16, 17]), registers), min_size=1, max_size=4
    ),
    cid=st.sampled_from([3, 16, 17, 20]),
    shown=st.none() | registers,
)
def test_nobody_has_an_entry_whose_measurements_he_has_not_attested(
    table: list[tuple[int | None, dict[int, str]]],
    cid: int,
    shown: dict[int, str] | None,
) -> None:
    config = TABLE.config
    made = [
        type(config.enclaves[0])(cid=each, pcrs={str(index): pcr for index, pcr in pcrs.items()})
        for each, pcrs in table
        if each is not None or pcrs
    ]
    values = None if shown is None else {i: bytes.fromhex(pcr) for i, pcr in shown.items()}
    config = msgspec.structs.replace(config, enclaves=made)
    found = config.entry_of(cid, values)
    if found is not None:
        index, entry = found
        assert entry is made[index]
        assert entry.cid in (None, cid)
        assert not entry.pcrs or (values and entry.measurements.items() <= values.items())
        assert not any(each.is_for(cid, values) for each in made[:index])
    if values is None and found is not None:
        assert not found[1].pcrs
