"""What the person supplies who asks: pictures in folders and zips, addresses in tables."""

import io
import zipfile
from pathlib import Path

import pytest

from scraping import ConfigError
from scraping.__main__ import main
from scraping.collect import collect
from scraping.outside import clean_address
from scraping.picture_zip import (
    HEIC,
    NO_PICTURE,
    PACKED_OTHERWISE,
    Limits,
    ZipRefusedError,
    open_zip,
)
from scraping.supplied import (
    MOST_LINES,
    MOST_PICTURES,
    Unused,
    named_classes,
    read_supplied,
    read_table,
)
from scraping.urls import normalized_url
from tests.replicas.openverse import OpenverseReplica
from tests.replicas.pictures import encoded, jpeg, picture
from tests.replicas.pictures_host import PictureHost
from tests.scraping.collect_folder import Listing, classes, configuration, listed, rows

ROWS = [("https://a.example/1.jpg", "corgi"), ("https://a.example/2.jpg", "łoś")]


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def placed(folder: Path, files: dict[str, bytes], is_zip: bool) -> Path:
    """Return a zip of these files, or a folder of them."""
    if is_zip:
        folder.mkdir(exist_ok=True)
        return zipped(folder / "own.zip", files)
    for name, content in files.items():
        path = folder / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / "own"


@pytest.mark.parametrize(
    "data",
    [
        "url,label\nhttps://a.example/1.jpg,corgi\nhttps://a.example/2.jpg,łoś\n".encode(),
        "\ufeffClass;Image_URL\r\ncorgi;https://a.example/1.jpg\r\nłoś;https://a.example/2.jpg"
        .encode(),
        'sep=;\n"image_url";"class"\n"https://a.example/1.jpg";"corgi"\n"https://a.example/2.jpg";'
        '"łoś"\n'.encode(),
        "image_url\tn\tlabel\nhttps://a.example/1.jpg\t1\tcorgi\nhttps://a.example/2.jpg\t2\tłoś"
        .encode("utf-16"),
        "url,label\nhttps://a.example/1.jpg,corgi\nhttps://a.example/2.jpg,łoś".encode("utf-16-le"),
    ],
)  # fmt: skip
def test_a_table_is_read_however_a_program_wrote_it(data):
    table = read_table(data)
    assert [(row.url, row.label) for row in table.rows] == ROWS and not table.unused


def test_latin_1_is_read_and_each_bad_row_has_its_reason():
    text = (
        "label,url\ncafé,https://a.example/1.jpg\n,https://a.example/2.jpg\ncafé,\ncafé\n"
        "café,file:///etc/passwd\ncafé,https://a.example/3.jpg\n"
    )
    table = read_table(text.encode("latin-1"))
    assert [(row.line, row.label) for row in table.rows] == [(2, "café"), (7, "café")]
    assert [(unused.what, unused.why) for unused in table.unused] == [
        ("row 3", "It has no label."),
        ("row 4", "It has no address."),
        ("row 5", "It has fewer cells than the first line."),
        ("row 6", "Its address cannot be asked for: not a web address."),
    ]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "names two columns"),
        (b"https://a.example/1.jpg,corgi\n", "names two columns"),
        (b"url\nhttps://a.example/1.jpg\n", "names two columns"),
        (b"PK\x03\x04 a spreadsheet", "no table"),
        (jpeg(1), "no table|names two columns"),
    ],
)
def test_what_is_no_table_is_refused_in_a_sentence(data, sentence):
    with pytest.raises(ConfigError, match=sentence):
        read_table(data)


@pytest.mark.parametrize("encoding", ["utf-8", "cp852", "cp1250", "gb18030", "cp932"])
def test_a_zip_that_does_not_say_how_its_names_are_written_is_read(tmp_path, encoding):
    name = "łoś" if encoding not in ("gb18030", "cp932") else "犬"
    path = tmp_path / "names.zip"
    zipped(path, {"top/xx/1.jpg": jpeg(1), "top/cat/1.jpg": jpeg(2)})
    raw = name.encode(encoding)
    place = b"xx" + b"_" * (len(raw) - 2)
    zipped(path, {f"top/{place.decode()}/1.jpg": jpeg(1), "top/cat/1.jpg": jpeg(2)})
    path.write_bytes(path.read_bytes().replace(place, raw))  # as old programs write it
    supplied = read_supplied(str(path), "", [name, "cat"])
    assert not supplied.unused and len(supplied.candidates["upload", name]) == 1
    (candidate,) = supplied.candidates["upload", name]
    assert supplied.content(candidate.image_url) == jpeg(1)


