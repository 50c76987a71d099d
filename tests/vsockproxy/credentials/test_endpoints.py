import json
from typing import Any

import pytest

from vsockproxy.credentials.documents import Credentials
from vsockproxy.credentials.endpoints import (
    Holding,
    MetadataEndpoint,
    answer_container,
    answer_enclave,
)
from vsockproxy.protocols.http_service import ServiceAnswer, ServiceRequest

NOW = 1_767_225_600.0
HELD = Credentials("the-role", "ASIAEXAMPLE", "secret", "token", NOW + 100)
FULL = Holding(HELD, "eu-west-1", NOW - 10, "")
EMPTY = Holding(None, None, 0.0, "the parent is away")
SECRET = "s" * 43
TOKEN = "/latest/api/token"
ROLES = "/latest/meta-data/iam/security-credentials/"
TTL = {"x-aws-ec2-metadata-token-ttl-seconds": "60"}


def content(answer: ServiceAnswer) -> Any:
    return json.loads(answer.body)


@pytest.mark.parametrize("path", ["/credentials", "/healthz"])
@pytest.mark.parametrize(
    ("holding", "now", "status"),
    [
        pytest.param(FULL, NOW, 200, id="good ones"),
        pytest.param(FULL, NOW + 100, 503, id="ones that have just expired"),
        pytest.param(EMPTY, NOW, 503, id="none"),
    ],
)
def test_the_parent_gives_only_good_ones(
    path: str, holding: Holding, now: float, status: int
) -> None:
    assert answer_enclave(ServiceRequest("GET", path), holding, now).status == status


def test_the_parent_names_the_region_even_without_a_role() -> None:
    holding = Holding(None, "eu-west-1", 0.0, "no role")
    answer = answer_enclave(ServiceRequest("GET", "/region"), holding, NOW)
    assert content(answer) == {"Region": "eu-west-1"}
    answer = answer_enclave(ServiceRequest("GET", "/region"), EMPTY, NOW)
    assert answer.status == 503


def container(holding: Holding = FULL, method: str = "GET", **headers: str) -> ServiceAnswer:
    return answer_container(ServiceRequest(method, "/credentials", headers), SECRET, holding, NOW)


def test_a_program_that_shows_the_token_gets_them() -> None:
    answer = container(authorization=SECRET)
    assert answer.status == 200
    assert content(answer)["AccessKeyId"] == "ASIAEXAMPLE"
    assert "Role" not in content(answer)


@pytest.mark.parametrize(
    "given", ["", "x", SECRET[:-1], SECRET + "s", f"Bearer {SECRET}", "\xff" * 43]
)
def test_any_other_gets_nothing(given: str) -> None:
    answer = container(authorization=given)
    assert answer.status == 401
    assert b"ASIA" not in answer.body


def test_while_there_are_none_it_learns_why() -> None:
    answer = container(EMPTY, authorization=SECRET)
    assert answer.status == 503
    assert content(answer) == {"code": "Unavailable", "message": "vsockproxy: the parent is away"}
    assert container(method="POST", authorization=SECRET).status == 405


class Metadata:
    """A metadata service, and the token that it gave at `NOW`."""

    def __init__(self, key: bytes = b"k" * 32) -> None:
        self.endpoint = MetadataEndpoint(key)
        answer = self.endpoint.answer(ServiceRequest("PUT", TOKEN, TTL), FULL, NOW)
        assert answer.status == 200
        self.token = answer.body.decode()

    def get(
        self, path: str, holding: Holding = FULL, now: float = NOW, **headers: str
    ) -> ServiceAnswer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        given = {"x-aws-ec2-metadata-token": self.token, **named}
        return self.endpoint.answer(ServiceRequest("GET", path, given), holding, now)


def test_with_a_token_it_has_the_role_its_credentials_and_the_region() -> None:
    metadata = Metadata()
    assert metadata.get(ROLES).body == b"the-role"
    assert metadata.get(ROLES[:-1]).body == b"the-role"
    assert content(metadata.get(f"{ROLES}the-role"))["Code"] == "Success"
    assert metadata.get("/latest/meta-data/placement/region").body == b"eu-west-1"


@pytest.mark.parametrize(
    ("path", "holding", "status"),
    [
        pytest.param(f"{ROLES}other", FULL, 404, id="another role"),
        pytest.param(ROLES, EMPTY, 503, id="no credentials"),
        pytest.param("/latest/meta-data/placement/region", EMPTY, 404, id="no region"),
        pytest.param("/latest/user-data", FULL, 404, id="what is not offered"),
        pytest.param("/latest/dynamic/instance-identity/document", FULL, 404, id="identity"),
        pytest.param("/", FULL, 404, id="nothing"),
    ],
)
def test_what_it_has_not(path: str, holding: Holding, status: int) -> None:
    assert Metadata().get(path, holding).status == status


def test_a_token_ends_with_its_time() -> None:
    metadata = Metadata()
    assert metadata.get(ROLES, now=NOW + 59).status == 200
    assert metadata.get(ROLES, now=NOW + 60).status == 401


@pytest.mark.parametrize(
    "token",
    ["", "x", "9999999999.", f"9999999999.{'A' * 43}", "\xff", f"{'9' * 400}.{'A' * 43}"],
)
def test_a_token_that_it_did_not_give_is_worth_nothing(token: str) -> None:
    metadata = Metadata()
    metadata.token = token
    assert metadata.get(ROLES).status == 401


def test_a_token_whose_time_was_changed_is_worth_nothing() -> None:
    metadata = Metadata()
    metadata.token = f"{int(NOW) + 61}.{metadata.token.partition('.')[2]}"
    assert metadata.get(ROLES).status == 401


def test_with_another_key_no_former_token_is_taken() -> None:
    former = Metadata()
    latter = Metadata(b"l" * 32)
    latter.token = former.token
    assert latter.get(ROLES).status == 401


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        pytest.param("PUT", {}, 400, id="no lifetime"),
        pytest.param("PUT", {"x-aws-ec2-metadata-token-ttl-seconds": "0"}, 400, id="no time"),
        pytest.param("PUT", {"x-aws-ec2-metadata-token-ttl-seconds": "21601"}, 400, id="too long"),
        pytest.param("PUT", {"x-aws-ec2-metadata-token-ttl-seconds": "x"}, 400, id="no number"),
        pytest.param("PUT", {**TTL, "x-forwarded-for": "10.0.0.1"}, 403, id="through a proxy"),
        pytest.param("GET", TTL, 405, id="another method"),
    ],
)
def test_requests_for_a_token_that_are_refused(
    method: str, headers: dict[str, str], status: int
) -> None:
    answer = MetadataEndpoint(b"k" * 32).answer(ServiceRequest(method, TOKEN, headers), FULL, NOW)
    assert answer.status == status


def test_a_get_through_a_proxy_is_refused_too() -> None:
    assert Metadata().get(ROLES, x_forwarded_for="10.0.0.1").status == 403
