"""What people give to be classified: addresses, lists, folders, and what servers answer."""

import csv
import http.server
import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from yarl import URL

from tests.training.conftest import LoopbackServer
from training.locations import ListError, ascii_url, find_images, load_image
from training.text_files import decoded

few = settings(max_examples=60, deadline=None)


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    "pasted",
    [
        "HTTP://Example.org/a.jpg",
        "https://example.org/käse.jpg",
        "https://example.org/k%C3%A4se.jpg",
        "https://käse.example.org:8080/a b.jpg",
        "https://straße.example/x",
        "http://日本語。テスト/図.png",
        "https://example.org/100%.jpg",
        "https://example.org/100%25.jpg?size=50%25&name=ä",
        "https://example.org/(a)[b]'c'!$*+,;=:@~.jpg",
        "http://[::1]:8000/x.jpg",
        "https://example.org",
        "https://example.org?x=1",
        "  https://example.org/x.jpg#part  ",
        "https://example.org/a|b^c`d{e}<f>\"g\\h",
    ],
)  # fmt: skip
def test_an_address_is_asked_for_as_the_downloader_asks(pasted: str) -> None:
    expected = URL(pasted.strip()).with_fragment(None)
    found = URL(ascii_url(pasted), encoded=True)
    assert str(found).isascii()
    assert URL(str(found)) == expected


@few
@given(st.text(max_size=40) | st.text("%./:?#[]@ä。\ud83d", max_size=20))
def test_no_address_ends_a_run(text: str) -> None:
    for location in (f"http://{text}", f"http://127.0.0.1:1/{text}", f"HTTPS://127.0.0.1:1?{text}"):
        try:
            assert ascii_url(location).isascii()
        except ValueError:
            image, reason = load_image(location)
            assert image is None and reason


LINES = ["http://one.example/käse.jpg", "pictures/b c.jpg", "#no picture", "", "  ", '"quoted.png"']
READ = ["http://one.example/käse.jpg", "pictures/b c.jpg", "quoted.png"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_is_read_as_any_program_writes_it(encoding: str, end: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(end.join(LINES).encode(encoding))
    assert find_images([], [str(tmp_path / "list.txt")]) == READ


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("column", ["url", "Image_URL", "file", "path"])
def test_a_table_is_read_by_the_title_of_its_column(
    delimiter: str, column: str, tmp_path: Path
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerows(
        [("id", column, "note"), (1, READ[0], f"a{delimiter}b"), (2,), (3, READ[1], "")]
    )
    (tmp_path / "list.csv").write_text(f"sep={delimiter}\n{text.getvalue()}", "utf-8-sig")
    assert find_images([f"@{tmp_path / 'list.csv'}"]) == READ[:2]


def test_a_list_that_is_no_text_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"PK\x03\x04\0\0\0\0")
    with pytest.raises(ListError, match=r"^The list .* cannot be read: it is no text\.$"):
        find_images([], [str(tmp_path / "list")])
    with pytest.raises(ListError, match=r"Is a directory"):
        find_images([], [str(tmp_path)])


def test_a_list_names_files_whose_names_are_not_utf_8(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/b\xe4r.png"
    Path(os.fsdecode(name)).write_bytes(png())
    (tmp_path / "list").write_bytes(name + b"\n")
    (location,) = find_images([], [str(tmp_path / "list")])
    assert load_image(location)[0] is not None


@few
@given(st.binary(max_size=200) | st.text(max_size=60).map(lambda text: text.encode("utf-16")))
def test_the_bytes_of_a_list_are_read_or_refused(data: bytes) -> None:
    try:
        assert "\0" not in decoded(data)
    except ValueError as error:
        assert str(error)


@few
@given(
    st.lists(st.text("ab,;\t\"'\n=", max_size=9), max_size=5), st.sampled_from(["url", "a,url", ""])
)
def test_any_list_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], header: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "any list"
    file.write_text("\n".join([header, *lines]))
    try:
        assert all(find_images([], [str(file)]))
    except ListError as error:
        assert "cannot be read" in str(error)


def test_a_folder_gives_all_its_pictures_and_linked_ones(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(folder)
    for name in ("a.JFIF", "b.tiff", "deep/c.heic", "no_suffix", "link/d.jp2"):
        (folder / name).write_bytes(png())
    for name in ("notes.txt", ".hidden.png", "Thumbs.db", "README"):
        (folder / name).write_bytes(png() if "." in name else b"text")
    found = [Path(path).relative_to(folder).as_posix() for path in find_images([str(folder)])]
    assert found == ["a.JFIF", "b.tiff", "deep/c.heic", "link/d.jp2", "no_suffix"]


def test_a_folder_without_pictures_and_other_odd_files_are_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert find_images([str(tmp_path / "empty")]) == [str(tmp_path / "empty")]
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    reasons = [
        load_image(str(tmp_path / name))[1] for name in ("empty", "pipe.png", "loop.png", "x")
    ]
    assert reasons[:2] == ["a folder without a picture that can be read", "not a regular file"]
    assert all(reason.startswith("cannot be read (") for reason in reasons[2:])


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("ftp://example.org/x.jpg", "no such file, and addresses begin with http"),
        ("file:///tmp/none.jpg", "no such file, and addresses begin with http:// or https://"),
        ("<http://example.org/x.jpg>", "no such file, and addresses begin with http"),
        ("www.example.org/x.jpg", "no such file, and addresses begin with http"),
        (
            "http://name:secret@127.0.0.1:1/x",
            "cannot be read (an address must not hold a user name or password",
        ),
        ("http://a..b/", "cannot be read (no host can be called so"),
    ],
)
def test_what_is_no_address_to_read_from_is_told_how_one_begins(location: str, reason: str) -> None:
    image, found = load_image(location)
    assert image is None and found.startswith(reason)


@contextmanager
def raw_server(*answers: bytes) -> Iterator[str]:
    """A server that sends these bytes, whatever is asked, to one connection after another."""

    def serve() -> None:
        for answer in answers:
            with listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(0.1)


def answer(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *headers, b"Connection: close", b"", body])


