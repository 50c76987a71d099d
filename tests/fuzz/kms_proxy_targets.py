"""Targets: what programs send to the KMS proxy, and what may come in answer."""

import base64
import json

from tests.fuzz.target import MEMORY_OF_A_HEAD, Cut, Target, same_however_cut
from vsockproxy.attestation.kms_answers import check_account, open_answer
from vsockproxy.attestation.kms_calls import (
    AttestedCall,
    KmsCall,
    read_attested_call,
    read_call,
    with_recipient,
)
from vsockproxy.attestation.kms_errors import AnswerRefused, CallUnusable
from vsockproxy.attestation.kms_json import JsonRefused, read_object
from vsockproxy.errors import VsockproxyError
from vsockproxy.protocols.errors import HttpRequestError, HttpResponseError
from vsockproxy.protocols.http_conversation import BodyRequest, Conversation
from vsockproxy.protocols.http_service import AnswerReader, ServiceAnswer

_MOST_BODY = 4096

_AUTHORIZATION = (
    b"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/kms/aws4_request, "
    b"SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=" + b"0" * 64
)
_BODY = b'{"CiphertextBlob":"AQICAHg=","EncryptionContext":{"a":"b"},"KeyId":"alias/a"}'
_HEAD = (
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1:4500\r\nX-Amz-Target: TrentService.Decrypt\r\n"
    b"Content-Type: application/x-amz-json-1.1\r\nAuthorization: " + _AUTHORIZATION + b"\r\n"
)
_HTTP = (
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\x00",
    b" " * 5000,
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"\r\nHost: a",
    b"\r\nContent-Length: 5",
    b"\r\nContent-Length: 99999",
    b"\r\nTransfer-Encoding: chunked",
    b"\r\nConnection: close",
    b"\r\nExpect: 100-continue",
    b"\r\nX: y" * 70,
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
)
_JSON = (
    b'{"',
    b'":',
    b'"}',
    b"{}",
    b"[[[[[[[[",
    b"]" * 8,
    b'"KeyId":',
    b'"Recipient":{}',
    b'"Recipient":null',
    b'"NumberOfBytes":32',
    b'"KeySpec":"AES_256"',
    b'"Plaintext":"AA=="',
    b'"CiphertextForRecipient":"AA=="',
    b"NaN",
    b"-1e999",
    b"1" * 5000,
    b"\\u0065",
    b"\\ud800",
    b"\xef\xbb\xbf",
    b"\xff",
)


def _served(data: bytes) -> list[str]:
    def read(cut: Cut) -> list[str]:
        conversation = Conversation(_MOST_BODY)
        found: list[str] = []
        try:
            for piece in cut(data):
                request: BodyRequest | None = conversation.receive(piece)
                while request is not None:
                    assert len(request.body) <= _MOST_BODY
                    found.append(f"{request.method} {len(request.body)}")
                    assert conversation.answer(ServiceAnswer(200)).startswith(b"HTTP/1.1 200 ")
                    if conversation.is_over:
                        return found
                    request = None if conversation.is_idle else conversation.receive(b"")
        except HttpRequestError as error:
            assert conversation.is_over
            # h11 and the limits may meet a fault in either order, by how the bytes arrive.
            found.append("refused" if error.status in (400, 413, 431) else str(error.status))
        return found

    return same_however_cut(read)


