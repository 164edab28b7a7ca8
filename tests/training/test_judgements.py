"""A person's table of labels: read however it was saved, and refused with its lines."""

import csv
import dataclasses
import io
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.judgements import (
    JUDGEMENTS_FILE,
    STATES,
    Judgement,
    inherit_judgements,
    read_judgements,
    read_labels,
    write_judgements,
)
from training.run_folder import (
    ClassLabel,
    ImageRow,
    RunConfig,
    RunError,
    Split,
    write_config,
    write_manifest,
)

CORGI = ClassLabel("c001", "corgi")
SHIBA = ClassLabel("c002", "shiba inu")
FOX = ClassLabel("c003", "Füchse, rot")
TWO = (CORGI, SHIBA)
THREE = (CORGI, SHIBA, FOX)


def image(name: str, split: Split | None = "test", label: ClassLabel = CORGI) -> ImageRow:
    return ImageRow(f"images/{name}.jpg", label.id, f"digest{name}", split=split, group=1)


ROWS = (
    image("a"),
    image("b", label=SHIBA),
    image("learned", "train"),
    image("tuned", "val"),
    image("left", None),
)


def saved(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


def labels(
    folder: Path, *lines: str, header: str = "file,verified", classes: tuple[ClassLabel, ...] = TWO
) -> dict[str, Judgement | None]:
    text = "\n".join([header, *lines])
    return read_labels(saved(folder, text), ROWS, classes)


def refusal(folder: Path, *lines: str, header: str = "file,verified") -> str:
    with pytest.raises(RunError) as refused:
        labels(folder, *lines, header=header)
    return f"{refused.value.reason} {refused.value.remedy}"


RIGHT = Judgement("right", "c001")
A_SHIBA = Judgement("other class", "c002")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("right", RIGHT),
        (" RIGHT ", RIGHT),
        ("Corgi", RIGHT),
        ("c001", RIGHT),
        ("C001", RIGHT),
        ("other class", A_SHIBA),
        ("Other", A_SHIBA),
        ("wrong", A_SHIBA),
        ("other_class", A_SHIBA),
        ("Shiba  Inu", A_SHIBA),
        ("c002", A_SHIBA),
        ("off-topic", Judgement("off-topic")),
        ("Off_Topic", Judgement("off-topic")),
        ("off topic", Judgement("off-topic")),
        ("offtopic", Judgement("off-topic")),
        ("Off\N{HYPHEN}topic", Judgement("off-topic")),
        ("off \N{EN DASH} topic", Judgement("off-topic")),
        ("none of these", Judgement("off-topic")),
        ("Correct", RIGHT),
        ("OTHER-CLASS", A_SHIBA),
        ("", None),
    ],
)
@pytest.mark.parametrize(
    "header", ["file,verified", "file_name,state", "Image,LABEL", "path,verified"]
)
def test_a_judgement_may_be_written_in_many_ways(
    tmp_path: Path, said: str, meant: Judgement | None, header: str
) -> None:
    assert labels(tmp_path, f"images/a.jpg,{said}", header=header) == {"images/a.jpg": meant}


@pytest.mark.parametrize(
    "named",
    [
        "images/a.jpg",
        "a.jpg",
        "a",
        "runs/1/images/a.jpg",
        "C:\\run\\images\\a.jpg",
        "test/c001/a.jpg",
    ],
)
def test_an_image_may_be_named_with_or_without_its_folder(tmp_path: Path, named: str) -> None:
    assert labels(tmp_path, f"{named},right") == {"images/a.jpg": RIGHT}


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_table_may_be_saved_by_any_spreadsheet_program(
    tmp_path: Path, encoding: str, delimiter: str, newline: str
) -> None:
    lines = [
        ["file", "verified", ""],
        ["a.jpg", '"Füchse, rot"', ""],
        ["", "", ""],
        ["b.jpg", "right"],
    ]
    text = newline.join(delimiter.join(line) for line in lines) + newline
    for hint in ("", f"sep={delimiter}{newline}"):
        found = read_labels(saved(tmp_path, hint + text, encoding), ROWS, THREE)
        assert found == {
            "images/a.jpg": Judgement("other class", "c003"),
            "images/b.jpg": Judgement("right", "c002"),
        }


def test_with_more_than_two_classes_another_class_alone_leaves_the_true_one_open(
    tmp_path: Path,
) -> None:
    found = labels(tmp_path, "a,other class", "b,c003", classes=THREE)
    assert found == {
        "images/a.jpg": Judgement("other class"),
        "images/b.jpg": Judgement("other class", "c003"),
    }


