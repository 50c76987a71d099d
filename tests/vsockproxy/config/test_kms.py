"""`kms` of an enclave's file: defaults, mistakes, and what `check` warns of."""

import pytest

from vsockproxy.addresses import AddressError, TcpAddress
from vsockproxy.config.compare import compare_sides
from vsockproxy.config.endpoint_url import parse_endpoint_url
from vsockproxy.config.kms_advice import advise_kms
from vsockproxy.config.load import ConfigErrors, parse
from vsockproxy.config.model import EnclaveConfig, EnclaveCredentials, EnclaveKms
from vsockproxy.credentials.regions import endpoint_host
from vsockproxy.policy.closed_literals import needs_private

ENCLAVE = "parent: vsock://3:5000\n"


def enclave(text: str) -> EnclaveConfig:
    config = parse((ENCLAVE + text).encode(), "f").config
    assert isinstance(config, EnclaveConfig)
    return config


def test_defaults() -> None:
    config = enclave("kms: {}\n")
    assert config.kms == EnclaveKms(listen=TcpAddress("127.0.0.1", 4500), endpoints={}, ca=None)
    assert config.credentials is None


def test_kms_brings_credentials_and_leaves_those_of_the_file() -> None:
    assert enclave("kms: {}\n").wanted_credentials == EnclaveCredentials()
    own = enclave("kms: {}\ncredentials: {region: eu-west-1}\n").wanted_credentials
    assert own == EnclaveCredentials(region="eu-west-1")
    assert enclave("").wanted_credentials is None


WRONG = {
    "an address that others reach": (
        "kms: {listen: '10.0.0.1:4500'}\n",
        "f:2: kms.listen: 10.0.0.1 is no loopback address, and plaintexts leave by it: "
        "write 127.0.0.1:4500",
    ),
    "no stream socket": (
        "kms: {}\nshim: {streams: null}\n",
        "f:2: kms: KMS is reached over the stream socket, which shim.streams: null turns off: "
        "remove shim.streams: null",
    ),
    "a port that is taken": (
        "kms: {listen: '127.0.0.1:3128'}\n",
        "f:2: kms.listen: tcp://127.0.0.1:3128 is taken by shim.http_proxy: "
        "write another address or port",
    ),
    "the port of the credentials that come along": (
        "kms: {listen: '127.0.0.1:3129'}\n",
        "f:2: kms.listen: tcp://127.0.0.1:3129 is taken by credentials.listen: "
        "write another address or port",
    ),
    "true": ("kms: true\n", "f:2: kms: true does not fit: write kms: {}"),
    "a URL without TLS": (
        "kms: {endpoints: {eu-west-1: 'http://kms.example'}}\n",
        "f:2: kms.endpoints.eu-west-1: 'http://kms.example' is no https:// URL: "
        "write https://HOST or https://HOST:PORT",
    ),
    "a URL with a path": (
        "kms: {endpoints: {eu-west-1: 'https://kms.example/v1'}}\n",
        "f:2: kms.endpoints.eu-west-1: 'https://kms.example/v1' has more than a host and a port: "
        "write https://HOST or https://HOST:PORT",
    ),
    "a URL in capitals": (
        "kms: {endpoints: {eu-west-1: 'https://KMS.example'}}\n",
        "f:2: kms.endpoints.eu-west-1: 'https://KMS.example' is not in normal form: "
        "write https://kms.example:443",
    ),
}


