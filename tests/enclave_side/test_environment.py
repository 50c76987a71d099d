import pytest

from enclave_side.shim.environment import (
    command_environment,
    kms_endpoint,
    overriding,
    past_proxies,
    with_credentials,
)
from vsockproxy.addresses import TcpAddress
from vsockproxy.config.model import Shim

PROXY = TcpAddress("127.0.0.1", 3128)
PROXY_VARIABLES = {
    **dict.fromkeys(
        ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:3128"
    ),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1,::1"),
}
INHERITED = {"PATH": "/bin", "http_proxy": "http://10.0.0.1:80", "ALL_PROXY": "socks5://x"}


def environment(
    shim: Shim,
    inherited: dict[str, str],
    *,
    http_proxy: TcpAddress | None = PROXY,
    names: bool = False,
    streams: str | None = None,
) -> dict[str, str]:
    return command_environment(
        inherited, shim, http_proxy=http_proxy, names_are_active=names, streams=streams
    )


@pytest.mark.parametrize(
    ("is_wanted", "proxy", "names", "expected"),
    [
        pytest.param(None, PROXY, False, PROXY_VARIABLES, id="by default with the HTTP proxy"),
        pytest.param(None, PROXY, True, {}, id="by default not when names is active"),
        pytest.param(None, None, False, {}, id="not when the HTTP proxy does not listen"),
        pytest.param(True, PROXY, True, PROXY_VARIABLES, id="on demand even when names is active"),
        pytest.param(True, None, False, {}, id="on demand, but there is no proxy"),
        pytest.param(False, PROXY, False, {}, id="never when switched off"),
    ],
)
def test_proxy_variables(
    is_wanted: bool | None, proxy: TcpAddress | None, names: bool, expected: dict[str, str]
) -> None:
    shim = Shim(environment=is_wanted)
    assert environment(shim, {}, http_proxy=proxy, names=names) == expected


def test_what_was_inherited_about_another_network_is_replaced() -> None:
    assert environment(Shim(), INHERITED) == {"PATH": "/bin", **PROXY_VARIABLES}


def test_all_proxy_is_removed_even_where_no_variable_is_set() -> None:
    inherited = {"ALL_PROXY": "socks5://x", "all_proxy": "socks5://y"}
    assert environment(Shim(), inherited, names=True) == {}


def test_switched_off_everything_is_left_alone() -> None:
    assert environment(Shim(environment=False), INHERITED) == INHERITED


@pytest.mark.parametrize(
    "inherited",
    [{}, {"VSOCKPROXY_STREAMS": "/an/outer/one", "VSOCKPROXY_NSM": "/an/outer/one"}],
)
def test_the_stream_socket_is_named_exactly_when_it_listens(inherited: dict[str, str]) -> None:
    shim = Shim(environment=False)
    named = {"VSOCKPROXY_STREAMS": "/run/streams.sock"}
    assert environment(shim, inherited, streams="/run/streams.sock") == named
    assert environment(shim, inherited) == {}


@pytest.mark.parametrize(
    ("address", "url"),
    [
        pytest.param(TcpAddress("::1", 99), "http://[::1]:99", id="brackets around IPv6"),
        pytest.param(TcpAddress("0.0.0.0", 99), "http://127.0.0.1:99", id="every IPv4 address"),
        pytest.param(TcpAddress("::", 99), "http://[::1]:99", id="every IPv6 address"),
        pytest.param(TcpAddress("127.0.0.9", 99), "http://127.0.0.9:99", id="another address"),
    ],
)
def test_url_of_the_proxy(address: TcpAddress, url: str) -> None:
    assert environment(Shim(), {}, http_proxy=address)["HTTPS_PROXY"] == url


def test_where_names_are_active_no_proxy_of_another_network_is_left() -> None:
    inherited = {**INHERITED, "NO_PROXY": "a.example", "HTTPS_PROXY": "http://10.0.0.1:80"}
    assert environment(Shim(), inherited, names=True) == {"PATH": "/bin"}
    assert environment(Shim(environment=False), inherited, names=True) == inherited


URI = "http://127.0.0.1:3129/credentials"
CREDENTIALS = {
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": URI,
    "AWS_CONTAINER_AUTHORIZATION_TOKEN": "secret",
}


