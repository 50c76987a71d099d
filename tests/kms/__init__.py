"""The KMS of the tests, looked at by those it was made for: unmodified SDKs of AWS."""
