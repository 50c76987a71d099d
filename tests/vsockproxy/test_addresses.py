import ipaddress
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.addresses import (
    ANY_CID,
    AddressError,
    Destination,
    Endpoint,
    Host,
    TcpAddress,
    UnixAddress,
    VsockAddress,
    format_ip,
    normalise_host,
    parse_destination,
    parse_endpoint,
    parse_tcp_address,
)

ENDPOINTS = {
    "a vsock address": ("vsock://3:5000", VsockAddress(3, 5000)),
    "any CID": ("vsock://any:5000", VsockAddress(ANY_CID, 5000)),
    "a vsock port beyond TCP's": ("vsock://16:4294967294", VsockAddress(16, 0xFFFF_FFFE)),
    "a unix socket": ("unix:///run/a.sock", UnixAddress("/run/a.sock")),
    "a unix socket with the CID of its peers": (
        "unix:///run/a.sock?cid=16",
        UnixAddress("/run/a.sock", cid=16),
    ),
    "a unix socket with a mode": (
        "unix:///run/a.sock?mode=0660",
        UnixAddress("/run/a.sock", mode=0o660),
    ),
    "a unix socket with both": (
        "unix:///run/a.sock?cid=0&mode=0600",
        UnixAddress("/run/a.sock", cid=0, mode=0o600),
    ),
    "a TCP address": ("tcp://127.0.0.1:8080", TcpAddress("127.0.0.1", 8080)),
    "a TCP address that leaves the port to the kernel": (
        "tcp://0.0.0.0:0",
        TcpAddress("0.0.0.0", 0),
    ),
    "a TCP address of IPv6": ("tcp://[::1]:8080", TcpAddress("::1", 8080)),
    "localhost": ("tcp://localhost:80", TcpAddress("localhost", 80)),
}


@pytest.mark.parametrize(("text", "endpoint"), ENDPOINTS.values(), ids=ENDPOINTS)
def test_an_endpoint_is_parsed_and_written_alike(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text) == endpoint
    assert str(endpoint) == text


