"""Request heads of real clients, recorded on a loopback listener that their proxy variables named.

Go's are written after net/http (Request.write, Transport.dialConn), CPython 3.12's after
http.client.HTTPConnection.set_tunnel; the others were recorded with the version in the name.
"""

from typing import NamedTuple


class Recorded(NamedTuple):
    head: bytes
    destination: str


CONNECTS = {
    "curl 7.88 asks for a tunnel": Recorded(
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\nUser-Agent: curl/7.88.1\r\n"
        b"Proxy-Connection: Keep-Alive\r\n\r\n",
        "example.com:443",
    ),
    "curl 7.88 asks for a tunnel to an IPv6 literal": Recorded(
        b"CONNECT [2001:db8::1]:8443 HTTP/1.1\r\nHost: [2001:db8::1]:8443\r\n"
        b"User-Agent: curl/7.88.1\r\nProxy-Connection: Keep-Alive\r\n\r\n",
        "[2001:db8::1]:8443",
    ),
    "curl 7.88 keeps capitals and a trailing dot": Recorded(
        b"CONNECT EXAMPLE.com.:443 HTTP/1.1\r\nHost: EXAMPLE.com.:443\r\n"
        b"User-Agent: curl/7.88.1\r\nProxy-Connection: Keep-Alive\r\n\r\n",
        "example.com:443",
    ),
    "curl 7.88 with --proxy1.0": Recorded(
        b"CONNECT example.com:443 HTTP/1.0\r\nHost: example.com:443\r\nUser-Agent: curl/7.88.1\r\n"
        b"Proxy-Connection: Keep-Alive\r\n\r\n",
        "example.com:443",
    ),
    "wget 1.21 asks for a tunnel": Recorded(
        b"CONNECT example.com:443 HTTP/1.1\r\nUser-Agent: Wget/1.21.3\r\n"
        b"Host: example.com:443\r\n\r\n",
        "example.com:443",
    ),
    "git 2.39 asks for a tunnel": Recorded(
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\nUser-Agent: git/2.39.5\r\n"
        b"Proxy-Connection: Keep-Alive\r\n\r\n",
        "example.com:443",
    ),
    "requests 2.34 on Python 3.11 sends HTTP/1.0 and no header": Recorded(
        b"CONNECT example.com:443 HTTP/1.0\r\n\r\n", "example.com:443"
    ),
    "urllib of Python 3.11 sends HTTP/1.0 and no header": Recorded(
        b"CONNECT example.com:443 HTTP/1.0\r\n\r\n", "example.com:443"
    ),
    "urllib of Python 3.12 sends HTTP/1.1 and a Host": Recorded(
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", "example.com:443"
    ),
    "requests 2.34 asks for a tunnel to an IPv6 literal": Recorded(
        b"CONNECT [2001:db8::1]:8443 HTTP/1.0\r\n\r\n", "[2001:db8::1]:8443"
    ),
    "boto3 1.44 asks for a tunnel": Recorded(
        b"CONNECT kms.eu-west-1.amazonaws.com:443 HTTP/1.0\r\n\r\n",
        "kms.eu-west-1.amazonaws.com:443",
    ),
    "httpx 0.28 asks for a tunnel": Recorded(
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\nAccept: */*\r\n\r\n",
        "example.com:443",
    ),
    "aiohttp 3.14 leaves the port out of Host": Recorded(
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\n"
        b"Accept-Encoding: gzip, deflate\r\nUser-Agent: Python/3.11 aiohttp/3.14.5\r\n\r\n",
        "example.com:443",
    ),
    "Go's net/http asks for a tunnel": Recorded(
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n"
        b"User-Agent: Go-http-client/1.1\r\n\r\n",
        "example.com:443",
    ),
    "Node 20's http.request names the proxy in Host": Recorded(
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: 127.0.0.1:3128\r\n"
        b"Connection: keep-alive\r\n\r\n",
        "example.com:443",
    ),
    "Java 17's HttpURLConnection leaves the port out of Host": Recorded(
        b"CONNECT example.com:8443 HTTP/1.1\r\nUser-Agent: Java/17.0.15\r\nHost: example.com\r\n"
        b"Accept: text/html, image/gif, image/jpeg, */*; q=0.2\r\n"
        b"Proxy-Connection: keep-alive\r\n\r\n",
        "example.com:8443",
    ),
    "Java 17's HttpClient asks for a tunnel": Recorded(
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", "example.com:443"
    ),
    "openssl 3.0 s_client -proxy sends no Host": Recorded(
        b"CONNECT example.com:443 HTTP/1.0\r\nProxy-Connection: Keep-Alive\r\n\r\n",
        "example.com:443",
    ),
}

