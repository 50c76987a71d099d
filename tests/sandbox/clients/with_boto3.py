"""Has KMS decrypt something, at the endpoint whose URL is its argument, with boto3."""

import sys

import boto3  # type: ignore[import-untyped]  # it has no types

kms = boto3.client("kms", endpoint_url=sys.argv[1])
answer = kms.decrypt(CiphertextBlob=b"terces")
print(answer["Plaintext"].decode(), answer["KeyId"])