BAD_ENDPOINTS = {
    "nothing": ("", "the address is empty: write one"),
    "no scheme": (
        "127.0.0.1:80",
        "'127.0.0.1:80' is no endpoint: write vsock://CID:PORT, unix:///PATH or tcp://ADDRESS:PORT",
    ),
    "another scheme": (
        "http://127.0.0.1:80",
        "'http://127.0.0.1:80' is no endpoint: "
        "write vsock://CID:PORT, unix:///PATH or tcp://ADDRESS:PORT",
    ),
    "a vsock address without a port": (
        "vsock://3",
        "'vsock://3' has no port: write vsock://CID:PORT",
    ),
    "a vsock port that is no number": (
        "vsock://3:x",
        "'x' is no vsock port: write a decimal number within 1-4294967294",
    ),
    "vsock port 0": (
        "vsock://3:0",
        "'0' is no vsock port: write a decimal number within 1-4294967294",
    ),
    "VMADDR_PORT_ANY": (
        "vsock://3:4294967295",
        "'4294967295' is no vsock port: write a decimal number within 1-4294967294",
    ),
    "a CID with a leading zero": (
        "vsock://03:1",
        "'03' is no CID: write a decimal number within 0-4294967294",
    ),
    "a CID in Arabic digits": (
        "vsock://\u0663:1",
        "'\u0663' is no CID: write a decimal number within 0-4294967294",
    ),
    "VMADDR_CID_ANY as a number": (
        "vsock://4294967295:1",
        "4294967295 is the number of any CID: write any",
    ),
    "a relative path": (
        "unix://run/a.sock",
        "'run/a.sock' is no absolute path: write unix:///run/a.sock",
    ),
    "a directory": ("unix:///run/", "'/run/' is a directory: write the path of a socket"),
    "a path that sockaddr_un cannot hold": (
        "unix:///" + "a" * 107,
        "a socket path of 108 bytes is too long: at most 107 fit",
    ),
    "an unknown option": (
        "unix:///a?user=x",
        "'user' is no option of a unix endpoint: use cid=N or mode=0660",
    ),
    "an option given twice": ("unix:///a?cid=4&cid=5", "'cid' is given twice: write it once"),
    "a CID option that is no number": (
        "unix:///a?cid=x",
        "'x' is no CID: write a decimal number within 0-4294967294",
    ),
    "a mode that is not octal": (
        "unix:///a?mode=0680",
        "'0680' is no file mode: write three octal digits, as 0660",
    ),
    "a mode with more than permissions": (
        "unix:///a?mode=4755",
        "'4755' is no file mode: write three octal digits, as 0660",
    ),
    "a NUL in a path": (
        "unix:///a\0b",
        "'unix:///a\\x00b' has a space or a control character: write it without",
    ),
    "more text than any endpoint has": (
        "unix:///" + "a" * 1000,
        "an address of 1008 characters is too long: at most 512",
    ),
    "a name in a TCP address": (
        "tcp://example.com:80",
        "'example.com' is no IP address: write an IPv4 or IPv6 address, or localhost",
    ),
    "a TCP port out of range": (
        "tcp://127.0.0.1:65536",
        "'65536' is no port: write a decimal number within 1-65535",
    ),
    "IPv6 without brackets": (
        "tcp://::1:80",
        "'::1:80' has an IPv6 address without brackets: write [::1]:80",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD_ENDPOINTS.values(), ids=BAD_ENDPOINTS)
def test_what_is_no_endpoint_is_refused_with_the_mend(text: str, message: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_endpoint(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["127.0.0.1:3128", "tcp://127.0.0.1:3128"])
def test_a_tcp_address_needs_no_scheme_where_nothing_else_can_stand(text: str) -> None:
    assert parse_tcp_address(text) == TcpAddress("127.0.0.1", 3128)


def test_a_tcp_address_refuses_another_scheme() -> None:
    with pytest.raises(AddressError, match=r"^'unix:///a' is no TCP address: write tcp://"):
        parse_tcp_address("unix:///a")


HOSTS = {
    "a name": ("kms.eu-west-1.amazonaws.com", "kms.eu-west-1.amazonaws.com"),
    "upper case": ("KMS.Example", "kms.example"),
    "one trailing dot": ("kms.example.", "kms.example"),
    "a single label": ("localhost", "localhost"),
    "an underscore": ("_dmarc.a_b.example", "_dmarc.a_b.example"),
    "hyphens in the third and fourth place": ("r3---sn-x.example", "r3---sn-x.example"),
    "digits in all labels but the last": ("1.2.3.example", "1.2.3.example"),
    "digits and letters in the last label": ("a.1x", "a.1x"),
    "an A-label": ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
    "a U-label": ("Bücher.example", "xn--bcher-kva.example"),
    "an eszett, which stays one": ("straße.example", "xn--strae-oqa.example"),
    "fullwidth letters": ("\uff4b\uff4d\uff53.example", "kms.example"),
    "the Kelvin sign, which is a k": ("\u212ams.example", "kms.example"),
    "63 bytes in a label": ("a" * 63 + ".example", "a" * 63 + ".example"),
    "253 bytes": (".".join(["a" * 49] * 5) + ".bcd", ".".join(["a" * 49] * 5) + ".bcd"),
    "253 bytes and a trailing dot": (
        ".".join(["a" * 49] * 5) + ".bcd.",
        ".".join(["a" * 49] * 5) + ".bcd",
    ),
    "an IPv4 address": ("10.0.3.7", "10.0.3.7"),
    "an IPv6 address in many words": ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
    "a mapped IPv6 address": ("::FFFF:a00:307", "::ffff:10.0.3.7"),
}


@pytest.mark.parametrize(("text", "normal"), HOSTS.values(), ids=HOSTS)
def test_a_host_has_one_normal_form(text: str, normal: str) -> None:
    host = normalise_host(text)
    assert host.text == normal
    assert normalise_host(normal) == host
    assert (host.address is not None) == (":" in text or normal == "10.0.3.7")


_IPV4_MEND = "write four decimal numbers within 0-255, without leading zeros"
_LABEL_MEND = "use letters, digits, '_', and '-' inside a label"
_DOT_MEND = "write single dots between labels"

BAD_HOSTS = {
    "nothing": ("", "the address is empty: write one"),
    "an octal number": ("0177.0.0.1", f"'0177.0.0.1' is no canonical IPv4 address: {_IPV4_MEND}"),
    "a hexadecimal number": (
        "0x7f.0.0.1",
        f"'0x7f.0.0.1' is no canonical IPv4 address: {_IPV4_MEND}",
    ),
    "a hexadecimal last number": (
        "127.0.0.0X1",
        f"'127.0.0.0X1' is no canonical IPv4 address: {_IPV4_MEND}",
    ),
    "a lone 0x, which some resolvers read as 0": (
        "127.0.0.0x",
        f"'127.0.0.0x' is no canonical IPv4 address: {_IPV4_MEND}",
    ),
    "one decimal integer": (
        "2130706433",
        f"'2130706433' is no canonical IPv4 address: {_IPV4_MEND}",
    ),
    "one hexadecimal integer": (
        "0x7f000001",
        f"'0x7f000001' is no canonical IPv4 address: {_IPV4_MEND}",
    ),
    "a short form of two": ("127.1", f"'127.1' is no canonical IPv4 address: {_IPV4_MEND}"),
    "a short form of three": ("127.0.1", f"'127.0.1' is no canonical IPv4 address: {_IPV4_MEND}"),
    "a number above 255": (
        "1.2.3.256",
        f"'1.2.3.256' is no canonical IPv4 address: {_IPV4_MEND}",
    ),
    "five numbers": ("1.2.3.4.5", f"'1.2.3.4.5' is no canonical IPv4 address: {_IPV4_MEND}"),
    "an address with a trailing dot": (
        "1.2.3.4.",
        f"'1.2.3.4.' is no canonical IPv4 address: {_IPV4_MEND}",
    ),
    "a name that ends in a number": (
        "example.1",
        f"'example.1' is no canonical IPv4 address: {_IPV4_MEND}",
    ),
    "fullwidth digits": (
        "\uff11\uff12\uff17.0.0.1",
        "'\uff11\uff12\uff17' stands for '127': write that in ASCII",
    ),
    "Arabic digits": (
        "a.\u0661",
        "'\u0661' is no label of an internationalised name: write its A-label (xn--…)",
    ),
    "a zone id": ("fe80::1%eth0", "'fe80::1%eth0' has a zone id: write the address without it"),
    "brackets around an address": ("[::1]", "'[::1]' has brackets: write '::1'"),
    "brackets around a name": (
        "[example.com]",
        "'[example.com]' has brackets: write 'example.com'",
    ),
    "a broken IPv6 address": (
        "1::2::3",
        "'1::2::3' is neither a name nor an IPv6 address: "
        "write a name, an IPv4 or an IPv6 address, without a port",
    ),
    "a port": (
        "example.com:443",
        "'example.com:443' is neither a name nor an IPv6 address: "
        "write a name, an IPv4 or an IPv6 address, without a port",
    ),
    "a lone dot": (".", f"'.' has an empty label: {_DOT_MEND}"),
    "two dots": ("..", f"'..' has an empty label: {_DOT_MEND}"),
    "a leading dot": (".example", f"'.example' has an empty label: {_DOT_MEND}"),
    "a doubled dot": ("a..example", f"'a..example' has an empty label: {_DOT_MEND}"),
    "two trailing dots": ("example..", f"'example..' has an empty label: {_DOT_MEND}"),
    "an ideographic full stop": (
        "a\u3002example",
        "'a\u3002example' has a look-alike of a dot: write '.'",
    ),
    "a fullwidth full stop": (
        "a\uff0eexample",
        "'a\uff0eexample' has a look-alike of a dot: write '.'",
    ),
    "a halfwidth full stop": (
        "a\uff61example",
        "'a\uff61example' has a look-alike of a dot: write '.'",
    ),
    "a one dot leader": (
        "a\u2024example",
        "'a\u2024example' is no label of an internationalised name: write its A-label (xn--…)",
    ),
    "a digit with a full stop in one character": (
        "\u2488example",
        "'\u2488example' is no label of an internationalised name: write its A-label (xn--…)",
    ),
    "a soft hyphen, which IDNA drops": (
        "k\u00adms.example",
        "'k\\xadms.example' has a space or a control character: write it without",
    ),
    "a zero-width space": (
        "k\u200bms.example",
        "'k\\u200bms.example' has a space or a control character: write it without",
    ),
    "an emoji": (
        "\U0001f44d.example",
        "'\U0001f44d' is no label of an internationalised name: write its A-label (xn--…)",
    ),
    "a fullwidth solidus": (
        "a\uff0fb.example",
        "'a\uff0fb' is no label of an internationalised name: write its A-label (xn--…)",
    ),
    "a space": (
        "a b.example",
        "'a b.example' has a space or a control character: write it without",
    ),
    "a line feed": (
        "a.example\n",
        "'a.example\\n' has a space or a control character: write it without",
    ),
    "a NUL": (
        "a.example\0",
        "'a.example\\x00' has a space or a control character: write it without",
    ),
    "a leading hyphen": ("-a.example", f"'-a' is no label of a host name: {_LABEL_MEND}"),
    "a trailing hyphen": ("a-.example", f"'a-' is no label of a host name: {_LABEL_MEND}"),
    "user information": ("a@b.example", f"'a@b' is no label of a host name: {_LABEL_MEND}"),
    "a path": ("a.example/b", f"'example/b' is no label of a host name: {_LABEL_MEND}"),
    "a wildcard": ("*.example", f"'*' is no label of a host name: {_LABEL_MEND}"),
    "a percent escape": ("a%2eexample", f"'a%2eexample' is no label of a host name: {_LABEL_MEND}"),
    "64 bytes in a label": (
        "a" * 64 + ".example",
        f"a label of 64 bytes in '{'a' * 64}.example' is too long: at most 63 are allowed",
    ),
    "254 bytes": (
        ".".join(["a" * 49] * 5) + ".bcde",
        "a name of 254 bytes is too long: at most 253 are allowed",
    ),
    "254 bytes only as A-labels": (
        ".".join(["ü" * 30] * 8),
        "a name of 295 bytes is too long: at most 253 are allowed",
    ),
    "megabytes": ("a" * 1_000_000, "an address of 1000000 characters is too long: at most 254"),
}


@pytest.mark.parametrize(("text", "message"), BAD_HOSTS.values(), ids=BAD_HOSTS)
def test_what_is_ambiguous_or_malformed_is_no_host(text: str, message: str) -> None:
    with pytest.raises(AddressError) as caught:
        normalise_host(text)
    assert str(caught.value) == message


@given(st.text(max_size=40) | st.text(alphabet="0123456789abcxef.-:_*[]%", max_size=20))
def test_any_text_is_a_host_in_a_stable_form_or_is_refused(text: str) -> None:
    try:
        host = normalise_host(text)
    except AddressError:
        return
    assert normalise_host(host.text) == host
    assert host.text.isascii()
    assert host.text == host.text.lower()
    assert len(host.text) <= 253
    if host.address is not None:
        assert ipaddress.ip_address(host.text) == host.address


@given(st.ip_addresses())
def test_every_address_is_a_host_under_its_canonical_text(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    assert normalise_host(format_ip(address)) == Host(format_ip(address), address)
    assert normalise_host(address.exploded).address == address


@given(st.lists(st.sampled_from(("0", "1", "0x", "010", "255", "256", "a", "")), min_size=1))
def test_no_spelling_of_an_ipv4_address_passes_as_a_name(labels: list[str]) -> None:
    text = ".".join(labels)
    try:
        host = normalise_host(text)
    except AddressError:
        return
    if host.address is not None:
        assert str(host.address) == text
    else:
        assert labels[-1] == "a" or (labels[-1] == "" and labels[-2] == "a")


DESTINATIONS = {
    "a name": ("Example.com:443", "example.com:443"),
    "a name with a trailing dot": ("example.com.:443", "example.com:443"),
    "an IPv4 address": ("10.0.0.1:5432", "10.0.0.1:5432"),
    "an IPv6 address": ("[2001:DB8::1]:443", "[2001:db8::1]:443"),
    "a U-label": ("bücher.example:1", "xn--bcher-kva.example:1"),
}


@pytest.mark.parametrize(("text", "written"), DESTINATIONS.values(), ids=DESTINATIONS)
def test_a_destination_is_normalised(text: str, written: str) -> None:
    destination = parse_destination(text)
    assert str(destination) == written
    assert parse_destination(written) == destination


BAD_DESTINATIONS = {
    "no port": ("example.com", "'example.com' has no port: write example.com:PORT"),
    "an empty port": ("example.com:", "'' is no port: write a decimal number within 1-65535"),
    "port 0": ("a.b:0", "port 0 cannot be connected to: write a port within 1-65535"),
    "a port out of range": (
        "a.b:65536",
        "'65536' is no port: write a decimal number within 1-65535",
    ),
    "a signed port": ("a.b:+443", "'+443' is no port: write a decimal number within 1-65535"),
    "a port with a leading zero": (
        "a.b:0443",
        "'0443' is no port: write a decimal number within 1-65535",
    ),
    "a port with an underscore": (
        "a.b:4_3",
        "'4_3' is no port: write a decimal number within 1-65535",
    ),
    "a port of many digits": (
        "a.b:" + "4" * 500,
        f"'{'4' * 500}' is no port: write a decimal number within 1-65535",
    ),
    "no host": (":443", "':443' has no host: write HOST:PORT"),
    "IPv6 without brackets": (
        "2001:db8::1:443",
        "'2001:db8::1:443' has an IPv6 address without brackets: write [2001:db8::1]:443",
    ),
    "IPv6 without brackets and port": (
        "::1",
        "'::1' has no port: write [::1]:PORT",
    ),
    "brackets without a port": ("[::1]", "'[::1]' has no port: write [::1]:PORT"),
    "brackets around a name": (
        "[a.b]:443",
        "'[a.b]:443' has brackets around a name: write a.b:443",
    ),
    "a URL": (
        "https://a.b/",
        "'https://a.b/' is no HOST:PORT: write it without scheme and path",
    ),
    "a bad host": ("127.1:80", f"'127.1' is no canonical IPv4 address: {_IPV4_MEND}"),
    "too long": ("a" * 600, "an address of 600 characters is too long: at most 506"),
}


@pytest.mark.parametrize(("text", "message"), BAD_DESTINATIONS.values(), ids=BAD_DESTINATIONS)
def test_what_is_no_destination_is_refused_with_the_mend(text: str, message: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_destination(text)
    assert str(caught.value) == message


@given(
    st.builds(
        Destination,
        st.builds(lambda address: Host(format_ip(address), address), st.ip_addresses())
        | st.text(string.ascii_lowercase, min_size=1, max_size=63).map(lambda t: Host(t, None)),
        st.integers(1, 65_535),
    )
)
def test_every_destination_is_what_its_text_says(destination: Destination) -> None:
    assert parse_destination(str(destination)) == destination