def test_what_servers_answer_is_a_picture_or_a_reason() -> None:
    import gzip

    packed = gzip.compress(png())
    bomb = gzip.compress(bytes(40_000_000))
    expected = {
        answer(png(), b"X-Note: k\xe4se \xff"): "",
        answer(packed, b"Content-Encoding: gzip"): "",
        answer(packed): "",
        answer(bomb): "larger than 30 MB",
        answer(packed[:40]): "not a picture that can be read",
        answer(b"<html>"): "not a picture that can be read",
        answer(
            b"", b"Location: ftp://127.0.0.1:1/x.jpg", status=b"302 Found"
        ): "the server leads to",
        answer(b"", b"Content-Length: nonsense"): "not a picture that can be read",
        answer(
            b"", b"Location: file:///etc/passwd", status=b"302 Found"
        ): "the server answered 302",
        answer(b"", b"Location: http://[", status=b"301 Moved"): "cannot be read",
        answer(b"", status=b"503 Later"): "the server answered 503",
        answer(b"", b"X: " + b"y" * 70_000): "cannot be read",
        b"\xff\xfe \x1b[31mnonsense\r\n\r\n": "cannot be read (the server's answer is broken)",
        b"": "cannot be read",
    }
    with raw_server(*expected) as url:
        for reason in expected.values():
            image, found = load_image(f"{url}/x.png")
            assert found.startswith(reason) and (image is not None) == (reason == ""), found


def test_a_host_that_wants_its_cookie_back_gets_it() -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            knows_us = self.headers["Cookie"] == "seen=1"
            self.send_response(200 if knows_us else 302)
            self.send_header("Set-Cookie", "seen=1")
            self.send_header("Location", self.path)
            self.end_headers()
            self.wfile.write(png() if knows_us else b"")

        def log_message(self, *arguments: object) -> None:
            """Tests need no access log."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        image, reason = load_image(f"http://127.0.0.1:{server.server_port}/picture")
        server.shutdown()
    assert image is not None and not reason


def test_a_server_that_sends_a_byte_now_and_then_is_left_in_time() -> None:
    ended = threading.Event()

    def serve() -> None:
        with listener.accept()[0] as connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while not ended.wait(0.1):
                connection.sendall(b"y")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        assert load_image(address, seconds=1) == (None, "took longer than 1 seconds")
        ended.set()
        thread.join(5)


def test_redirects_are_followed_but_not_for_ever(server: LoopbackServer) -> None:
    server.files["/k%C3%A4se.png"] = png()
    target = f"Location: {server.url}/käse.png".encode()
    with raw_server(answer(b"", target, status=b"302 Found")) as url:
        assert load_image(f"{url}/x.png")[0] is not None
    around = [answer(b"", b"Location: /x.png", status=b"302 Found")] * 11
    with raw_server(*around) as url:
        assert load_image(f"{url}/x.png") == (None, "the server answered 302")


@few
@given(st.binary(max_size=300), st.binary(max_size=300), st.integers(0, 70))
def test_the_bytes_of_a_picture_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, more: bytes, cut: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.png"
    for data in (junk, png()[:cut] + junk, png()[:cut] + more + png()[cut:]):
        file.write_bytes(data)
        image, reason = load_image(str(file))
        assert (image is None) == bool(reason)


def test_a_list_in_any_encoding_comes_from_standard_input(tmp_path: Path) -> None:
    program = "from training.locations import find_images; print(ascii(find_images('-')))"
    for encoding in ("utf-16", "cp1252", "utf-8-sig"):
        shown = subprocess.run(
            [sys.executable, "-c", program],
            input="\r\n".join(LINES).encode(encoding),
            capture_output=True,
            check=True,
        )
        assert shown.stdout.decode().strip() == ascii(READ)
