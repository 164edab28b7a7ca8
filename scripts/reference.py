"""Write the generated parts of docs/reference: commands, calls of the API, columns and keys.

    python scripts/reference.py           writes them
    python scripts/reference.py --check   fails where a page does not agree with the code

A generated part stands between `<!-- NAME: scripts/reference.py -->` and `<!-- end -->`; what is
around it is written by hand.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "reference"
WIDTH = "96"
PART = re.compile(r"(<!-- ([\w.]+): scripts/reference.py -->\n).*?(\n<!-- end -->)", re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python scripts/reference.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="picaisso-reference-") as scratch:
        set_up_django(scratch)
        stale = write_pages(options.check)
    if options.check and stale:
        print(f"Not as the code: {', '.join(stale)}. Run python scripts/reference.py.")
        return 1
    return 0


def set_up_django(scratch: str) -> None:
    """Settings of the machine must not show: every default is the one of the code."""
    for name in list(os.environ):
        if name.startswith("PICAISSO_") or name in ("DATABASE_URL", "EMAIL_URL"):
            del os.environ[name]
    sys.path.insert(0, str(ROOT))
    os.environ |= {
        "COLUMNS": WIDTH,
        "DJANGO_SETTINGS_MODULE": "picaisso_site.settings",
        "PICAISSO_ENV_FILE": os.devnull,
        "PICAISSO_DATA_DIR": scratch,
    }
    import django

    django.setup()


def write_pages(check: bool) -> list[str]:
    """Return the names of the pages whose generated parts differ from the code."""
    stale = []
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text()
        renewed = PART.sub(lambda part: part[1] + PARTS[part[2]]() + part[3], text)
        if renewed == text:
            continue
        stale.append(page.name)
        if not check:
            page.write_text(renewed)
    return stale


# --- commands ---


def commands() -> str:
    import picaisso_client
    from scraping.__main__ import build_parser
    from training.__main__ import _parser as training_parser

    parsers = [build_parser(), training_parser(), picaisso_client._parser()]
    sections = []
    for parser in parsers:
        sections += [help_of(each) for each in with_subcommands(parser)]
    return "\n\n".join(sections + site_commands())


def with_subcommands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def site_commands() -> list[str]:
    from django.core.management import find_commands, load_command_class
    from django.core.management.base import DjangoHelpFormatter

    sections = []
    for name in sorted(find_commands(str(ROOT / "requests_app" / "management"))):
        parser = load_command_class("requests_app", name).create_parser("manage.py", name)
        for action in parser._actions:
            # Django's own, the same for each command.
            if set(action.option_strings) & DjangoHelpFormatter.show_last:
                action.help = argparse.SUPPRESS
        sections.append(help_of(parser))
    return sections


def help_of(parser: argparse.ArgumentParser) -> str:
    return f"## {parser.prog}\n\n```text\n{parser.format_help().rstrip()}\n```"


# --- the API ---


def calls() -> str:
    from requests_app.api.endpoints import api

    rows = ["| call | does | answers |", "|---|---|---|"]
    for path, methods in api.get_openapi_schema()["paths"].items():
        for method, call in methods.items():
            answers = ", ".join(str(code) for code in call["responses"] if int(code) < 400)
            rows.append(f"| `{method.upper()} {path}` | {sentence_of(call)} | {answers} |")
    return "\n".join(rows)


def sentence_of(call: dict[str, Any]) -> str:
    text = call.get("description") or call["summary"]
    first = text.split("\n\n")[0]
    return " ".join(first.split())


# --- files ---


def image_columns() -> str:
    from requests_app.delivery.tables import IMAGE_COLUMNS

    return ", ".join(f"`{column}`" for column in IMAGE_COLUMNS)


def rejected_columns() -> str:
    from requests_app.delivery.tables import REJECTED_COLUMNS

    return ", ".join(f"`{column}`" for column in REJECTED_COLUMNS)


def terms() -> str:
    from scraping.sources.catalogue import CATALOGUE
    from scraping.sources.terms import TERMS

    rows = ["| source | its terms in a sentence | how they are known |", "|---|---|---|"]
    for name, each in TERMS.items():
        rows.append(f"| [{CATALOGUE[name].label}]({each.url}) | {each.sentence} | {each.when} |")
    return "\n".join(rows)


def reasons() -> str:
    rows = ["| reason | why |", "|---|---|"]
    for target, _, text in documented_fields("scraping/reasons.py", "Reason"):
        rows.append(f"| `{target.lower()}` | {text} |")
    return "\n".join(rows)


def metrics() -> str:
    rows = ["| key | type | holds |", "|---|---|---|"]
    for key, kind, text in nested_fields("Metrics"):
        shown = kind.replace("|", "\\|")
        rows.append(f"| `{key}` | `{shown}` | {text} |")
    return "\n".join(rows)


def nested_fields(name: str, above: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield the fields of a class of `training/metrics.py`, each followed by its own fields."""
    module = "training/metrics.py"
    tree = ast.parse((ROOT / module).read_text())
    known = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for key, annotation, text in documented_fields(module, name):
        kind = re.sub(r"^NotRequired\[(.*)\]$", r"\1", annotation)
        inner = next((word for word in re.findall(r"\w+", kind) if word in known), None)
        if inner is None:
            yield above + key, kind, text
            continue
        summary = (ast.get_docstring(known[inner]) or "").split("\n\n")[0]
        shown = kind.replace(inner, "object")
        yield above + key, shown, text or " ".join(summary.split())
        within = {"list": f"{key}[].", "dict": f"{key}.*."}.get(kind.split("[")[0], f"{key}.")
        yield from nested_fields(inner, above + within)


def documented_fields(module: str, name: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, type and docstring of each field of a class, those of its bases first."""
    tree = ast.parse((ROOT / module).read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    chosen = classes[name]
    for base in chosen.bases:
        if isinstance(base, ast.Name) and base.id in classes:
            yield from documented_fields(module, base.id)
    for field, after in zip(chosen.body, [*chosen.body[1:], None], strict=True):
        text = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            text = " ".join(str(after.value.value).split())
        if isinstance(field, ast.AnnAssign):
            yield ast.unparse(field.target), ast.unparse(field.annotation), text
        elif isinstance(field, ast.Assign):
            yield ast.unparse(field.targets[0]), "", text


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "calls": calls,
    "images.csv": image_columns,
    "rejected.csv": rejected_columns,
    "reasons": reasons,
    "terms": terms,
    "metrics.json": metrics,
}

if __name__ == "__main__":
    sys.exit(main())
