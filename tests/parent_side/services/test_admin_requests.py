import pytest

from parent_side.services.admin_requests import (
    DEFAULT_STREAMS,
    PATHS,
    AdminRequest,
    read_admin_request,
)
from vsockproxy.protocols.errors import HttpRequestError
from vsockproxy.protocols.http_service import ServiceRequest


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_every_path_is_answered(path: str, method: str) -> None:
    assert read_admin_request(ServiceRequest(method, path), is_tcp=False).path == path


@pytest.mark.parametrize(
    ("target", "limit"),
    [("/streams", DEFAULT_STREAMS), ("/streams?limit=1", 1), ("/streams?limit=10000", 10_000)],
)
def test_a_limit_is_read(target: str, limit: int) -> None:
    request = read_admin_request(ServiceRequest("GET", target), is_tcp=False)
    assert request == AdminRequest("/streams", "", limit)


REFUSED = {
    "an unknown path": (ServiceRequest("GET", "/admin"), 404),
    "a path with a dot": (ServiceRequest("GET", "/./status"), 404),
    "an escaped path": (ServiceRequest("GET", "/%73tatus"), 404),
    "a method that changes": (ServiceRequest("POST", "/status"), 405),
    "a method in lower case": (ServiceRequest("get", "/status"), 405),
    "a limit of nothing": (ServiceRequest("GET", "/streams?limit=0"), 400),
    "a limit above the bound": (ServiceRequest("GET", "/streams?limit=10001"), 400),
    "a limit that is no number": (ServiceRequest("GET", "/streams?limit=1e3"), 400),
    "digits of another script": (ServiceRequest("GET", "/streams?limit=%D9%A1"), 400),
    "an empty limit": (ServiceRequest("GET", "/streams?limit="), 400),
    "another parameter": (ServiceRequest("GET", "/streams?page=2"), 400),
    "no parameter": (ServiceRequest("GET", "/streams?&"), 400),
    "too many parameters": (ServiceRequest("GET", "/streams?" + "limit=1&" * 20), 400),
}


@pytest.mark.parametrize(("request_", "status"), REFUSED.values(), ids=REFUSED)
def test_anything_else_is_refused(request_: ServiceRequest, status: int) -> None:
    with pytest.raises(HttpRequestError) as caught:
        read_admin_request(request_, is_tcp=False)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9110", "LOCALHOST", "127.0.0.1:9110", "127.8.9.1", "[::1]:9"]
)
def test_over_tcp_this_machine_may_be_named(host: str) -> None:
    request = ServiceRequest("GET", "/status", {"host": host})
    assert read_admin_request(request, is_tcp=True).path == "/status"


@pytest.mark.parametrize(
    "host",
    [
        *("", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1"),
        *("localhost@evil.example", "[::2]", "0.0.0.0", "localhost:", "localhost:80 x", "127.1"),
    ],
)
def test_over_tcp_another_host_is_refused(host: str) -> None:
    request = ServiceRequest("GET", "/status", {"host": host})
    with pytest.raises(HttpRequestError) as caught:
        read_admin_request(request, is_tcp=True)
    assert caught.value.status == 403
    assert read_admin_request(request, is_tcp=False).path == "/status"