def test_a_damaged_entry_costs_one_picture_and_how_others_are_packed_is_said(tmp_path):
    path = tmp_path / "torn.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(2):
            archive.writestr(f"cat/{number}.jpg", jpeg(number))
        archive.writestr("cat/bzip.jpg", jpeg(2), zipfile.ZIP_BZIP2)
        archive.writestr("cat/lzma.jpg", jpeg(3), zipfile.ZIP_LZMA)
        torn = archive.getinfo("cat/1.jpg")
    data = bytearray(path.read_bytes())
    middle = torn.header_offset + torn.compress_size // 2
    data[middle : middle + 40] = bytes(40)
    path.write_bytes(data)
    supplied = read_supplied(str(path), "", ["cat"])
    found = supplied.candidates["upload", "cat"]
    assert [supplied.content(one.image_url) for one in found] == [jpeg(0), None]
    assert [one.what for one in supplied.unused] == ["cat/bzip.jpg", "cat/lzma.jpg"]
    assert {one.why for one in supplied.unused} == {PACKED_OTHERWISE}


def test_a_zip_of_nothing_but_entries_packed_otherwise_is_refused_with_why(tmp_path):
    path = tmp_path / "lzma.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("cat/1.jpg", jpeg(1))
    with pytest.raises(ConfigError, match="Make the zip anew"):
        read_supplied(str(path), "", ["cat"])


def test_names_that_differ_in_what_no_address_holds_are_pictures_of_their_own(tmp_path):
    names = [
        "a",
        "a ",
        "a\t",
        "a\n",
        "a\r\n",
        "\ta",
        "a\u2028",
        "a\u202e",
        "a\ufffd",
        "a%09",
        "a%2509",
    ]
    names += ["a?utm_x=1", "a#", "a\u3000", "ą", "a" + "b" * 200, "[a", "A"]
    pictures = {f"cat/{name}": jpeg(number) for number, name in enumerate(names)}
    for number, is_zip in enumerate((True, False)):
        own = placed(tmp_path / f"{number}", pictures, is_zip)
        supplied = read_supplied(str(own), "", ["cat"])
        found = supplied.candidates["upload", "cat"]
        addresses = {normalized_url(one.image_url) for one in found}
        assert len(addresses) == len(names)
        assert all(clean_address(one.image_url) == one.image_url for one in found)
        assert {supplied.content(one.image_url) for one in found} == set(pictures.values())
    assert "upload:cat/ą" in {one.image_url for one in found}, "and names stay readable"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_files_of_one_path_in_a_zip_the_second_is_said_to_be_left_out(tmp_path):
    path = tmp_path / "twice.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat/1.jpg", jpeg(1))
        archive.writestr("cat/1.jpg", jpeg(2))
    supplied = read_supplied(str(path), "", ["cat"])
    (one,) = supplied.candidates["upload", "cat"]
    assert supplied.content(one.image_url) == jpeg(1)
    assert supplied.unused == [Unused("cat/1.jpg", "Another picture in it has the same path.")]


def test_of_a_far_too_long_table_only_the_beginning_is_read():
    line = b"https://a.example/1.jpg,corgi\n"
    table = read_table(b"url,label\n" + line * 300_000)
    assert len(table.rows) == MOST_PICTURES and len(table.unused) == MOST_LINES - MOST_PICTURES
    assert table.unused[-1] == Unused("290001 further lines", "Only 10000 lines are read.")
    table = read_table(b"url,label\n" + line * (MOST_LINES - 1) + line.strip())
    assert table.unused[-1].what == "1 further line"
    assert table.unused[0] == Unused("row 5002", "Only 5000 rows are taken.")
    for end in (b"\n", b"\r", b"\r\n"):
        table = read_table(b"url,label" + end + (b"," + end) * 3_000_000)
        assert not table.rows and len(table.unused) == MOST_LINES
        assert table.unused[-1].what == "2990001 further lines"


def test_what_is_held_of_a_zip_is_bounded_before_its_entries_are_read(tmp_path, monkeypatch):
    path = zipped(tmp_path / "full.zip", {f"{number}": b"" for number in range(2000)})
    end = path.read_bytes()[-22:]
    lying = bytearray(path.read_bytes())
    lying[-22 + 8 : -22 + 12] = b"\1\0\1\0"  # says that there is one entry
    zip64 = zipped(tmp_path / "zip64.zip", {f"{number}": b"" for number in range(66_000)})
    commented = path.read_bytes()[:-2] + b"\x02\0" + b"ab"
    monkeypatch.setattr(zipfile.ZipInfo, "__init__", None)  # none is made
    for data in (path.read_bytes(), bytes(lying), commented, zip64.read_bytes()):
        count = 66_000 if len(data) > 1_000_000 else 2000
        with pytest.raises(ZipRefusedError, match=f"This zip has {count} entries; at most"):
            open_zip(io.BytesIO(data), Limits(entries=count - 1))
    with pytest.raises(ZipRefusedError, match="far too many entries"):
        open_zip(path, Limits(entries=50))
    for torn in (b"", end, end[:12] + b"\xff" * 8 + b"\0\0", b"PK\6\7" + bytes(16) + end):
        with pytest.raises(ZipRefusedError, match=r"not a zip that can be read|far too many"):
            open_zip(io.BytesIO(torn), Limits(entries=50))