@pytest.mark.parametrize(("text", "line"), WRONG.values(), ids=WRONG)
def test_what_cannot_work_is_reported(text: str, line: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        enclave(text)
    assert str(caught.value) == line


def test_a_region_that_is_none_is_reported() -> None:
    with pytest.raises(ConfigErrors) as caught:
        enclave("kms: {endpoints: {Ireland: 'https://kms.example'}}\n")
    assert "kms.endpoints" in str(caught.value)


URLS = {
    "https://kms.example": ("kms.example", 443),
    "https://kms.example/": ("kms.example", 443),
    "https://kms.example:8443": ("kms.example", 8443),
    "https://192.0.2.1:8443": ("192.0.2.1", 8443),
    "https://[2001:db8::1]": ("2001:db8::1", 443),
    "https://[2001:db8::1]:8443": ("2001:db8::1", 8443),
}


@pytest.mark.parametrize(("url", "wanted"), URLS.items(), ids=URLS)
def test_a_url_is_a_host_and_a_port(url: str, wanted: tuple[str, int]) -> None:
    found = parse_endpoint_url(url)
    assert (found.host.text, found.port) == wanted


@pytest.mark.parametrize(
    "url",
    ["", "https://", "https://a:0", "https://a:b", "https://u@a", "https://a?b", "https://0177.1"],
)
def test_what_is_no_such_url_is_refused(url: str) -> None:
    with pytest.raises(AddressError):
        parse_endpoint_url(url)


IN_IRELAND = "credentials: {region: eu-west-1}\n"
RULE = "allowlist: [{address: kms.eu-west-1.amazonaws.com, port: 443}]\n"
WARNED = {
    "the region's endpoint is not allowed": (
        IN_IRELAND + "kms: {}\n",
        [
            "f:2: credentials.region: kms.eu-west-1.amazonaws.com port 443 is not in the "
            "allowlist: add {address: kms.eu-west-1.amazonaws.com, port: 443} to allowlist"
        ],
    ),
    "that of FIPS is another": (
        IN_IRELAND + RULE + "kms: {fips: true}\n",
        [
            "f:2: credentials.region: kms-fips.eu-west-1.amazonaws.com port 443 is not in the "
            "allowlist: add {address: kms-fips.eu-west-1.amazonaws.com, port: 443} to allowlist"
        ],
    ),
    "that of another partition has another domain": (
        "credentials: {region: cn-north-1}\nkms: {}\n",
        [
            "f:2: credentials.region: kms.cn-north-1.amazonaws.com.cn port 443 is not in the "
            "allowlist: add {address: kms.cn-north-1.amazonaws.com.cn, port: 443} to allowlist"
        ],
    ),
    "an endpoint of the file is not allowed": (
        IN_IRELAND + RULE + "kms: {endpoints: {eu-west-2: 'https://kms.example:8443'}}\n",
        [
            "f:4: kms.endpoints.eu-west-2: kms.example port 8443 is not in the allowlist: "
            "add {address: kms.example, port: 8443} to allowlist"
        ],
    ),
    "an endpoint on loopback is not allowed": (
        "kms: {endpoints: {eu-west-2: 'https://127.0.0.1:9000'}}\n",
        [
            "f:2: kms.endpoints.eu-west-2: 127.0.0.1 port 9000 is not in the allowlist: "
            "add {address: 127.0.0.1, port: 9000, private: true} to allowlist"
        ],
    ),
    "one of IPv6 is not allowed": (
        "kms: {endpoints: {eu-west-2: 'https://[2600::1]'}}\n",
        [
            "f:2: kms.endpoints.eu-west-2: 2600::1 port 443 is not in the allowlist: "
            'add {address: "2600::1", port: 443} to allowlist'
        ],
    ),
    "it is denied": (
        IN_IRELAND + RULE + "denylist: [{address: '**.amazonaws.com'}]\nkms: {}\n",
        [
            "f:2: credentials.region: kms.eu-west-1.amazonaws.com port 443 is denied: "
            "remove it from denylist"
        ],
    ),
    "it is allowed": (IN_IRELAND + RULE + "kms: {}\n", []),
    "a pattern allows it": (
        IN_IRELAND + "allowlist: [{address: '**.amazonaws.com', port: 443}]\nkms: {}\n",
        [],
    ),
    "the file's endpoint stands for the region's": (
        IN_IRELAND
        + "allowlist: [{address: kms.example, port: 443}]\n"
        + "kms: {endpoints: {eu-west-1: 'https://kms.example'}}\n",
        [],
    ),
    "the file does not say which region": ("kms: {}\n", []),
    "nothing is refused": (IN_IRELAND + "kms: {}\nmode: report\n", []),
    "there is no kms": (IN_IRELAND, []),
}


@pytest.mark.parametrize(("text", "lines"), WARNED.values(), ids=WARNED)
def test_an_endpoint_that_would_be_refused_is_warned_of(text: str, lines: list[str]) -> None:
    document = parse((ENCLAVE + text).encode(), "f")
    assert [str(each) for each in advise_kms(document, endpoint_host, needs_private)] == lines


def test_a_parent_that_gives_no_credentials_is_warned_of() -> None:
    parent = parse(b"listen: vsock://any:5000\n", "p")
    warnings = compare_sides([parent], [parse((ENCLAVE + "kms: {}\n").encode(), "f")])
    assert [str(each) for each in warnings] == [
        "f:2: kms: credentials are given to no enclave by p: "
        "add credentials there, or remove it here"
    ]


WITH_KMS = ENCLAVE + "kms: {}\n"
GIVEN = {
    "to the CID of the only entry": ("[{cid: 16}]", "[16]", []),
    "to the CID of one of the entries": ("[{cid: 16}, {cid: 18}]", "[18]", []),
    "to another one than that of the only entry": (
        "[{cid: 16, name: web}]",
        "[17]",
        [
            "f:2: kms: CID 16 (web) gets no credentials from p: "
            "add 16 to credentials.enclaves there, if this is its file"
        ],
    ),
    "to those without an entry": ("[]", "[17]", []),
    "to what is told by measurements": (f"[{{pcrs: {{0: {'ab' * 48}}}}}]", "[17]", []),
}


@pytest.mark.parametrize(("entries", "given", "lines"), GIVEN.values(), ids=GIVEN)
def test_a_parent_that_gives_credentials_to_another_cid_is_warned_of(
    entries: str, given: str, lines: list[str]
) -> None:
    text = f"listen: vsock://any:5000\nenclaves: {entries}\ncredentials: {{enclaves: {given}}}\n"
    warnings = compare_sides([parse(text.encode(), "p")], [parse(WITH_KMS.encode(), "f")])
    assert [str(each) for each in warnings] == lines


def test_the_list_that_fits_an_enclave_says_its_cid() -> None:
    rule = "allowlist: [{address: kms.eu-west-1.amazonaws.com, port: 443}]"
    text = (
        f"listen: vsock://any:5000\nenclaves: [{{cid: 16, {rule}}}, {{cid: 17}}]\n"
        "credentials: {enclaves: [17]}\n"
    )
    warnings = compare_sides(
        [parse(text.encode(), "p")], [parse(f"{WITH_KMS}{rule}".encode(), "f")]
    )
    assert [str(each) for each in warnings] == [
        "f:2: kms: CID 16 gets no credentials from p: "
        "add 16 to credentials.enclaves there, if this is its file"
    ]
