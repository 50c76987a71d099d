import pytest

from vsockproxy.config.compare import compare_sides
from vsockproxy.config.document import Document
from vsockproxy.config.load import parse


def parent(yaml: str, file: str = "parent.yaml") -> Document:
    return parse(f"listen: vsock://any:5000\n{yaml}\n".encode(), file, "parent")


def enclave(yaml: str, file: str = "enclave.yaml") -> Document:
    return parse(f"parent: vsock://3:5000\n{yaml}\n".encode(), file, "enclave")


def warnings(parents: list[Document], enclaves: list[Document]) -> list[str]:
    return [str(warning) for warning in compare_sides(parents, enclaves)]


AGREEING = {
    "credentials for some enclave": ("credentials: {cids: [16]}", "credentials: {}"),
    "credentials that no enclave asks for": ("credentials: {cids: [16]}", ""),
    "nothing on either side": ("", ""),
    "the same rule": (
        "allowlist: [{address: a.b, port: 443}]",
        "allowlist: [{address: a.b, port: 443}]",
    ),
    "one port and a list of it": (
        "allowlist: [{address: a.b, port: 443}]",
        "allowlist: [{address: a.b, ports: [443]}]",
    ),
    "ports in several rules": (
        "allowlist: [{address: a.b, ports: [1-10]}]",
        "allowlist: [{address: a.b, ports: [1-5]}, {address: a.b, ports: [6-10]}]",
    ),
    "the same denials": (
        "allowlist: [{address: '*.b', port: 443}]\ndenylist: [{address: a.b}]",
        "allowlist: [{address: '*.b', port: 443}]\ndenylist: [{address: a.b, port: 443}]",
    ),
    "a rule that its own side denies": (
        "",
        "allowlist: [{address: a.b, port: 443}]\ndenylist: [{address: '*.b'}]",
    ),
    "a denial of what neither allows": (
        "denylist: [{address: c.d}]",
        "denylist: [{address: e.f}]",
    ),
    "an entry for a CID that has all that the enclave wants": (
        "allowlist: [{address: c.d, port: 1}]\n"
        "enclaves: [{cid: 17, allowlist: [{address: e.f, port: 1}]},"
        " {cid: 16, allowlist: [{address: a.b, port: 443}]}]",
        "allowlist: [{address: a.b, port: 443}]",
    ),
    "both sides report only": (
        "mode: report\nallowlist: [{address: a.b, port: 443}]",
        "mode: report\nallowlist: [{address: c.d, port: 443}]",
    ),
}


@pytest.mark.parametrize(("parent_yaml", "enclave_yaml"), AGREEING.values(), ids=AGREEING)
def test_sides_that_agree_have_no_warnings(parent_yaml: str, enclave_yaml: str) -> None:
    assert warnings([parent(parent_yaml)], [enclave(enclave_yaml)]) == []


