"""Tables and lists that people make: torn quotes, long cells, zero bytes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.text_files import csv_rows, decoded, original_cell, safe_cell, table_rows

TITLES = "file_name,title\n"


def test_a_quote_that_is_never_closed_spoils_its_own_row_alone():
    text = f'{TITLES}a.jpg,"torn\nb.jpg,fine\nc.jpg,"two\nlines"\n'
    assert list(table_rows(text)) == [
        {"file_name": "a.jpg", "title": "torn"},
        {"file_name": "b.jpg", "title": "fine"},
        {"file_name": "c.jpg", "title": "two\nlines"},
    ]


def test_a_cell_longer_than_a_book_does_not_end_a_table():
    rows = list(table_rows(f"{TITLES}a.jpg,{'z' * 200_000}\nb.jpg,fine\n"))
    assert [row["file_name"] for row in rows] == ["a.jpg", "b.jpg"]


def test_fifty_thousand_open_quotes_are_fifty_thousand_rows():
    rows = list(csv_rows('"a.jpg\n' * 50_000, ","))
    assert rows == [["a.jpg"]] * 50_000


def test_a_row_with_too_few_cells_has_those_that_it_has():
    assert list(table_rows(f"{TITLES}a.jpg\n")) == [{"file_name": "a.jpg"}]


def test_one_damaged_byte_does_not_refuse_a_list():
    assert decoded(b"http://host/picture.jpg\n" * 20 + b"\0").endswith("picture.jpg\n")
    with pytest.raises(ValueError, match="no text"):
        decoded(b"\xff\xd8\xff\xe0\0\0\1\0\0\0")


@given(st.text(alphabet='",\n\r\0ab;', max_size=200))
@settings(deadline=None, max_examples=50)
def test_no_table_stops_its_reader_or_loses_what_follows_it(text):
    rows = list(csv_rows(f"{text}\n\nlast,row\n", ","))
    assert rows[-1] in (["last", "row"], rows[-1])
    assert "row" in rows[-1][-1]


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("  +1", "'  +1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("＝1+1", "'＝1+1"),
        ('"=1+1"', '\'"=1+1"'),
        ("a;=1+1", "a;'=1+1"),
        ("'tis", "''tis"),
        ("it's a+b = c", "it's a+b = c"),
        ("\t=1", "' =1"),
        ("a\rb\nc\0d\u2028e\x85f\ud800g", "a b c d e f g"),
    ],
)
def test_no_spreadsheet_program_computes_a_cell_or_breaks_its_line(text, cell):
    assert safe_cell(text) == cell
    cell.encode()


@given(st.text("=+-@'; \"aß狗", max_size=12))
def test_a_guarded_cell_gives_back_its_text(text):
    cell = safe_cell(text)
    assert original_cell(cell) == text
    for part in cell.split(";"):
        assert not part.lstrip(' "').startswith(("=", "+", "-", "@"))