def test_sdks_are_led_to_our_endpoint_and_to_no_other() -> None:
    inherited = {
        "PATH": "/bin",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/x",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://10.0.0.1/",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "another",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/run/token",
    }
    listen = TcpAddress("127.0.0.1", 3129)
    assert with_credentials(inherited, listen, "secret", None) == {"PATH": "/bin", **CREDENTIALS}


def test_the_files_region_replaces_what_was_inherited() -> None:
    listen = TcpAddress("::1", 3129)
    found = with_credentials({"AWS_REGION": "us-east-1"}, listen, "secret", "eu-west-1")
    assert found["AWS_CONTAINER_CREDENTIALS_FULL_URI"] == "http://[::1]:3129/credentials"
    assert (found["AWS_REGION"], found["AWS_DEFAULT_REGION"]) == ("eu-west-1", "eu-west-1")


@pytest.mark.parametrize(
    ("inherited", "expected"),
    [
        pytest.param({"AWS_REGION": "a"}, ("a", "a"), id="one, which goes for both"),
        pytest.param({"AWS_DEFAULT_REGION": "a"}, ("a", "a"), id="the other"),
        pytest.param({"AWS_REGION": "a", "AWS_DEFAULT_REGION": "b"}, ("a", "b"), id="both"),
        pytest.param({}, (None, None), id="none"),
    ],
)
def test_what_an_image_says_of_the_region(
    inherited: dict[str, str], expected: tuple[str | None, str | None]
) -> None:
    found = with_credentials(inherited, TcpAddress("127.0.0.1", 3129), "secret", None)
    assert (found.get("AWS_REGION"), found.get("AWS_DEFAULT_REGION")) == expected


def test_keys_of_the_image_are_left_alone() -> None:
    inherited = {"AWS_ACCESS_KEY_ID": "AKIA"}
    listen = TcpAddress("127.0.0.1", 3129)
    assert with_credentials(inherited, listen, "secret", None) == {**inherited, **CREDENTIALS}


def test_what_listens_in_the_commands_network_is_reached_past_proxies() -> None:
    hosts = ("127.0.0.1", "169.254.169.254", "127.0.0.5")
    found = past_proxies({"PATH": "/bin", **PROXY_VARIABLES}, hosts)
    expected = "localhost,127.0.0.1,::1,169.254.169.254,127.0.0.5"
    assert found == {
        "PATH": "/bin",
        **PROXY_VARIABLES,
        **dict.fromkeys(("NO_PROXY", "no_proxy"), expected),
    }
    assert past_proxies({"PATH": "/bin"}, hosts) == {"PATH": "/bin"}


def test_sdks_are_led_to_our_endpoint_for_kms() -> None:
    found = kms_endpoint(TcpAddress("127.0.0.1", 4500))
    assert found == {"AWS_ENDPOINT_URL_KMS": "http://127.0.0.1:4500"}
    found = kms_endpoint(TcpAddress("::1", 4500))
    assert found == {"AWS_ENDPOINT_URL_KMS": "http://[::1]:4500"}


OVERRIDING = {
    "keys": (
        {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "x"},
        ["AWS_ACCESS_KEY_ID is set: SDKs take it before the credentials of the instance's role"],
    ),
    "endpoints are ignored": (
        {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "True"},
        [
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS is true: "
            "SDKs reach KMS past kms, without attestation"
        ],
    ),
    "endpoints are not ignored": ({"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false"}, []),
    "roots": (
        {"AWS_CA_BUNDLE": "/etc/own-roots.pem"},
        ["AWS_CA_BUNDLE is set: SDKs trust the roots there in place of the image's"],
    ),
    "an empty one": ({"AWS_PROFILE": ""}, []),
    "none": ({"AWS_REGION": "eu-west-1"}, []),
}


@pytest.mark.parametrize(("variables", "lines"), OVERRIDING.values(), ids=OVERRIDING)
def test_what_sdks_follow_in_place_of_ours_is_named_without_its_value(
    variables: dict[str, str], lines: list[str]
) -> None:
    assert overriding(variables, has_kms=True) == lines


def test_without_kms_its_endpoint_is_nobody_s_matter() -> None:
    assert overriding({"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}, has_kms=False) == []
