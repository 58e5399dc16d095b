"""Published weights by download, from a server on this machine."""

import functools
import hashlib
import http.server
import threading

import pytest

from benchmarks.train.pretrained import WEIGHTS, Published, download, sha256_of

CONTENT = bytes(range(256)) * 9000  # more than two chunks
SHA = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path.endswith("short.pth"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:1000])
        else:
            super().do_GET()


@pytest.fixture
def server(tmp_path):
    served = tmp_path / "served"
    served.mkdir()
    (served / "w.pth").write_bytes(CONTENT)
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=served))
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    thread.join()
    made.server_close()


def test_a_file_is_downloaded_once_and_held_to_its_checksum(server, tmp_path):
    heard, folder = [], tmp_path / "weights"
    published = Published("weights", f"{server}/w.pth", SHA)
    file = download("w", published, folder, progress=lambda *seen: heard.append(seen))
    assert file.read_bytes() == CONTENT
    assert heard[-1] == (len(CONTENT), len(CONTENT))
    assert len(heard) == 3
    heard.clear()
    assert download("w", published, folder, progress=lambda *seen: heard.append(seen)) == file
    assert heard == []
    file.write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=f"not {SHA}; delete the file"):
        download("w", published, folder)


def test_another_file_than_the_known_one_is_not_kept(server, tmp_path):
    with pytest.raises(ValueError, match=f"its SHA-256 is {SHA}, not 00: not the file we know"):
        download("w", Published("weights", f"{server}/w.pth", "00"), tmp_path / "weights")
    assert list((tmp_path / "weights").iterdir()) == []


def test_a_checksum_nobody_knows_is_recorded_and_then_held_to(server, tmp_path, capsys):
    folder, published = tmp_path / "weights", Published("weights", f"{server}/w.pth")
    file = download("w", published, folder)
    assert f"SHA-256 {SHA}, recorded in w.pth.sha256" in capsys.readouterr().err
    assert (folder / "w.pth.sha256").read_text() == f"{SHA}  w.pth\n"
    assert download("w", published, folder) == file
    assert capsys.readouterr().err == ""
    file.write_bytes(b"something else")
    with pytest.raises(ValueError, match=f"not {SHA}; delete the file"):
        download("w", published, folder)
    file.unlink()
    assert sha256_of(download("w", published, folder)) == SHA


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/short.pth", "cut short after 1000 of 2304000 bytes"),
        ("/none.pth", r"no way to it \(File not found\)"),
    ],
)
def test_what_cannot_be_had_whole_is_said_and_not_kept(server, tmp_path, path, said):
    with pytest.raises(ValueError, match=f"{said}.*--weights w=FILE"):
        download("w", Published("weights", server + path), tmp_path / "weights")
    assert list((tmp_path / "weights").iterdir()) == []


def test_without_a_network_the_message_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"http://127.0.0.1:9/w.pth: no way to it .*--weights w=FILE"):
        download("w", Published("weights", "http://127.0.0.1:9/w.pth"), tmp_path / "weights")


def test_the_published_ones_come_over_an_encrypted_line():
    assert all(published.url.startswith("https://") for published in WEIGHTS.values())
