"""URLs: fetched once, only over https, only from public addresses, only what was meant."""

import hashlib
import http.client
import http.server
import threading

import pytest

from llmft.data.sources import download, find, read
from llmft.utils.errors import UserError

BODY = b'{"a": 1}\n'
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def served(monkeypatch, tmp_path):
    """A server whose answers stand in a table, and a way to it in place of TLS; ``asked`` lists what it was asked."""
    monkeypatch.setenv("LLMFT_CACHE", str(tmp_path))
    answers, asked = {"/rows.jsonl": (200, {}, BODY)}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            status, headers, body = answers[self.path]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(
        download, "_connect", lambda _: http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    )
    yield answers, asked
    server.shutdown()
    server.server_close()


def test_fetched_once_and_kept(served):
    for _ in range(2):
        source = find("https://example.org/rows.jsonl", "x", sha256=SHA)
        assert [f.place for f in read(source)] == ["rows.jsonl:1"]
    assert served[1] == ["/rows.jsonl"]
    assert find(f"https://example.org/rows.jsonl#sha256={SHA}", "x").sha256 == SHA


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((200, {}, b"other"), "has the SHA-256"),
        ((200, {"Content-Length": "99999999999"}, b""), "at most"),
        ((404, {}, b""), "the server answers 404"),
        ((302, {"Location": "http://example.org/rows.jsonl"}, b""), "only https is fetched, also behind a redirect"),
        ((302, {"Location": "/rows.jsonl"}, b""), "more than 5 redirects"),
    ],
)
def test_refused(served, tmp_path, answer, message):
    served[0]["/rows.jsonl"] = answer
    with pytest.raises(UserError, match=message):
        find("https://example.org/rows.jsonl", "x", sha256=SHA)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_a_redirect_within_https_is_followed(served):
    served[0]["/go.jsonl"] = (302, {"Location": "/rows.jsonl"}, b"")
    assert find("https://example.org/go.jsonl", "x", sha256=SHA).parts[0].file.read_bytes() == BODY


@pytest.mark.usefixtures("served")
def test_too_much_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 4)
    with pytest.raises(UserError, match="more than 4 bytes"):
        find("https://example.org/rows.jsonl", "x", sha256=SHA)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://example.org/rows.jsonl", "only https is fetched"),
        ("file:///etc/passwd.jsonl", "only https is fetched"),
        ("https://me:secret@example.org/rows.jsonl", "must not hold a user name"),
        ("https://example.org/rows.exe", "must name a file such as rows.jsonl"),
    ],
)
@pytest.mark.usefixtures("served")
def test_urls_that_are_not_fetched(url, message):
    with pytest.raises(UserError, match=message) as error:
        find(url, "x", sha256=SHA)
    assert "secret" not in str(error.value)


def test_a_url_needs_a_digest():
    with pytest.raises(UserError, match=r"needs data.sha256"):
        find("https://example.org/rows.jsonl", "x")


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "192.168.1.1", "fd00::1", "0.0.0.0"]
)
def test_private_addresses_are_refused(address, monkeypatch):
    public = ("93.184.216.34", 443)
    found = [(0, 0, 0, "", public), (0, 0, 0, "", (address, 443))]
    monkeypatch.setattr(download.socket, "getaddrinfo", lambda *_, **__: found[:1])
    assert download.public_address("example.org", 443) == public
    monkeypatch.setattr(download.socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(OSError, match="not on the public internet"):
        download.public_address("example.org", 443)
