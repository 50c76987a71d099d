"""The public API for programs: streams to hosts of the allowlist, without a proxy (docs/client.md).

Programs import `for_asyncio` or `for_trio`, and `errors` for what a stream can be refused with.
"""
