"""What holds for every command, found by its parser: a new one is held to it by itself."""

import argparse
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.management import call_command, find_commands, load_command_class
from django.core.management.base import CommandError

import picaisso_client
from scraping.__main__ import ENVIRONMENT, build_parser
from scraping.__main__ import main as scraping_main
from scraping.sources.catalogue import url_setting
from tests.demo.test_readme import NAME, READERS, names_read
from training.__main__ import _parser as training_parser
from training.__main__ import main as training_main

ROOT = Path(__file__).resolve().parents[1]
# Commands without `--json` and `--quiet`, and why.
WITHOUT_RESULTS = {
    "manage.py up": "it serves until it is stopped, and prints where",
    "manage.py mcp": "standard output belongs to the protocol",
    "manage.py move_database": "it says in a line what it has moved",
}
HEAVY = {"torch", "torchvision", "selenium", "aiohttp", "sklearn", "onnxruntime", "django"}


def subcommands(make: Callable[[], argparse.ArgumentParser]) -> dict[str, argparse.ArgumentParser]:
    found = {}
    for action in make()._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= {parser.prog: parser for parser in action.choices.values()}
    return found


def site_commands() -> dict[str, argparse.ArgumentParser]:
    found = {}
    for name in find_commands(str(ROOT / "requests_app" / "management")):
        command = load_command_class("requests_app", name)
        parser = command.create_parser("manage.py", name)
        parser.called_from_command_line = True
        found[f"manage.py {name}"] = parser
    return found


PARSERS = (
    subcommands(build_parser)
    | subcommands(training_parser)
    | subcommands(picaisso_client._parser)
    | site_commands()
)
NUMBERS = [
    (name, action.option_strings[0])
    for name, parser in PARSERS.items()
    for action in parser._actions
    if action.option_strings and action.type not in (None, str, Path)
]


def flags(parser: argparse.ArgumentParser) -> set[str]:
    return {text for action in parser._actions for text in action.option_strings}


def positionals(parser: argparse.ArgumentParser) -> list[str]:
    """As many words as the command needs besides its flags, and the flags it cannot do without."""
    words: list[str] = []
    for action in parser._actions:
        if action.option_strings and action.required:
            words += [action.option_strings[0], next(iter(action.choices or ["x"]))]
        elif not action.option_strings and action.nargs not in ("?", "*"):
            words.append("x")
    return words


def test_all_commands_are_found():
    programs = {name.rpartition(" ")[0] for name in PARSERS}
    assert programs == {
        "python -m scraping",
        "python -m training",
        "python -m picaisso_client",
        "manage.py",
    }
    assert {"python -m scraping replay", "python -m training fit", "manage.py up"} <= set(PARSERS)
    assert set(WITHOUT_RESULTS) <= set(PARSERS)


@pytest.mark.parametrize("name", PARSERS)
def test_the_help_says_what_it_does_and_has_an_example(name):
    parser = PARSERS[name]
    shown = parser.format_help()
    assert parser.description
    assert "xample" in shown or "An agent starts it" in shown
    if name != "manage.py mcp":  # an agent starts it
        assert name in shown.partition("example")[2]


@pytest.mark.parametrize("name", PARSERS)
def test_it_prints_json_where_asked_and_is_quiet_where_asked(name):
    missing = {"--json", "--quiet"} - flags(PARSERS[name])
    assert bool(missing) == (name in WITHOUT_RESULTS), missing


@pytest.mark.parametrize("name", PARSERS)
def test_a_wrong_flag_is_wrong_usage_and_named(name, capsys):
    parser = PARSERS[name]
    with pytest.raises(SystemExit) as ended:
        parser.parse_args([*positionals(parser), "--no-such-flag"])
    assert ended.value.code == 2
    assert "--no-such-flag" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("name", "flag"), NUMBERS)
