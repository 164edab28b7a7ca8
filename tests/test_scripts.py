"""The scripts that `make lint` runs find what they are there to find."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def checkout(tmp_path):
    """The scripts and the requirements, in a folder where they may be changed."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for name in ("requirements.txt", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def run(checkout: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(checkout / "scripts" / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_lock_agrees_with_the_requirements(checkout):
    assert run(checkout, "lock.py", "--check").returncode == 0


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("requirements.txt", "numpy==", "numpy==9"),
        ("requirements.txt", "numpy==", "numpydoc==1.0\nnumpy=="),
        ("requirements.lock", "numpy==", "numpy==9"),
    ],
)
def test_a_lock_that_disagrees_is_noticed(checkout, file, old, new):
    path = checkout / file
    path.write_text(path.read_text().replace(old, new, 1))
    ended = run(checkout, "lock.py", "--check")
    assert ended.returncode == 1
    assert "requirements.lock" in ended.stderr


def test_a_comment_in_the_requirements_needs_no_new_lock(checkout):
    path = checkout / "requirements.txt"
    path.write_text("# another comment\n" + path.read_text())
    assert run(checkout, "lock.py", "--check").returncode == 0


DENSE = "def f(a):\n    return [g(x.y(z)[0]) + h(x, y=x * 2, z=-x) for x in a if x and x.y != 3]\n"
PLAIN = 'def f(a):\n    """Return the double."""\n    doubled = 2 * a\n    return doubled\n'
EXCHANGE = "def f(a, b):\n    a, b = b, a\n    print(a)\n    print(b)\n"


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (PLAIN, None),
        (EXCHANGE, None),
        (DENSE, "syntax nodes a line"),
        ("def f():\n    a, b = 1, 2\n    print(a)\n    print(b)\n", "several things at once"),
        ("def f(a):\n    b = 1 if a else 2 if b else 3\n    return b\n", "nests conditional"),
        ("def f():\n" + "    print(1)\n" * 81, "has 82 lines"),
    ],
)
def test_code_that_reads_badly_is_noticed(checkout, code, problem):
    (checkout / "scraping").mkdir()
    (checkout / "scraping" / "example.py").write_text(code)
    ended = run(checkout, "prose.py")
    if problem is None:
        assert (ended.returncode, ended.stderr) == (0, "")
    else:
        assert ended.returncode == 1
        assert problem in ended.stderr


def test_density_is_counted_as_the_page_about_it_says():
    """Nodes of bodies, docstrings aside, for each line on which one begins; see the docstring."""
    import ast

    spec = importlib.util.spec_from_file_location("prose", ROOT / "scripts" / "prose.py")
    prose = importlib.util.module_from_spec(spec)
    sys.modules["prose"] = prose
    spec.loader.exec_module(prose)
    function = ast.parse(PLAIN).body[0]
    # doubled = 2 * a: Assign, Name, Store, BinOp, Constant, Mult, Name, Load; return: 3 more
    assert prose.body_size(function) == (11, 2)
