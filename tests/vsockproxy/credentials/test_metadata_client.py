import pytest

from vsockproxy.credentials.errors import CredentialsError
from vsockproxy.credentials.metadata_client import (
    REGION_PATH,
    ROLES_PATH,
    TOKEN_QUESTION,
    TOKEN_SECONDS,
    Tokens,
    read_body,
    read_token,
)


def test_a_token_is_fetched_once_and_used_until_shortly_before_its_end() -> None:
    tokens = Tokens()
    assert tokens.ask(REGION_PATH, 0.0) is None
    tokens.keep("abc", 0.0)
    for now in (0.0, TOKEN_SECONDS - 61.0):
        question = tokens.ask(REGION_PATH, now)
        assert question is not None
        assert question.headers == (("X-aws-ec2-metadata-token", "abc"),)
    assert tokens.ask(REGION_PATH, TOKEN_SECONDS - 60.0) is None


def test_one_that_is_not_taken_is_dropped() -> None:
    tokens = Tokens()
    tokens.keep("abc", 0.0)
    tokens.drop()
    assert tokens.ask(REGION_PATH, 1.0) is None


def test_the_question_for_a_token_is_that_of_version_2() -> None:
    assert (TOKEN_QUESTION.method, TOKEN_QUESTION.path) == ("PUT", "/latest/api/token")
    assert TOKEN_QUESTION.headers == (("X-aws-ec2-metadata-token-ttl-seconds", "21600"),)


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        pytest.param(400, b"", "wrong", id="a request it does not understand"),
        pytest.param(403, b"", "--http-endpoint enabled", id="switched off"),
        pytest.param(404, b"", "no IMDSv2", id="something else at its address"),
        pytest.param(405, b"", "no IMDSv2", id="something that takes no PUT"),
        pytest.param(500, b"", "500", id="in trouble"),
        pytest.param(200, b"", "is none", id="an empty token"),
        pytest.param(200, b"a\r\nX: y", "is none", id="a token with a line break"),
        pytest.param(200, b"x" * 2000, "is none", id="a token beyond reason"),
    ],
)
def test_without_a_token_there_is_an_explanation_and_no_version_1(
    status: int, body: bytes, text: str
) -> None:
    with pytest.raises(CredentialsError, match=text):
        read_token(status, body)


def test_answers() -> None:
    assert read_token(200, b"abc==") == "abc=="
    assert read_body(REGION_PATH, 200, b"eu-west-1") == b"eu-west-1"
    assert read_body(REGION_PATH, 401, b"") is None


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        pytest.param(ROLES_PATH, 404, "attach an instance profile", id="no role"),
        pytest.param(REGION_PATH, 404, "404", id="nothing there"),
        pytest.param(REGION_PATH, 403, "--http-endpoint enabled", id="switched off meanwhile"),
        pytest.param(ROLES_PATH, 500, "500", id="in trouble"),
    ],
)
def test_refusals_are_explained(path: str, status: int, text: str) -> None:
    with pytest.raises(CredentialsError, match=text):
        read_body(path, status, b"")