FORWARDS = {
    "curl 7.88 gets a URL": Recorded(
        b"GET http://example.com/a?b=c HTTP/1.1\r\nHost: example.com\r\n"
        b"User-Agent: curl/7.88.1\r\nAccept: */*\r\nProxy-Connection: Keep-Alive\r\n\r\n",
        "example.com:80",
    ),
    "curl 7.88 gets a URL with a port": Recorded(
        b"GET http://example.com:8080/ HTTP/1.1\r\nHost: example.com:8080\r\n"
        b"User-Agent: curl/7.88.1\r\nAccept: */*\r\nProxy-Connection: Keep-Alive\r\n\r\n",
        "example.com:8080",
    ),
    "curl 7.88 in HTTP/1.0": Recorded(
        b"GET http://example.com/ HTTP/1.0\r\nHost: example.com\r\nUser-Agent: curl/7.88.1\r\n"
        b"Accept: */*\r\nProxy-Connection: Keep-Alive\r\n\r\n",
        "example.com:80",
    ),
    "curl 7.88 uploads what it reads": Recorded(
        b"PUT http://example.com/a HTTP/1.1\r\nHost: example.com\r\nUser-Agent: curl/7.88.1\r\n"
        b"Accept: */*\r\nProxy-Connection: Keep-Alive\r\nTransfer-Encoding: chunked\r\n"
        b"Expect: 100-continue\r\n\r\n",
        "example.com:80",
    ),
    "wget 1.21 gets a URL": Recorded(
        b"GET http://example.com/a HTTP/1.1\r\nHost: example.com\r\nUser-Agent: Wget/1.21.3\r\n"
        b"Accept: */*\r\nAccept-Encoding: identity\r\nConnection: Keep-Alive\r\n"
        b"Proxy-Connection: Keep-Alive\r\n\r\n",
        "example.com:80",
    ),
    "git 2.39 asks for references": Recorded(
        b"GET http://example.com/x.git/info/refs?service=git-upload-pack HTTP/1.1\r\n"
        b"Host: example.com\r\nUser-Agent: git/2.39.5\r\nAccept: */*\r\n"
        b"Accept-Encoding: deflate, gzip, br, zstd\r\nProxy-Connection: Keep-Alive\r\n"
        b"Accept-Language: C, *;q=0.9\r\nPragma: no-cache\r\nGit-Protocol: version=2\r\n\r\n",
        "example.com:80",
    ),
    "requests 2.34 gets a URL": Recorded(
        b"GET http://example.com/a HTTP/1.1\r\nHost: example.com\r\n"
        b"User-Agent: python-requests/2.34.2\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\n"
        b"Connection: keep-alive\r\n\r\n",
        "example.com:80",
    ),
    "httpx 0.28 gets a URL": Recorded(
        b"GET http://example.com/a HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\n"
        b"Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n"
        b"User-Agent: python-httpx/0.28.1\r\n\r\n",
        "example.com:80",
    ),
    "urllib of Python 3.11 gets a URL": Recorded(
        b"GET http://example.com/a HTTP/1.1\r\nAccept-Encoding: identity\r\nHost: example.com\r\n"
        b"User-Agent: Python-urllib/3.11\r\nConnection: close\r\n\r\n",
        "example.com:80",
    ),
    "Go's net/http gets a URL": Recorded(
        b"GET http://example.com/a HTTP/1.1\r\nHost: example.com\r\n"
        b"User-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\r\n",
        "example.com:80",
    ),
    "Node 20's http.get names the proxy in Host": Recorded(
        b"GET http://example.com/a HTTP/1.1\r\nHost: 127.0.0.1:3128\r\n"
        b"Connection: keep-alive\r\n\r\n",
        "example.com:80",
    ),
    "Java 17's HttpURLConnection gets a URL with a port": Recorded(
        b"GET http://example.com:8080/a HTTP/1.1\r\nUser-Agent: Java/17.0.15\r\n"
        b"Host: example.com:8080\r\nAccept: text/html, image/gif, image/jpeg, */*; q=0.2\r\n"
        b"Proxy-Connection: keep-alive\r\n\r\n",
        "example.com:8080",
    ),
    "Java 17's HttpClient sends a length with GET": Recorded(
        b"GET http://example.com/a HTTP/1.1\r\nContent-Length: 0\r\nHost: example.com\r\n"
        b"User-Agent: Java-http-client/17.0.15\r\n\r\n",
        "example.com:80",
    ),
}
