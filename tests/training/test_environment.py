"""The reader of settings accepts what django-environ accepts, and names a file it cannot read."""

import os
from pathlib import Path

import environ
import pytest
from environ.fileaware_mapping import FileAwareMapping
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.environment import EnvironmentFileError, parse_dotenv, read_environment

UNSET = "nothing sets it"
NAMES = st.sampled_from(["A", "B", "PICAISSO_KEY", "a1_"])
PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            ['"', "'", "\\", "#", "=", "$", " ", "\t", "\\n", "\\'", '\\"', "A", "$B", "export "]
        ),
        st.characters(codec="utf-8", exclude_characters="\r\n"),
    ),
    max_size=8,
).map("".join)
QUOTED = st.tuples(st.sampled_from(["", "'", '"']), PIECES).map(lambda it: it[0] + it[1] + it[0])
ASSIGNMENTS = st.tuples(st.sampled_from(["", "export ", " "]), NAMES, QUOTED).map(
    lambda it: f"{it[0]}{it[1]}={it[2]}"
)
FILES = st.lists(st.one_of(ASSIGNMENTS, PIECES), max_size=6).map("\n".join)


def reference(path: Path, variables: dict[str, str]) -> environ.Env:
    """django-environ, reading the same file and variables."""

    class Reference(environ.Env):
        ENVIRON = FileAwareMapping(dict(variables))

    Reference.read_env(path)
    return Reference()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(FILES, st.dictionaries(NAMES, st.sampled_from(["", "set", "x y"]), max_size=2))
def test_files_and_variables_mean_what_they_mean_to_the_site(tmp_path, text, variables):
    file = tmp_path / ".env"
    file.write_text(text, encoding="utf-8")
    site = reference(file, variables)
    ours = read_environment(variables, file)
    for name in ("A", "B", "PICAISSO_KEY", "a1_", "missing"):
        try:
            expected = site.str(name, UNSET)
        except RecursionError:  # a setting that names itself; ours is then not set
            expected = UNSET
        assert ours.get(name, UNSET) == expected


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("NAME=plain", "plain"),
        ("export NAME=plain", "plain"),
        ("NAME=", ""),
        ("NAME=a # b", "a # b"),
        ("NAME='it is # \"so\"'", 'it is # "so"'),
        (r'NAME="a\"b\\c\n"', r'a"b\c\n'),
        ("NAME=one\nNAME=two", "two"),
        ("# NAME=other\nNAME=one", "one"),
    ],
)
def test_a_line_is_read_as_the_syntax_says(line, value):
    assert parse_dotenv(line) == {"NAME": value}


def test_lines_of_other_kinds_set_nothing():
    text = "A=1\n#B=2\nexport C=\"x y\"\nD='it=s'\nbroken\n E = f \n"
    assert parse_dotenv(text) == {"A": "1", "C": "x y", "D": "it=s"}


def test_the_environment_wins_over_the_file(tmp_path):
    file = tmp_path / "named"
    file.write_text("A=file\nB=file\n")
    ours = read_environment({"A": "", "PICAISSO_ENV_FILE": str(file)}, tmp_path / ".env")
    assert (ours["A"], ours["B"]) == ("", "file")
    assert ours.variables["B"] == "file"


def test_a_name_file_holds_the_value_and_wins_over_the_name(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    (tmp_path / ".env").write_text(f"KEY_FILE={secret}\n")
    ours = read_environment({"KEY": "other", "EMPTY": "kept", "EMPTY_FILE": ""}, tmp_path / ".env")
    assert (ours["KEY"], ours["EMPTY"]) == ("s3cret", "kept")
    assert {"KEY", "KEY_FILE", "EMPTY"} <= set(ours)
    assert len(ours) == len(set(ours))


def test_a_file_that_can_be_read_only_once_is_read_once(tmp_path):
    reader, writer = os.pipe()
    os.write(writer, b"once")
    os.close(writer)
    ours = read_environment({"KEY_FILE": f"/dev/fd/{reader}"}, tmp_path / "none")
    assert (ours["KEY"], ours["KEY"]) == ("once", "once")
    os.close(reader)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, content):
    file = tmp_path / "named"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(EnvironmentFileError, match=r"^The file .*named, which .* names, .*\.$"):
        read_environment({"PICAISSO_ENV_FILE": str(file)}, tmp_path / ".env")
    with pytest.raises(EnvironmentFileError, match="which KEY_FILE names"):
        read_environment({"KEY_FILE": str(file)}, tmp_path / ".env").get("KEY")


def test_a_relative_file_is_found_by_processes_that_work_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "settings").write_text("PICAISSO_DEVICE=cpu\n")
    monkeypatch.chdir(tmp_path)
    inherited = read_environment({"PICAISSO_ENV_FILE": "settings"}, Path(".env")).variables
    monkeypatch.chdir("/")
    assert read_environment(inherited, Path(".env"))["PICAISSO_DEVICE"] == "cpu"


def test_no_file_at_all_is_fine(tmp_path):
    assert read_environment({"A": "1"}, tmp_path / ".env")["A"] == "1"
    assert read_environment({"PICAISSO_ENV_FILE": ""}, tmp_path / ".env").get("A") is None