def test_a_wrong_value_is_wrong_usage_and_its_flag_is_named(name, flag, capsys):
    parser = PARSERS[name]
    wrong = "\x00" if flag == "--kind" else "/no/such/thing"
    with pytest.raises(SystemExit) as ended:
        parser.parse_args([*positionals(parser), flag, wrong])
    assert ended.value.code == 2
    assert f"argument {flag}" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (("scraping", "collect", "x", "--out", "o", "--limit", "0"), "--limit"),
        (
            ("scraping", "replay", "recipe.json", "--out", "o", "--concurrency", "0"),
            "--concurrency",
        ),
        (("training", "fit", "run", "--backbone", "vgg"), "--backbone"),
        (("training", "predict", "run", "a.jpg", "--device", "tpu"), "--device"),
    ],
)
def test_wrong_usage_is_told_before_anything_heavy_is_loaded(arguments, flag, tmp_path):
    package, *words = arguments
    code = (
        f"import sys\nfrom {package}.__main__ import main\n"
        f"try:\n    main({words!r})\n"
        f"except SystemExit as ended:\n    print(ended.code, {HEAVY!r} & set(sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "2 set()\n"
    assert f"argument {flag}" in ended.stderr.splitlines()[-1]


def test_a_flag_names_the_variable_that_it_wins_over():
    """And every variable that a help names is read."""
    helps = {name: parser.format_help() for name, parser in PARSERS.items()}
    collect = PARSERS["python -m scraping collect"]
    by_key = {action.dest: action.help or "" for action in collect._actions}
    for variable, key, _read in ENVIRONMENT:
        assert variable in by_key[key], f"the flag for {key} does not name {variable}"
    assert url_setting("openverse") in by_key["urls"]
    read = set().union(*(names_read(path) for path in READERS))
    read |= names_read("picaisso_client.py") | {"PICAISSO_SITE"}
    for name, shown in helps.items():
        named = set(re.findall(NAME, shown))
        assert named <= read, f"{name} names what nobody reads"


@pytest.fixture
def taken_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("main", "arguments", "words"),
    [
        (scraping_main, "collect {no}", "names need --out"),
        (scraping_main, "collect {here}", "There is no config.json in {here}."),
        (scraping_main, "download {no}.txt --out {here}/o", "There is no {no}.txt."),
        (scraping_main, "replay {no}.json --out {here}/o", "There is no {no}.json."),
        (scraping_main, "screen {no} --out {here}/o", "{no} is no folder."),
        (scraping_main, "gallery {no}", "{no} is no folder."),
        (scraping_main, "gallery {here} --port {port}", "127.0.0.1:{port} is taken by another"),
        (scraping_main, "gallery {here} --host 192.0.2.1", "192.0.2.1:8001 is no address of this"),
        (training_main, "fit {no}", "The run folder {no} does not exist."),
        (training_main, "fit --images {no} --out {here}/o", "{no} is no folder."),
        (training_main, "first {no}", "{no} is no run folder"),
        (training_main, "verify {no} {no}.csv", "{no} is no run folder"),
        (training_main, "measure {no} {here}", "{no} is no run folder"),
        (training_main, "predict {no} a.jpg", "{no} is neither a finished run folder nor"),
        (
            picaisso_client.main,
            "status X --site http://127.0.0.1:1",
            "http://127.0.0.1:1 could not be",
        ),
    ],
)
def test_a_refusal_is_one_sentence_that_names_the_thing(
    main, arguments, words, taken_port, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(picaisso_client, "ATTEMPTS", 1)
    names = {"no": tmp_path / "nothing", "here": tmp_path, "port": taken_port}
    try:
        code = main([word.format(**names) for word in arguments.split()])
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr()
    assert code == (2 if "--out" in words else 1) and not said.out
    assert words.format(**names) in said.err.splitlines()[-1]
    assert code == 2 or said.err.count("\n") == 1


def test_a_site_says_where_it_cannot_listen(taken_port):
    with pytest.raises(CommandError, match=f"127.0.0.1:{taken_port} is taken by another program"):
        call_command("up", port=taken_port)
