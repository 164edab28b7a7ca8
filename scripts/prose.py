"""Measure how easily the code reads, and fail where it is denser than the house allows.

    python scripts/prose.py            the figures, and a line for each thing that is not allowed
    python scripts/prose.py --detail   also the densest functions and short helpers

Density: syntax nodes of function bodies, docstrings aside, for each source line on which any of
them begins. For comparison: httpx 7.3, healthchecks 8.2, img2dataset 8.3, timm 9.5.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("scraping", "training", "requests_app")
READERS = (*PACKAGES, "picaisso_site", "benchmarks", "tests")  # where a helper may be called
MAX_DENSITY = 10.0
MAX_FUNCTION_LINES = 80
SHORT_LINES = 5
DENSEST_SHOWN = 25

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Figures:
    """What is counted in a package."""

    modules: int = 0
    imports: int = 0
    functions: int = 0
    nodes: int = 0
    lines: int = 0
    problems: list[str] = field(default_factory=list)
    dense: list[tuple[float, str]] = field(default_factory=list)
    one_caller: list[str] = field(default_factory=list)

    @property
    def density(self) -> float:
        return self.nodes / max(self.lines, 1)


def source_files(package: str) -> list[Path]:
    """Return a package's modules, without what Django writes and what is delivered to people."""
    paths = sorted((ROOT / package).rglob("*.py"))
    return [path for path in paths if not set(path.parts) & {"migrations", "assets"}]


def outermost_functions(node: ast.AST) -> Iterator[Function]:
    """Yield functions and methods, but not the functions inside them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield child
        else:
            yield from outermost_functions(child)


def body_size(function: Function) -> tuple[int, int]:
    """Return the number of syntax nodes of a body and of the lines on which they begin."""
    has_docstring = ast.get_docstring(function, clean=False) is not None
    statements = function.body[1:] if has_docstring else function.body
    nodes = [node for statement in statements for node in ast.walk(statement)]
    lines = {node.lineno for node in nodes if hasattr(node, "lineno")}
    return len(nodes), len(lines)


def is_packed(node: ast.AST) -> bool:
    """Tell whether a statement assigns several values at once; exchanging values is allowed."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
        return False
    target = node.targets[0]
    if not isinstance(target, ast.Tuple):
        return False
    given = {ast.unparse(value) for value in node.value.elts}
    taken = {ast.unparse(value) for value in target.elts}
    return given != taken


def is_nested_conditional(node: ast.AST) -> bool:
    """Tell whether a conditional expression holds another one."""
    if not isinstance(node, ast.IfExp):
        return False
    return any(isinstance(child, ast.IfExp) for child in ast.walk(node) if child is not node)


def count_uses() -> Counter[str]:
    """Count how often each name is read, called or accessed anywhere."""
    uses: Counter[str] = Counter()
    for package in READERS:
        for path in source_files(package):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Name):
                    uses[node.id] += 1
                elif isinstance(node, ast.Attribute):
                    uses[node.attr] += 1
    return uses


def measure(package: str, uses: Counter[str]) -> Figures:
    """Count a package's figures and list what is not allowed in it."""
    figures = Figures()
    for path in source_files(package):
        tree = ast.parse(path.read_text())
        name = path.relative_to(ROOT)
        figures.modules += path.name != "__init__.py"
        figures.imports += len(imported_modules(tree, package))
        for function in outermost_functions(tree):
            measure_function(function, f"{name}:{function.lineno} {function.name}", uses, figures)
        for node in ast.walk(tree):
            where = f"{name}:{getattr(node, 'lineno', 0)}"
            if is_packed(node):
                figures.problems.append(f"{where} assigns several things at once")
            if is_nested_conditional(node):
                figures.problems.append(f"{where} nests conditional expressions")
    if figures.density > MAX_DENSITY:
        sentence = f"{package} has {figures.density:.1f} syntax nodes a line"
        figures.problems.append(f"{sentence}; at most {MAX_DENSITY:.1f} are allowed")
    return figures


def imported_modules(tree: ast.Module, package: str) -> set[str]:
    """Return the modules of the same package that a module imports."""
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(package + "."):
            modules.add(node.module or "")
    return modules


def measure_function(function: Function, where: str, uses: Counter[str], into: Figures) -> None:
    nodes, lines = body_size(function)
    into.functions += 1
    into.nodes += nodes
    into.lines += lines
    if lines > 1:
        into.dense.append((nodes / lines, where))
    is_called_by_name = not function.name.startswith("__") and not function.decorator_list
    if lines < SHORT_LINES and is_called_by_name and uses[function.name] == 1:
        into.one_caller.append(where)
    length = (function.end_lineno or function.lineno) - function.lineno + 1
    if length > MAX_FUNCTION_LINES:
        into.problems.append(f"{where} has {length} lines; at most {MAX_FUNCTION_LINES} are read")


def print_table(found: dict[str, Figures]) -> None:
    head = f"{'package':14}{'modules':>9}{'imports':>9}{'functions':>11}"
    print(f"{head}{'short helpers of one caller':>29}{'nodes a line':>14}")
    for package, figures in found.items():
        counts = f"{figures.modules:>9}{figures.imports:>9}{figures.functions:>11}"
        print(f"{package:14}{counts}{len(figures.one_caller):>29}{figures.density:>14.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--detail", action="store_true", help="list functions, densest first")
    options = parser.parse_args()

    uses = count_uses()
    found = {package: measure(package, uses) for package in PACKAGES}
    print_table(found)
    if options.detail:
        dense = [entry for figures in found.values() for entry in figures.dense]
        for density, where in sorted(dense, reverse=True)[:DENSEST_SHOWN]:
            print(f"dense {density:5.1f}  {where}")
        for figures in found.values():
            for where in figures.one_caller:
                print(f"short, one caller  {where}")
    problems = [problem for figures in found.values() for problem in figures.problems]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