@pytest.mark.parametrize("is_zip", [True, False])
def test_files_that_are_no_pictures_are_never_counted_as_such(tmp_path, is_zip):
    files = {"cat/1.txt": b"notes", "cat/2.jpg": b"", "cat/3.jpg": b"\0\0\0\x18ftypheic" + bytes(9)}
    kinds = {"JPEG": "4.jpg", "PNG": "5", "WEBP": "6.x", "GIF": "7.gif", "BMP": "8", "AVIF": "9"}
    pictures = {f"cat/{name}": encoded(picture(1), kind) for kind, name in kinds.items()}
    own = placed(tmp_path, files | pictures, is_zip)
    supplied = read_supplied(str(own), "", ["cat"])
    found = supplied.candidates["upload", "cat"]
    assert {supplied.content(one.image_url) for one in found} == set(pictures.values())
    whys = {unused.what: unused.why for unused in supplied.unused}
    assert whys == {"cat/1.txt": NO_PICTURE, "cat/2.jpg": NO_PICTURE, "cat/3.jpg": HEIC}
    nothing = placed(tmp_path / "no", files, is_zip)
    assert not read_supplied(str(nothing), "", ["cat"]).candidates


@pytest.mark.parametrize("is_zip", [True, False])
def test_folders_that_divide_a_dataset_are_no_classes(tmp_path, is_zip):
    paths = ["Train/cat/1.jpg", "Train/dog/2.jpg", "test/cat/3.jpg", "valid/dog/4.jpg"]
    files = {path: jpeg(number) for number, path in enumerate(paths)}
    own = placed(tmp_path, files | {"test/unknown.jpg": jpeg(9)}, is_zip)
    assert named_classes(str(own), "") == ["cat", "dog"]
    found = read_supplied(str(own), "", ["cat", "dog"]).candidates
    assert [len(candidates) for candidates in found.values()] == [2, 2]
    buses = placed(tmp_path / "b", {"train/1.jpg": jpeg(1), "bus/2.jpg": jpeg(2)}, is_zip)
    assert named_classes(str(buses), "") == ["bus", "train"]
    assert len(read_supplied(str(buses), "", ["bus", "train"]).candidates) == 2


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_dataset_of_ours_names_its_classes_itself(tmp_path, is_zip):
    top = "picaisso-cat-dataset/" if is_zip else ""
    files = {
        f"{split}/{name}/1.jpg": jpeg(1) for split in ("train", "val") for name in ("c1", "c2")
    }
    files |= {"classes.json": '{"c1": "łoś", "c2": "C++"}'.encode(), "README.md": b"# Pictures"}
    own = placed(tmp_path, {top + path: content for path, content in files.items()}, is_zip)
    assert set(named_classes(str(own), "")) == {"łoś", "C++"}
    found = read_supplied(str(own), "", ["łoś", "c++"]).candidates
    assert [len(candidates) for candidates in found.values()] == [2, 2]
    for odd in (b"[", b"[1]", b'{"c1": 1}'):
        other = {path: odd if path == "classes.json" else files[path] for path in files}
        own = placed(tmp_path, {top + path: content for path, content in other.items()}, is_zip)
        assert named_classes(str(own), "") == ["c1", "c2"]


def test_folders_and_labels_name_the_classes_where_nobody_does(tmp_path):
    path = zipped(tmp_path / "a.zip", {f"set/{n}/deep/{n}.jpg": jpeg(1) for n in ("b", "a", "c")})
    table = tmp_path / "urls.csv"
    table.write_text("url,label\nhttps://a.example/1.jpg,A\nhttps://a.example/2.jpg,d\n")
    assert named_classes(str(path), str(table)) == ["a", "b", "c", "d"]
    supplied = read_supplied(str(path), "", ["a", "b", "c"])
    assert len(supplied.candidates["upload", "b"]) == 1