KMS_CONVERSATION = Target(
    "kms_conversation",
    lambda data: "; ".join(_served(data)[:3]) or "more",
    corpus=(
        _HEAD + b"Content-Length: %d\r\n\r\n" % len(_BODY) + _BODY,
        (_HEAD + b"Content-Length: 2\r\n\r\n{}") * 3,
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: y\r\n\r\n",
        _HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
        _HEAD + b"Connection: close\r\n\r\n",
        _HEAD + b"Content-Length: 5000\r\n\r\n",
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\n1001\r\n" + b"a" * 4097,
        b"HEAD / HTTP/1.0\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    dictionary=_HTTP,
    most_memory_factor=MEMORY_OF_A_HEAD,
)


def _answered(data: bytes) -> str:
    def read(cut: Cut) -> str:
        reader = AnswerReader("POST", _MOST_BODY, takes_interim=True)
        try:
            for piece in filter(None, cut(data)):  # nothing would be the end
                answer = reader.receive(piece)
                if answer is not None:
                    assert len(answer.body) <= _MOST_BODY
                    names = {name for name, _ in answer.headers}
                    kinds = [name for name in ("transfer-encoding", "connection") if name in names]
                    sort = "answer" if answer.status < 400 else "error"
                    return " ".join((sort, "with body" if answer.body else "empty", *kinds))
        except HttpResponseError as error:
            return "no HTTP" if "no HTTP" in error.text else "refused"
        return "more"

    return same_however_cut(read)


_ANSWER_HEAD = b"HTTP/1.1 200 OK\r\nx-amzn-RequestId: 1\r\nContent-Type: application/json\r\n"

KMS_ANSWER_HEAD = Target(
    "kms_answer_head",
    _answered,
    corpus=(
        _ANSWER_HEAD + b"Content-Length: 2\r\n\r\n{}",
        _ANSWER_HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        _ANSWER_HEAD + b"Content-Length: 2\r\n\r\n{}{}",
        b"HTTP/1.1 100 Continue\r\n\r\n" + _ANSWER_HEAD + b"Content-Length: 2\r\n\r\n{}",
        _ANSWER_HEAD + b"\r\n{}",
        _ANSWER_HEAD + b"\r\n" + b"a" * (_MOST_BODY + 1),
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 500 Error\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
    ),
    dictionary=(*_HTTP, b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 103 Early\r\n\r\n"),
    most_memory_factor=MEMORY_OF_A_HEAD,
)


def _called(data: bytes) -> str:
    lines, _, body = data.partition(b"\n\n")
    headers: dict[str, str] = {}
    for line in lines.decode("latin-1").split("\n"):
        name, _, value = line.partition(": ")
        headers[name.lower()] = value
    try:
        call = read_call(headers.get("method", "POST"), headers.get("target", "/"), headers)
    except CallUnusable as error:
        return error.reason
    if not call.takes_recipient:
        return "passed"
    try:
        attested = read_attested_call(call, body)
    except CallUnusable as error:
        return error.reason
    if attested is None:
        return "left alone"
    fields = read_object(with_recipient(body, b"document"))
    assert fields.pop("Recipient")["AttestationDocument"] == "ZG9jdW1lbnQ="
    assert fields == read_object(body)
    return "attested"


_CALL = b"X-Amz-Target: TrentService.%s\nAuthorization: " + _AUTHORIZATION + b"\n\n"

KMS_CALL = Target(
    "kms_call",
    _called,
    corpus=(
        _CALL % b"Decrypt" + _BODY,
        _CALL % b"GenerateDataKey" + b'{"KeyId":"a","KeySpec":"AES_256"}',
        _CALL % b"GenerateRandom" + b' {"NumberOfBytes" : 32 } ',
        _CALL % b"GenerateRandom" + b"{}",
        _CALL % b"DeriveSharedSecret" + b'{"Recipient":{"AttestationDocument":"AA=="}}',
        _CALL % b"decrypt" + b'{"Recipient":null}',
        _CALL % b"Decrypt" + b'{"a":1,"a":2}',
        _CALL % b"ListKeys" + b"{}",
        b"Method: GET\n" + _CALL % b"ListKeys",
        (_CALL % b"Decrypt").replace(b"/kms/", b"/sts/"),
    ),
    dictionary=(*_JSON, b"TrentService.", b"\n\n", b"Target: /?a\n", b"Method: PUT\n"),
)

_ACCOUNT = "111122223333"
_ARN = f"arn:aws:kms:us-east-1:{_ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
_OF_ANOTHER = _ARN.replace(_ACCOUNT, "444455556666")


def _reverse(blob: bytes) -> bytes:
    """Stands for the envelope, which has a target of its own."""
    if blob[:1] == b"!":
        raise VsockproxyError("it does not decrypt")
    return blob[::-1]


def _opened(data: bytes) -> str:
    first, _, body = data.partition(b"\n")
    operation, _, key_id = first.decode("latin-1").partition(" ")
    accounts = () if data.endswith(b"\n") else (_ACCOUNT,)
    if not KmsCall(operation, "us-east-1").takes_recipient:
        try:
            check_account(operation, body, accounts)
        except AnswerRefused as error:
            return f"passed on, {error.reason}"
        return "passed on"
    call = AttestedCall(operation, "us-east-1", key_id or None, 3 if key_id == "3" else None)
    try:
        found = read_object(open_answer(call, body, _reverse, accounts))
    except AnswerRefused as error:
        return error.reason
    except JsonRefused:
        raise AssertionError("what we write is not read by ourselves") from None
    assert "CiphertextForRecipient" not in found
    return "opened"


def _answer(**fields: object) -> bytes:
    blob = base64.b64encode(b"abc").decode()
    return json.dumps({"CiphertextForRecipient": blob, "KeyId": _ARN, **fields}).encode()


_ID = _ARN.rpartition("/")[2]

KMS_ANSWER = Target(
    "kms_answer",
    _opened,
    corpus=(
        b"Decrypt \n" + _answer(Plaintext=None, EncryptionAlgorithm="SYMMETRIC_DEFAULT"),
        b"Decrypt " + _ARN.encode() + b"\n" + _answer(),
        b"GenerateDataKey " + _ID.encode() + b"\n" + _answer(CiphertextBlob="AA=="),
        b"GenerateDataKeyPair alias/a\n" + _answer(PublicKey="AA=="),
        b"Decrypt arn:aws:kms:us-east-1:111122223333:alias/a\n" + _answer(),
        b"GenerateRandom 3\n" + _answer(),
        b"DeriveSharedSecret \n" + _answer(SharedSecret="AA=="),
        b"Decrypt \n" + _answer(CiphertextForRecipient="IUE="),
        b"Decrypt \n" + _answer(CiphertextForRecipient=None),
        b"Decrypt \n" + _answer(CiphertextForRecipient="*"),
        b"Decrypt x\n" + _answer(),
        b"Decrypt \n" + _answer(CiphertextForRecipient=""),
        b"GenerateDataKey 3\n[]",
        b"Decrypt \n" + _answer(KeyId=_OF_ANOTHER),
        b"Decrypt \n" + _answer(KeyId=_OF_ANOTHER) + b"\n",
        b"Decrypt \n" + _answer(CiphertextForRecipient=7),
        b"GenerateRandom 3\n" + _answer(CiphertextForRecipient="YWI="),
        b"Encrypt \n" + _answer(),
        b"Encrypt \n" + _answer(KeyId=_OF_ANOTHER),
        b"ReEncrypt \n" + _answer(SourceKeyId=_ARN),
        b"ReEncrypt \n" + _answer(SourceKeyId=_OF_ANOTHER),
        b"Sign \n[]",
        b"ListKeys \n{}",
    ),
    dictionary=(*_JSON, b"alias/", b":key/", b":alias/", b"arn:aws:kms:"),
)
