"""Fetches the URL that is its argument, with aiohttp, by a SOCKS proxy that is given the name."""

import asyncio
import os
import sys

import aiohttp
from aiohttp_socks import ProxyConnector


async def main() -> None:
    connector = ProxyConnector.from_url(os.environ["SOCKS_URL"], rdns=True)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(sys.argv[1]) as answer,
    ):
        print(await answer.text(), end="")


asyncio.run(main())