def test_the_table_of_predictions_with_one_more_column_is_a_table_of_labels(tmp_path: Path) -> None:
    header = "file,class,split,fold,group,predicted,c001,c002,verified"
    found = labels(
        tmp_path,
        "images/a.jpg,c001,test,,1,c001,0.9,0.1,other",
        "images/learned.jpg,c001,train,1,1,c001,0.9,0.1,",
        header=header,
    )
    assert found == {"images/a.jpg": A_SHIBA}


def test_all_lines_that_cannot_be_used_are_named_with_what_is_allowed(tmp_path: Path) -> None:
    message = refusal(
        tmp_path,
        "a,maybe",
        "b,right",
        "learned,right",
        "tuned,off-topic",
        "left,right",
        "nowhere.jpg,right",
        "b,other",
        "a",
    )
    assert "line 2: “maybe” is no judgement" in message
    assert "line 4: “images/learned.jpg” is a training picture; only test pictures" in message
    assert "line 5: “images/tuned.jpg” is a validation picture" in message
    assert "line 6: “images/left.jpg” takes no part in the run" in message
    assert "line 7: the run has no picture “nowhere.jpg”" in message
    assert "2 more lines" in message and message.startswith("Nothing was changed")
    assert (
        "Allowed are “right”, “other class”, “off-topic”, a class (“corgi” and “shiba inu”)"
        in message
    )


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            ("a,right", "images/a.jpg,other"),
            "line 3: “images/a.jpg” is judged otherwise further up",
        ),
        (("a",), "line 2: the judgement of “images/a.jpg” is missing"),
        ((",right",), "line 2: the picture is missing"),
        (("a,corgi, pembroke",), "more cells than the first line"),
        (("a,\x1b[31mred",), "“\ufffd[31mred” is no judgement"),
    ],
)
def test_a_line_that_may_be_a_mistake_is_refused(
    tmp_path: Path, lines: tuple[str, ...], said: str
) -> None:
    assert said in refusal(tmp_path, *lines)


def test_the_same_judgement_twice_is_one(tmp_path: Path) -> None:
    assert labels(tmp_path, "a,right", "", "images/a.jpg,c001") == {"images/a.jpg": RIGHT}


def test_two_images_of_one_name_need_their_folder(tmp_path: Path) -> None:
    rows = [dataclasses.replace(image("a"), file=f"{folder}/a.jpg") for folder in ("one", "two")]
    table = saved(tmp_path, "file,verified\na.jpg,right\n")
    with pytest.raises(RunError, match="give their folder too"):
        read_labels(table, rows, TWO)
    table = saved(tmp_path, "file,verified\nx/two/a.jpg,right\n")
    assert read_labels(table, rows, TWO) == {"two/a.jpg": RIGHT}


def test_a_class_that_is_called_like_a_judgement_is_no_trap(tmp_path: Path) -> None:
    classes = (ClassLabel("c001", "left"), ClassLabel("c002", "right"))
    table = saved(tmp_path, "file,verified\na.jpg,right\n")
    with pytest.raises(RunError, match="write the class's id “c002”"):
        read_labels(table, ROWS, classes)
    same = saved(tmp_path, "file,verified\nb.jpg,right\na.jpg,c002\n")
    meant = {"images/b.jpg": Judgement("right", "c002"), "images/a.jpg": A_SHIBA}
    assert read_labels(same, ROWS, classes) == meant
    by_label = saved(tmp_path, "file,label\nb.jpg,right\na.jpg,right\n")
    assert read_labels(by_label, ROWS, classes) == meant


@pytest.mark.parametrize(
    "text", ["", "\n\n", "a.jpg,right\n", "file\na.jpg\n", "\0\1\2", "PK\3\4\0\0"]
)
def test_a_file_without_the_columns_is_refused_with_an_example(tmp_path: Path, text: str) -> None:
    with pytest.raises(RunError) as refused:
        read_labels(saved(tmp_path, text), ROWS, TWO)
    assert "file,verified" in refused.value.reason or "no text" in refused.value.reason
    assert "--help" in refused.value.remedy


def test_a_table_that_is_not_there_or_judges_nothing_is_refused(tmp_path: Path) -> None:
    for table in (tmp_path / "missing.csv", tmp_path):
        with pytest.raises(RunError, match="cannot be read"):
            read_labels(table, ROWS, TWO)
    assert "judges no picture" in refusal(tmp_path)


