import pytest

from vsockproxy.addresses import AddressError, TcpAddress
from vsockproxy.config.metadata_address import parse_metadata_url


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        pytest.param("http://169.254.169.254", "169.254.169.254", 80, id="EC2's"),
        pytest.param("http://169.254.169.254/", "169.254.169.254", 80, id="as SDKs write it"),
        pytest.param("http://127.0.0.1:1338", "127.0.0.1", 1338, id="a stand-in"),
        pytest.param("http://[fd00:ec2::254]", "fd00:ec2::254", 80, id="EC2's over IPv6"),
        pytest.param("http://[FE80::1]:8080", "fe80::1", 8080, id="link-local IPv6"),
        pytest.param("http://[::1]:1", "::1", 1, id="loopback IPv6"),
    ],
)
def test_where_it_may_be(text: str, host: str, port: int) -> None:
    assert parse_metadata_url(text) == TcpAddress(host, port)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        pytest.param("https://169.254.169.254", "speaks no TLS", id="TLS"),
        pytest.param("169.254.169.254", "no http:// URL", id="no URL"),
        pytest.param("unix:///run/s", "no http:// URL", id="another scheme"),
        pytest.param("http://localhost:80", "no http:// URL", id="a name"),
        pytest.param("http://169.254.169.254/latest", "no http:// URL", id="a path"),
        pytest.param("http://127.0.0.1?x", "no http:// URL", id="a query"),
        pytest.param("http://u:p@127.0.0.1", "no http:// URL", id="a user"),
        pytest.param("http://127.0.0.1\n", "no http:// URL", id="a line break"),
        pytest.param("http://127.0.0.1:", "no http:// URL", id="a colon alone"),
        pytest.param("http://127.0.0.1:0", "0 is no port", id="port 0"),
        pytest.param("http://127.0.0.1:65536", "65536 is no port", id="no 16 bits"),
        pytest.param("http://127.0.0.256", "no IP address", id="no octet"),
        pytest.param("http://10.0.0.1", "of this machine's metadata", id="a private address"),
        pytest.param("http://8.8.8.8:80", "of this machine's metadata", id="an address outside"),
        pytest.param("http://[2001:db8::1]", "of this machine's metadata", id="IPv6 outside"),
    ],
)
def test_anything_else_is_refused_with_what_to_write(text: str, what: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_metadata_url(text)
    assert what in caught.value.what
    assert caught.value.mend
