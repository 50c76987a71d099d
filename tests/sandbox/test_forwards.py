"""Programs that read no proxy variables, at fixed local ports; the server may speak first."""

import sys

import pytest

from tests.sandbox.sandboxes import Done, Sandbox, SandboxWith, need
from tests.sandbox.ways import Way
from tests.support.certificates import Authority
from tests.support.postgres_like import PASSWORD, USER

PSQL_NO_CONNECTION = 2

MAIL = """
import smtplib
with smtplib.SMTP("127.0.0.1", {port}, timeout=20) as mail:
    mail.sendmail("from@enclave.test", ["to@mail.test"], "Subject: test\\n\\nhello\\n")
"""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(Way.HTTP_PROXY, id="without names"),
        pytest.param(Way.NAMES, id="beside names"),
    ],
)
def sandbox(sandbox_with: SandboxWith, request: pytest.FixtureRequest) -> Sandbox:
    return sandbox_with(request.param)


def psql(sandbox: Sandbox, authority: Authority, port: int, query: str) -> Done:
    need("psql")
    where = f"host=db.test hostaddr=127.0.0.1 port={port} dbname=test"
    tls = f"sslmode=verify-full sslrootcert={authority.file}"
    return sandbox.run(
        *("psql", "--no-psqlrc", "-At", "-c", query, f"{where} {tls}"),
        PGUSER=USER,
        PGPASSWORD=PASSWORD,
    )


def test_psql_asks_a_database(sandbox: Sandbox, authority: Authority) -> None:
    done = psql(sandbox, authority, 15432, "SELECT 'over TLS, which came later'")
    assert (done.status, done.stdout) == (0, "over TLS, which came later\n"), done.stderr


def test_psql_gets_a_large_answer(sandbox: Sandbox, authority: Authority) -> None:
    text = "0123456789abcdef" * 6_000
    done = psql(sandbox, authority, 15432, f"SELECT '{text}'")
    assert (done.status, done.stdout) == (0, f"{text}\n"), done.stderr


def test_psql_is_reset_where_the_rule_wants_tls_from_the_first_byte(
    sandbox: Sandbox, authority: Authority
) -> None:
    done = psql(sandbox, authority, 15433, "SELECT 'never'")
    assert (done.status, done.stdout) == (PSQL_NO_CONNECTION, "")
    assert "server closed the connection unexpectedly" in done.stderr  # libpq's word for a reset
    line = sandbox.refusal("db-by-mistake.test")
    assert (line["reason"], line["way"]) == ("not_tls", "forward")
    assert "add require_tls: false at enclave.yaml:" in line["text"]


def test_a_server_that_speaks_first(sandbox: Sandbox, mails: tuple[int, list[bytes]]) -> None:
    mails[1].clear()
    done = sandbox.run(sys.executable, "-c", MAIL.format(port=12525))
    assert (done.status, done.stderr) == (0, "")
    (mail,) = mails[1]
    assert mail.replace(b"\r\n", b"\n") == b"Subject: test\n\nhello\n"


def test_a_forward_that_is_refused_resets_the_program(sandbox: Sandbox) -> None:
    done = sandbox.run(sys.executable, "-c", MAIL.format(port=12526))
    assert done.status == 1
    assert "Connection reset by peer" in done.stderr
    line = sandbox.refusal("enclave-only-mail.test")
    assert (line["reason"], line["side"]) == ("not_listed", "parent")
