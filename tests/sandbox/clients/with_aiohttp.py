"""Fetches the URL that is its argument, with aiohttp, which is told to read the variables."""

import asyncio
import sys

import aiohttp


async def main() -> None:
    async with aiohttp.ClientSession(trust_env=True) as session, session.get(sys.argv[1]) as answer:
        print(await answer.text(), end="")


asyncio.run(main())
