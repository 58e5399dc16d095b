"""Published weights by download, from a server on this machine."""

import functools
import hashlib
import http.server
import threading

import pytest

from benchmarks.train.pretrained import WEIGHTS, Published, download

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
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=served))
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_file_is_downloaded_once_and_its_checksum_checked(server, tmp_path):
    folder, published = tmp_path / "weights", Published("weights", f"{server}/w.pth", SHA)
    file = download("w", published, folder)
    assert file.read_bytes() == CONTENT
    (tmp_path / "served" / "w.pth").unlink()
    assert download("w", published, folder) == file
    file.write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=f"not {SHA}; delete the file"):
        download("w", published, folder)


def test_a_file_with_another_checksum_is_refused_and_removed(server, tmp_path):
    with pytest.raises(ValueError, match=f"not downloaded .*{SHA}.*--weights w=FILE"):
        download("w", Published("weights", f"{server}/w.pth", "00"), tmp_path / "weights")
    assert list((tmp_path / "weights").iterdir()) == []


def test_an_unknown_checksum_is_recorded_and_checked_from_then_on(server, tmp_path, capsys):
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
    assert download("w", published, folder).read_bytes() == CONTENT


@pytest.mark.parametrize("path", ["/short.pth", "/none.pth"])
def test_a_truncated_or_missing_file_is_an_error_and_not_kept(server, tmp_path, path):
    with pytest.raises(ValueError, match=f"{path}: not downloaded .*--weights w=FILE"):
        download("w", Published("weights", server + path), tmp_path / "weights")
    assert list((tmp_path / "weights").iterdir()) == []


def test_without_a_network_the_error_names_the_option_weights(tmp_path):
    with pytest.raises(ValueError, match=r"http://127.0.0.1:9/w.pth: not downloaded .*--weights w=FILE"):
        download("w", Published("weights", "http://127.0.0.1:9/w.pth"), tmp_path / "weights")


def test_published_weights_are_downloaded_over_https():
    assert all(published.url.startswith("https://") for published in WEIGHTS.values())