def test_judgements_are_kept_as_a_table_that_can_be_given_again(tmp_path: Path) -> None:
    judgements = {
        "images/a.jpg": Judgement("other class"),
        "images/b.jpg": Judgement("right", "c002"),
    }
    assert read_judgements(tmp_path) == {}
    write_judgements(tmp_path, judgements)
    assert (tmp_path / JUDGEMENTS_FILE).read_text().startswith("file,verified,label\n")
    assert read_judgements(tmp_path) == judgements
    assert read_labels(tmp_path / JUDGEMENTS_FILE, ROWS, THREE) == judgements


def test_kept_judgements_that_were_damaged_are_named(tmp_path: Path) -> None:
    for text in (
        "file,verified,label\nimages/a.jpg,perhaps,\n",
        "nothing\nhere\n",
        "file,verified\n\xff",
        "file,veri",
        "",
    ):
        (tmp_path / JUDGEMENTS_FILE).write_bytes(text.encode("latin-1"))
        with pytest.raises(RunError, match=r"verified\.csv cannot be read"):
            read_judgements(tmp_path)


def test_judgements_go_with_the_bytes_of_an_image_and_the_name_of_a_class(tmp_path: Path) -> None:
    earlier = [image(name, label=FOX if name == "f" else CORGI) for name in "abcdefg"]
    write_config(tmp_path, RunConfig(classes=THREE))
    write_manifest(tmp_path, earlier)
    write_judgements(
        tmp_path,
        {
            "images/a.jpg": RIGHT,
            "images/b.jpg": A_SHIBA,
            "images/c.jpg": Judgement("off-topic"),
            "images/d.jpg": Judgement("other class"),
            "images/e.jpg": Judgement("other class"),
            "images/f.jpg": Judgement("right", "c003"),
            "images/g.jpg": RIGHT,
        },
    )
    # corgi is the third class now, foxes are gone, b and d were relabelled
    now = (ClassLabel("c001", "Akita"), SHIBA, ClassLabel("c003", "corgi"))
    rows = [dataclasses.replace(row, file=f"moved/{row.file}", class_id="c003") for row in earlier]
    rows[1] = dataclasses.replace(rows[1], class_id="c002")
    rows[3] = dataclasses.replace(rows[3], class_id="c001")
    rows[6] = dataclasses.replace(rows[6], split="train")
    assert inherit_judgements(tmp_path, rows, now) == {
        "moved/images/a.jpg": Judgement("right", "c003"),
        "moved/images/b.jpg": Judgement("right", "c002"),
        "moved/images/c.jpg": Judgement("off-topic"),
        "moved/images/e.jpg": Judgement("other class"),
    }
    assert inherit_judgements(tmp_path / "none", rows, now) == {}


HEADERS = st.sampled_from(["file,verified", "file;verified", "image\tlabel", "file,verified,label"])
CELLS = st.one_of(
    st.sampled_from(
        ["a", "a.jpg", "images/b.jpg", "learned", *STATES, "corgi", "c003", "", '"', "'"]
    ),
    st.text(max_size=12),
)


@settings(max_examples=60, deadline=None)
@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda header, rows, encoding: (
                "\n".join([header, *(",".join(row) for row in rows)])
            ).encode(encoding, "replace"),
            HEADERS,
            st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=6),
            st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
        ),
    )
)
def test_whatever_a_table_holds_it_is_read_or_refused(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    table = tmp_path_factory.getbasetemp() / "any.csv"
    table.write_bytes(data)
    try:
        found = read_labels(table, ROWS, THREE)
    except RunError as refused:
        assert not {unicodedata.category(sign) for sign in refused.reason} & {"Cc", "Cs", "Zl"}
        assert refused.reason.endswith(".")
        return
    tested = {row.file for row in ROWS if row.split == "test"}
    assert found and set(found) <= tested


@settings(max_examples=30, deadline=None)
@given(said=st.lists(st.sampled_from(["right", "other", "off-topic", "", "corgi"]), min_size=1))
def test_what_is_written_by_a_program_is_read(
    said: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [image(f"picture {number}") for number in range(len(said))]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["file", "verified"])
    for row, value in zip(rows, said, strict=True):
        writer.writerow([row.file, value])
    table = saved(tmp_path_factory.getbasetemp(), text.getvalue())
    assert len(read_labels(table, rows, TWO)) == len(said)
