"""What holds for all tests."""

import signal
import sys
from collections.abc import Iterator

import pytest

from tests.leaks import Leaks, describe, use_own_temporary_folder

# The background of a shell hands down that interrupts are ignored. What tests start would inherit
# that, and some of it they interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Elsewhere there is no /proc to look into.
leaks = Leaks(use_own_temporary_folder()) if sys.platform == "linux" else None


found_leaks: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--leaks", choices=("report", "fail"), default="report", help="what a leak of a test does"
    )


def report_leak(request: pytest.FixtureRequest, sentence: str) -> None:
    """Say in the summary what a test has left behind; with ``--leaks=fail`` fail it."""
    found_leaks.append(f"{request.node.nodeid}: {sentence}")
    if request.config.getoption("--leaks") == "fail":
        pytest.fail(sentence, pytrace=False)


def pytest_sessionstart(session: pytest.Session) -> None:
    if leaks is not None:
        leaks.install()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if found_leaks:
        terminalreporter.section(f"{len(found_leaks)} tests left something behind")
        for sentence in found_leaks:
            terminalreporter.line(sentence)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef, request):
    """What a fixture of a wider scope starts is ended by that fixture, not by the test."""
    if leaks is None or fixturedef.scope == "function":
        return (yield)
    with leaks.belonging_to_a_fixture():
        return (yield)


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Report a test that leaves a thread, process, open file or temporary file behind.

    With ``--leaks=fail`` it fails.
    """
    yield
    if leaks is None:
        return
    left = leaks.new(has_server="live_server" in request.fixturenames)
    leaks.accept()
    if left:
        report_leak(request, describe(left))
