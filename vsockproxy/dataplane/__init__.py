"""I/O on uvloop: sockets, links, relays, dialling. The only home of asyncio."""
