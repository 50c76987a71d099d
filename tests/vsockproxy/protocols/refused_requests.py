"""Requests that the proxy refuses: the bytes, the status of the answer, a part of its text."""

HOST = b"Host: example.com\r\n"
CONNECT = b"CONNECT example.com:443 HTTP/1.1\r\n"
GET = b"GET http://example.com/ HTTP/1.1\r\n"
END = b"\r\n"

REFUSED: dict[str, tuple[bytes, int, str]] = {
    # The target of CONNECT
    "CONNECT without a port": (b"CONNECT example.com HTTP/1.1\r\n" + HOST + END, 400, "no port"),
    "CONNECT with an empty port": (b"CONNECT example.com: HTTP/1.1\r\n" + HOST + END, 400, "port"),
    "CONNECT to port 0": (b"CONNECT example.com:0 HTTP/1.1\r\n" + HOST + END, 400, "port 0"),
    "CONNECT to port 65536": (b"CONNECT example.com:65536 HTTP/1.1\r\n" + HOST + END, 400, "port"),
    "CONNECT to a port with a sign": (
        b"CONNECT example.com:+443 HTTP/1.1\r\n" + HOST + END,
        400,
        "port",
    ),
    "CONNECT to a URL": (
        b"CONNECT http://example.com:443 HTTP/1.1\r\n" + HOST + END,
        400,
        "HOST:PORT",
    ),
    "CONNECT to a path": (b"CONNECT / HTTP/1.1\r\n" + HOST + END, 400, "HOST:PORT"),
    "CONNECT with a path": (
        b"CONNECT example.com:443/ HTTP/1.1\r\n" + HOST + END,
        400,
        "HOST:PORT",
    ),
    "CONNECT with a user name": (
        b"CONNECT user@example.com:443 HTTP/1.1\r\n" + HOST + END,
        400,
        "user name",
    ),
    "CONNECT without a host": (b"CONNECT :443 HTTP/1.1\r\n" + HOST + END, 400, "no host"),
    "CONNECT to an IPv6 literal without brackets, as httpx sends it": (
        b"CONNECT 2001:db8::1:8443 HTTP/1.1\r\nHost: 2001:db8::1:8443\r\n\r\n",
        400,
        "without brackets",
    ),
    "CONNECT to a name in brackets": (
        b"CONNECT [example.com]:443 HTTP/1.1\r\n" + HOST + END,
        400,
        "brackets",
    ),
    "CONNECT to an address in octal": (
        b"CONNECT 0177.0.0.1:443 HTTP/1.0\r\n\r\n",
        400,
        "canonical",
    ),
    "CONNECT to an address as an integer": (
        b"CONNECT 2130706433:443 HTTP/1.0\r\n\r\n",
        400,
        "canonical",
    ),
    "CONNECT to a doubled dot": (b"CONNECT example..com:443 HTTP/1.0\r\n\r\n", 400, "empty label"),
    "connect in small letters is another method": (
        b"connect example.com:443 HTTP/1.1\r\n" + HOST + END,
        400,
        "this is a proxy",
    ),
    # A body on CONNECT
    "CONNECT with a length": (CONNECT + HOST + b"Content-Length: 5\r\n\r\nhello", 400, "no body"),
    "CONNECT with chunks": (
        CONNECT + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "no body",
    ),
    # Host
    "CONNECT with another host in Host": (
        CONNECT + b"Host: evil.test:443\r\n\r\n",
        400,
        "names evil.test:443",
    ),
    "CONNECT with another port in Host": (
        CONNECT + b"Host: example.com:80\r\n\r\n",
        400,
        "names example.com:80",
    ),
    "GET with another host in Host": (GET + b"Host: evil.test\r\n\r\n", 400, "names evil.test:80"),
    "GET with another port in Host": (
        GET + b"Host: example.com:8080\r\n\r\n",
        400,
        "names example.com:8080",
    ),
    "a Host without the port of the URL": (
        b"GET http://example.com:8080/ HTTP/1.1\r\n" + HOST + END,
        400,
        "names example.com:80",
    ),
    "HTTP/1.1 without Host": (CONNECT + END, 400, "Host"),
    "an empty Host": (CONNECT + b"Host:\r\n\r\n", 400, "Host header is malformed"),
    "a Host with a user name": (
        CONNECT + b"Host: user:secret@example.com:443\r\n\r\n",
        400,
        "user name",
    ),
    "a Host with a path": (
        CONNECT + b"Host: example.com:443/\r\n\r\n",
        400,
        "Host header is malformed",
    ),
    "a Host that is a list": (
        CONNECT + b"Host: example.com, example.com\r\n\r\n",
        400,
        "Host header",
    ),
    "a Host in Latin-1": (CONNECT + b"Host: ex\xe4mple.com\r\n\r\n", 400, "names xn--"),
    "two equal Hosts": (CONNECT + HOST + HOST + END, 400, "multiple Host"),
    "two Hosts in HTTP/1.0": (
        b"CONNECT example.com:443 HTTP/1.0\r\n" + HOST + HOST + END,
        400,
        "multiple Host",
    ),
    # The form of the target
    "origin-form": (b"GET / HTTP/1.1\r\n" + HOST + END, 400, "this is a proxy"),
    "asterisk-form": (b"OPTIONS * HTTP/1.1\r\n" + HOST + END, 400, "this is a proxy"),
    "authority-form without CONNECT": (
        b"GET example.com:80 HTTP/1.1\r\n" + HOST + END,
        400,
        "this is a proxy",
    ),
    "https in absolute-form": (
        b"GET https://example.com/ HTTP/1.1\r\n" + HOST + END,
        400,
        "CONNECT",
    ),
    "ftp in absolute-form": (b"GET ftp://example.com/ HTTP/1.1\r\n" + HOST + END, 400, "CONNECT"),
    "a fragment": (b"GET http://example.com/#a HTTP/1.1\r\n" + HOST + END, 400, "this is a proxy"),
    "a URL with a user name": (
        b"GET http://user:secret@example.com/ HTTP/1.1\r\n" + HOST + END,
        400,
        "user name",
    ),
    "a URL with an empty user name": (
        b"GET http://@example.com/ HTTP/1.1\r\n" + HOST + END,
        400,
        "user name",
    ),
    "a URL with a backslash before another host": (
        b"GET http://example.com\\@evil.test/ HTTP/1.1\r\n" + HOST + END,
        400,
        "user name",
    ),
    "a URL without a host": (b"GET http:///a HTTP/1.1\r\n" + HOST + END, 400, "host"),
    "a URL with an empty port": (
        b"GET http://example.com:/ HTTP/1.1\r\n" + HOST + END,
        400,
        "port",
    ),
    "a URL with a zone id": (
        b"GET http://[fe80::1%25eth0]/ HTTP/1.1\r\n" + HOST + END,
        400,
        "zone",
    ),
    "a URL with an encoded host": (
        b"GET http://ex%61mple.com/ HTTP/1.1\r\n" + HOST + END,
        400,
        "host",
    ),
    # Lines
    "a folded header": (CONNECT + HOST + b"X: a\r\n b\r\n\r\n", 400, "folded"),
    "a folded header by a tab": (CONNECT + HOST + b"X: a\r\n\tb\r\n\r\n", 400, "folded"),
    "a folded request line": (CONNECT + b" " + HOST + END, 400, "folded"),
    "lines that end in LF": (
        CONNECT.replace(b"\r\n", b"\n") + b"Host: example.com\n\n",
        400,
        "CRLF",
    ),
    "one line that ends in LF": (CONNECT + b"X: y\n" + HOST + END, 400, "CRLF"),
    "a head that ends in LF": (CONNECT + HOST + b"\n", 400, "CRLF"),
    "CR in a header": (CONNECT + HOST + b"X: a\rb\r\n\r\n", 400, "CRLF"),
    "CR before CRLF": (CONNECT + HOST + b"X: a\r\r\n\r\n", 400, "CRLF"),
    "NUL in a header": (CONNECT + HOST + b"X: a\x00b\r\n\r\n", 400, "control character"),
    "NUL in the target": (
        b"CONNECT example.com\x00.evil.test:443 HTTP/1.1\r\n" + HOST + END,
        400,
        "control",
    ),
    "a vertical tab in a header": (CONNECT + HOST + b"X: a\x0bb\r\n\r\n", 400, "control character"),
    "a space before the colon": (
        CONNECT + b"Host : example.com\r\n\r\n",
        400,
        "illegal header line",
    ),
    "a header without a colon": (CONNECT + HOST + b"X\r\n\r\n", 400, "illegal header line"),
    "a header without a name": (CONNECT + HOST + b": x\r\n\r\n", 400, "illegal header line"),
    "two spaces in the request line": (
        b"CONNECT  example.com:443 HTTP/1.1\r\n" + HOST + END,
        400,
        "request line",
    ),
    "a tab in the request line": (
        b"CONNECT\texample.com:443 HTTP/1.1\r\n" + HOST + END,
        400,
        "request line",
    ),
    "a target beyond ASCII": (
        b"GET http://ex\xc3\xa4mple.com/ HTTP/1.1\r\n" + HOST + END,
        400,
        "request line",
    ),
    "an empty line first": (b"\r\n" + CONNECT + HOST + END, 400, "something else"),
    # Versions and other protocols
    "HTTP/0.9": (b"GET http://example.com/\r\n\r\n", 400, "request line"),
    "HTTP/2 with prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/1.1"),
    "HTTP/1.2": (b"CONNECT example.com:443 HTTP/1.2\r\n" + HOST + END, 505, "HTTP/1.1"),
    "TLS to the proxy": (b"\x16\x03\x01\x02\x00\x01", 400, "TLS arrived"),
    "SOCKS to the proxy": (b"\x05\x01\x00", 400, "something else"),
    # Framing of a body
    "a length and chunks": (
        GET + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
        "both",
    ),
    "chunks in HTTP/1.0": (
        b"POST http://example.com/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
        "HTTP/1.0",
    ),
    "two different lengths": (
        GET + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        400,
        "conflicting",
    ),
    "two different lengths in one header": (
        GET + HOST + b"Content-Length: 5, 6\r\n\r\n",
        400,
        "conflicting",
    ),
    "a negative length": (GET + HOST + b"Content-Length: -1\r\n\r\n", 400, "Content-Length"),
    "a length with a sign": (GET + HOST + b"Content-Length: +5\r\n\r\n", 400, "Content-Length"),
    "a length of 21 digits": (
        GET + HOST + b"Content-Length: 100000000000000000000\r\n\r\n",
        400,
        "Content-Length",
    ),
    "chunks that are compressed": (
        GET + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        501,
        "chunked",
    ),
    "chunks twice": (
        GET + HOST + b"Transfer-Encoding: chunked\r\n" * 2 + END,
        501,
        "Transfer-Encoding",
    ),
    # Size
    "a head of more than 16 KiB": (
        CONNECT + HOST + b"X: " + b"y" * 16384 + END + END,
        431,
        "16384 bytes",
    ),
    "a request line without an end": (b"A" * 20_000, 431, "16384 bytes"),
    "101 headers": (CONNECT + HOST + b"X: y\r\n" * 100 + END, 431, "100 headers"),
}