DIFFERING = {
    "a rule of the enclave only": (
        "",
        "allowlist: [{address: a.b, port: 443}]",
        [
            "enclave.yaml:2: allowlist[0]: a.b port 443 is not allowed by parent.yaml: "
            "allow it there, or remove it here"
        ],
    ),
    "a rule of the parent only": (
        "allowlist:\n  - {address: a.b, port: 443}",
        "",
        [
            "parent.yaml:3: allowlist[0]: a.b port 443 is not allowed by enclave.yaml: "
            "allow it there, or remove it here"
        ],
    ),
    "other ports": (
        "allowlist: [{address: a.b, ports: [443, 8000-8010]}]",
        "allowlist: [{address: a.b, ports: [443, 8005-8020]}]",
        [
            "enclave.yaml:2: allowlist[0]: a.b port 8011-8020 is not allowed by parent.yaml: "
            "allow it there, or remove it here",
            "parent.yaml:2: allowlist[0]: a.b port 8000-8004 is not allowed by enclave.yaml: "
            "allow it there, or remove it here",
        ],
    ),
    "a wildcard against names below it": (
        "allowlist: [{address: a.b, port: 443}, {address: c.b, port: 443}]",
        "allowlist: [{address: '*.b', port: 443}]",
        [
            "enclave.yaml:2: allowlist[0]: *.b port 443 is not allowed by parent.yaml, "
            "only a.b, c.b: allow it there, or remove it here"
        ],
    ),
    "any depth against one label": (
        "allowlist: [{address: '**.b', port: 443}]",
        "allowlist: [{address: '*.b', port: 443}]",
        [
            "parent.yaml:2: allowlist[0]: **.b port 443 is not allowed by enclave.yaml, "
            "only *.b: allow it there, or remove it here"
        ],
    ),
    "a network against a part of it": (
        "allowlist: [{address: 10.0.0.0/8, port: 1}]",
        "allowlist: [{address: 10.1.0.0/16, port: 1}]",
        [
            "parent.yaml:2: allowlist[0]: 10.0.0.0/8 port 1 is not allowed by enclave.yaml, "
            "only 10.1.0.0/16: allow it there, or remove it here"
        ],
    ),
    "a network against a name": (
        "allowlist: [{address: 0.0.0.0/0, port: 1}]",
        "allowlist: [{address: a.b, port: 1}]",
        [
            "enclave.yaml:2: allowlist[0]: a.b port 1 is not allowed by parent.yaml: "
            "allow it there, or remove it here",
            "parent.yaml:2: allowlist[0]: 0.0.0.0/0 port 1 is not allowed by enclave.yaml: "
            "allow it there, or remove it here",
        ],
    ),
    "credentials that the parent gives to nobody": (
        "",
        "credentials: {}",
        [
            "enclave.yaml:2: credentials: credentials are given to no enclave by parent.yaml: "
            "add credentials there, or remove it here"
        ],
    ),
    "a denial on one side": (
        "allowlist: [{address: a.b, ports: [80, 443]}]\ndenylist: [{address: '**.b', port: 80}]",
        "allowlist: [{address: a.b, ports: [80, 443]}]",
        [
            "enclave.yaml:2: allowlist[0]: a.b port 80 is denied at parent.yaml:3: "
            "deny it here too, or allow it there"
        ],
    ),
    "a denial within a wildcard": (
        "allowlist: [{address: '*.b', port: 443}]",
        "allowlist: [{address: '*.b', port: 443}]\ndenylist: [{address: a.b}]",
        [
            "parent.yaml:2: allowlist[0]: a.b port 443 is denied at enclave.yaml:3: "
            "deny it here too, or allow it there"
        ],
    ),
    "a denial where the other side only reports": (
        "allowlist: [{address: a.b, port: 443}]",
        "mode: report\ndenylist: [{address: a.b}]",
        [
            "parent.yaml:2: allowlist[0]: a.b port 443 is denied at enclave.yaml:3: "
            "deny it here too, or allow it there"
        ],
    ),
    "an entry for a CID that lacks something": (
        "enclaves: [{cid: 16, allowlist: [{address: a.b, port: 443}]}]",
        "allowlist: [{address: a.b, port: 443}, {address: c.d, port: 443}]",
        [
            "enclave.yaml:2: allowlist[1]: c.d port 443 is not allowed by parent.yaml for CID 16: "
            "allow it there, or remove it here"
        ],
    ),
    "an entry for a CID that denies something": (
        "enclaves: [{cid: 16, allowlist: [{address: a.b, port: 443}], denylist: [{address: a.b}]}]",
        "allowlist: [{address: a.b, port: 443}]",
        [
            "enclave.yaml:2: allowlist[0]: a.b port 443 is denied at parent.yaml:2: "
            "deny it here too, or allow it there"
        ],
    ),
    "a denial of the whole file, for an entry": (
        "denylist: [{address: a.b}]\nenclaves: [{cid: 16, allowlist: [{address: a.b, port: 443}]}]",
        "allowlist: [{address: a.b, port: 443}]",
        [
            "enclave.yaml:2: allowlist[0]: a.b port 443 is denied at parent.yaml:2: "
            "deny it here too, or allow it there"
        ],
    ),
}


@pytest.mark.parametrize(
    ("parent_yaml", "enclave_yaml", "lines"), DIFFERING.values(), ids=DIFFERING
)
def test_what_one_side_allows_and_the_other_refuses_is_listed(
    parent_yaml: str, enclave_yaml: str, lines: list[str]
) -> None:
    assert warnings([parent(parent_yaml)], [enclave(enclave_yaml)]) == lines


def test_a_rule_of_the_parent_serves_any_of_the_enclaves() -> None:
    both = parent("allowlist: [{address: a.b, port: 1}, {address: c.d, port: 1}]")
    web = enclave("allowlist: [{address: a.b, port: 1}]", "web.yaml")
    ledger = enclave("allowlist: [{address: c.d, port: 1}]", "ledger.yaml")
    assert warnings([both], [web, ledger]) == []
    assert warnings([both], [web]) == [
        "parent.yaml:2: allowlist[1]: c.d port 1 is not allowed by web.yaml: "
        "allow it there, or remove it here"
    ]


def test_each_enclave_is_compared_with_the_list_that_fits_it() -> None:
    both = parent(
        "enclaves:\n"
        "  - {cid: 16, allowlist: [{address: a.b, port: 1}]}\n"
        "  - {cid: 17, allowlist: [{address: c.d, port: 1}]}"
    )
    web = enclave("allowlist: [{address: a.b, port: 1}]", "web.yaml")
    ledger = enclave("allowlist: [{address: c.d, ports: [1, 2]}]", "ledger.yaml")
    assert warnings([both], [web, ledger]) == [
        "ledger.yaml:2: allowlist[0]: c.d port 2 is not allowed by parent.yaml for CID 17: "
        "allow it there, or remove it here"
    ]


def test_one_side_alone_has_no_warnings() -> None:
    rule = "allowlist: [{address: a.b, port: 443}]"
    assert warnings([parent(rule)], []) == []
    assert warnings([], [enclave(rule)]) == []


def test_a_warning_names_a_bounded_number_of_rules() -> None:
    rules = ", ".join(f"{{address: h{index}.b, port: 443}}" for index in range(50))
    (line,) = warnings(
        [parent(f"allowlist: [{rules}]")], [enclave("allowlist: [{address: '*.b', port: 443}]")]
    )
    assert line.count(".b") == 1 + 8


def test_files_on_the_wrong_side_are_an_error() -> None:
    with pytest.raises(TypeError, match=r"parent\.yaml is not an enclave's file"):
        compare_sides([parent("")], [parent("")])
    with pytest.raises(TypeError, match=r"enclave\.yaml is not a parent's file"):
        compare_sides([enclave("")], [enclave("")])