def test_links_and_what_leads_out_are_never_followed(tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(jpeg(1))
    folder = tmp_path / "own" / "cat"
    folder.mkdir(parents=True)
    (folder / "link.jpg").symlink_to(secret)
    (folder / "a#1?.jpg").write_bytes(jpeg(2))
    (folder / "a%231%3F.jpg").write_bytes(jpeg(3))
    (tmp_path / "own" / "linked").symlink_to(folder)
    supplied = read_supplied(str(tmp_path / "own"), "", ["cat", "linked"])
    found = supplied.candidates["upload", "cat"]
    assert [supplied.content(one.image_url) for one in found] == [jpeg(2), jpeg(3)]
    assert ("upload", "linked") not in supplied.candidates
    assert supplied.content("upload:../../secret.jpg") is None
    leading = zipped(tmp_path / "a.zip", {"../cat/1.jpg": jpeg(1), "cat/2.jpg": jpeg(2)})
    supplied = read_supplied(str(leading), "", ["cat"])
    assert supplied.unused[0].why == "Its path leads out of the zip."


def test_own_pictures_are_screened_as_all_others_and_the_search_fills_the_rest(tmp_path):
    small = encoded(picture(9, (40, 40)))
    files = {"thing/1.jpg": jpeg(5001), "thing/2.jpg": small, "thing/3.txt": b"notes"}
    own = zipped(tmp_path / "own.zip", {**files, "other/1.jpg": jpeg(5002)})
    table = tmp_path / "urls.csv"
    with PictureHost() as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        lines = [f"{host.url}/pic/7001.jpg,thing", "http://10.0.0.1/a.jpg,thing"]
        table.write_text("\n".join(["url,label", *lines]))
        values = {"own": str(own), "own_urls": str(table), "sources": ["openverse"], "limit": 6}
        config = configuration({"openverse": site}, [host], license="open", **values)
        result = collect(tmp_path / "out", config)
        found = rows(tmp_path / "out")
        assert config.sources == ("upload", "url_list", "openverse")
        assert result["classes"][0]["kept"] == 6
        own_rows = [row for row in found if row["source"] in ("upload", "url_list")]
        fate = {row["image_url"].rpartition("/")[2]: row["reason"] for row in own_rows}
        assert fate == {
            "1.jpg": None, "2.jpg": "too_small", "7001.jpg": None, "a.jpg": "refused_address",
        }  # fmt: skip
        assert {row["license_basis"] for row in own_rows} == {"requester"}
        assert own_rows[0]["attribution"] == "Supplied by the requester."
        assert all("split" not in row for row in found)
        assert result["unused"] == [
            {"what": "other/1.jpg", "why": "No class is called “other”."},
            {"what": "thing/3.txt", "why": NO_PICTURE},
        ]
        assert collect(tmp_path / "out", config) == result


def test_own_test_pictures_come_on_top_and_no_found_copy_takes_their_place(tmp_path):
    own = {"thing/1.jpg": jpeg(1), "thing/2.jpg": jpeg(2), "other/3.jpg": jpeg(3)}
    with PictureHost() as host:
        host.add("/larger.jpg", jpeg(1, (1280, 960)))
        host.add("/in-other.jpg", jpeg(3, (640, 480)))
        paths = ["/larger.jpg", "/in-other.jpg", "/pic/21.jpg", "/pic/22.jpg", "/pic/23.jpg"]
        with Listing({"thing": [listed(host.url + path) for path in paths]}) as site:
            config = configuration(
                {"openverse": site},
                [host],
                classes=classes("thing", "other"),
                sources=["openverse"],
                limit=3,
                kind="",
                own=str(zipped(tmp_path / "own.zip", own)),
                own_as_test=True,
            )
            result = collect(tmp_path / "out", config)
    found = rows(tmp_path / "out")
    assert [entry["kept"] for entry in result["classes"]] == [5, 1]
    tested = [row["image_url"] for row in found if row.get("split") == "test"]
    assert sorted(tested) == ["upload:other/3.jpg", "upload:thing/1.jpg", "upload:thing/2.jpg"]
    reasons = {row["image_url"].rpartition("/")[2]: row["reason"] for row in found}
    assert reasons["larger.jpg"] in ("near_duplicate", "duplicate")
    assert reasons["in-other.jpg"] == "in_two_classes" and reasons["3.jpg"] is None


def test_the_command_needs_no_names_and_says_what_it_cannot_use(tmp_path, capsys):
    own = zipped(tmp_path / "own.zip", {f"{n}/{n}.jpg": jpeg(ord(n)) for n in "ab"})
    out = ["--source", "upload", "--out", str(tmp_path / "out"), "--min-side", "64"]
    assert main(["collect", "--own", str(own), *out, "--json"]) == 0
    assert [row["state"] for row in rows(tmp_path / "out")] == ["kept", "kept"]
    for arguments, sentence in (
        (["--own", str(tmp_path / "gone.zip")], "argument --own: there is no"),
        ([], "name a class, or bring pictures along"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["collect", *arguments, *out])
        assert ended.value.code == 2 and sentence in capsys.readouterr().err
    torn = tmp_path / "torn.zip"
    torn.write_bytes(b"PK torn")
    assert main(["collect", "--own", str(torn), *out]) == 1
    assert capsys.readouterr().err == "torn.zip: This file is not a zip that can be read.\n"
