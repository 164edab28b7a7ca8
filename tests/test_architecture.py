"""The floors of the house: who may import whom, read from the source and proven by bare
interpreters.

Each package is a list of floors from the bottom up, each floor a line of entries: modules that lie
flat, or rooms (sub-packages). A module imports from its own room and from lower floors only. The
picture and the reasons are in docs/architecture.md.
"""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
DJANGO = {"django", "django_q", "django_htmx", "csp", "environ", "whitenoise", "email_validator"}
TORCH = {"torch", "torchvision"}
PACKAGES = ("picaisso_site", "requests_app", "scraping", "training")

FLOORS = {
    "training": """
        run_folder duplicates environment class_names text_files terminal earlier_metrics log_lines
        phrases
        explanations judgements meanings
        metrics progress
        predictions spliced
        comparison
        images
        networks
        finetuning predict locations text_image
        fitting
        evaluation
        export
        verification
        run takedown first_model measure
        __main__
    """,
    "scraping": """
        urls files reasons outside gallery terminal refused_digests kinds picture_zip
        screening recipe
        net
        sources
        config
        supplied
        search screen_folder
        records health
        download
        download_list
        collect replay
        cli
        __main__
    """,
    "requests_app": """
        phrases text_rules steady visitors digests class_policy
        models
        workers delivery
        mail first_model estimate better_words supplied health backup repeats
        versions result_mail prediction privacy limits doctor
        takedowns curation shortage sharing links
        own_pictures
        own_check
        pipeline meanings
        lifecycle
        forms demo dashboard agent_tools
        views
        api admin tasks management
        urls templatetags apps web_server
    """,
    "picaisso_site": """
        settings checks static_files apps redaction
        urls wsgi
    """,
}
# What a package, or a part of it, may import from the other packages; anything else is refused.
AGREED = {
    "training": set(),
    "scraping": {
        "training.duplicates",
        "training.environment",
        "training.log_lines",
        "training.class_names",
        "training.text_files",
        "training.terminal",
    },
    "picaisso_site": {
        "training.environment",
        "training.log_lines",
        "training.networks.catalogue",
        "scraping.sources.catalogue",
        "scraping.refused_digests",
        "requests_app.models",
        "requests_app.class_policy",
        # Which encodings of a body are text: asked before Django reads any of it.
        "requests_app.views.body_limits",
    },
    "requests_app": {
        "training.run_folder",
        "training.log_lines",
        "training.terminal",
        "training.earlier_metrics",
        "training.phrases",
        "training.environment",
        "training.class_names",
        "training.metrics",
        "training.judgements",
        "training.takedown",
        "training.predictions",
        "training.spliced",
        "training.comparison",
        "training.verification",
        "training.explanations",
        "training.meanings",
        "training.networks.catalogue",
        "training.predict",
        "training.duplicates",
        "training.images.decode",
        "training.text_files",
        "scraping.urls",
        "scraping.reasons",
        "scraping.refused_digests",
        "scraping.recipe",
        "scraping.kinds",
        "scraping.picture_zip",
        "scraping.supplied",
        "scraping.net.http",
        "scraping.net.opt_out",
        "scraping.screening",
        "scraping.sources.catalogue",
        "scraping.sources.licenses",
        "scraping.sources.terms",
        "scraping.sources.wikidata",
        "picaisso_site",
    },
}
# Narrower than the floors say: a module or room, and what it must never import.
NEVER = {
    "requests_app.models": {
        "requests_app.text_rules",
        "training.run_folder",
        "training.predict",
        "training.takedown",
        "scraping.net",
    },
    "requests_app.workers": {
        "training.run_folder",
        "training.metrics",
        "training.phrases",
        "training.takedown",
        "scraping.net",
        "scraping.urls",
        "scraping.reasons",
    },
    # What a person gives the model is fetched and classified in one place, `prediction`.
    "requests_app.views": {
        "requests_app.workers.jobs",
        "requests_app.tasks",
        "requests_app.admin",
        "scraping.net",
    },
    "requests_app.pipeline": {"scraping.net", "training.predict"},
    "requests_app.admin": {"requests_app.workers.jobs", "requests_app.tasks", "requests_app.views"},
    "requests_app.tasks": {"requests_app.views", "requests_app.admin"},
}
# The packages of others that a room may load when it is imported, besides the standard library.
PILLOW = {"PIL", "numpy"}
MAY_LOAD = {
    "training.run_folder": set(),
    "training.phrases": set(),
    "training.earlier_metrics": set(),
    "training.environment": set(),
    "training.text_files": set(),
    "training.terminal": set(),
    "training.log_lines": set(),
    "training.class_names": set(),
    "training.networks.catalogue": set(),
    "training.judgements": set(),
    "training.meanings": set(),
    "training.duplicates": PILLOW,
    "training.explanations": PILLOW,
    "training.metrics": PILLOW,
    "training.progress": PILLOW,
    "training.predictions": PILLOW,
    "training.spliced": set(),
    "training.comparison": PILLOW,
    "training.images": PILLOW,
    "training.predict": PILLOW | {"onnxruntime"},
    "training.locations": PILLOW,
    "training.text_image": PILLOW,
    "training.verification": PILLOW | {"jinja2"},
    "training.takedown": PILLOW | {"jinja2"},
    "training.networks": PILLOW | TORCH,
    "training.finetuning": PILLOW | TORCH,
    "scraping.urls": {"yarl"},
    "scraping.files": set(),
    "scraping.reasons": set(),
    "scraping.kinds": set(),
    "scraping.picture_zip": set(),
    "scraping.refused_digests": set(),
    "scraping.recipe": {"yarl"},
    "scraping.sources.catalogue": set(),
    "scraping.sources.terms": set(),
    "scraping.screening": PILLOW | {"defusedxml", "cbor2"},
    "scraping": PILLOW
    | {"selenium", "urllib3", "aiohttp", "yarl", "multidict", "protego", "psutil", "rich"},
}
ENVIRONMENT_READERS = {
    "picaisso_site/settings.py",
    "scraping/__main__.py",
    "training/__main__.py",
    # These hand the environment on to processes they start, and read nothing that people configure.
    "requests_app/workers/processes.py",
    "requests_app/workers/supervisor.py",
    "requests_app/demo/scenario.py",
    "scraping/net/browser.py",
    "scraping/screening/pool.py",
    # These only switch telemetry off.
    "training/__init__.py",
    "training/export/assets/predict.py",
    "picaisso_site/wsgi.py",
}


@cache
def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((PROJECT / package).rglob("*.py"))]


def module_name(path: Path) -> str:
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    return {module_name(path): path for path in sources() if "assets" not in path.parts}


def imported_names(path: Path, *, at_import_only: bool = False) -> set[str]:
    """Dotted names a file imports; with `at_import_only` those inside functions and those for the
    type checker alone are not counted.
    """
    tree = ast.parse(path.read_text())
    nodes = tree.body if at_import_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported_modules(path: Path) -> set[str]:
    """Our own modules that a file imports, each by its whole dotted name."""
    found = set()
    for name in imported_names(path):
        if name.split(".")[0] in PACKAGES:
            found.add(name if name in modules() else name.rpartition(".")[0])
    return found


def is_within(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def floor_of(module: str) -> int:
    """The floor of a module's entry, from 1; 0 for the package itself."""
    package, _, inside = module.partition(".")
    entry = inside.split(".")[0]
    if not entry:
        return 0
    floors = [line.split() for line in FLOORS[package].strip().splitlines()]
    numbers = [number for number, entries in enumerate(floors, 1) if entry in entries]
    assert len(numbers) == 1, f"{module} stands on {len(numbers)} floors of the table, not on one"
    return numbers[0]


def entry_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def own_modules(package: str) -> dict[str, Path]:
    found = {name: path for name, path in modules().items() if is_within(name, package)}
    return {name: path for name, path in found.items() if ".migrations" not in name}


@pytest.mark.parametrize("package", FLOORS)
def test_nobody_imports_from_a_higher_floor_or_from_a_neighbour(package):
    wrong = []
    for module, path in own_modules(package).items():
        for imported in imported_modules(path):
            if not is_within(imported, package) or entry_of(imported) == entry_of(module):
                continue
            if floor_of(imported) >= floor_of(module):
                wrong.append(f"{module} imports {imported}")
    assert wrong == []


@pytest.mark.parametrize("package", FLOORS)
def test_every_entry_of_the_table_exists(package):
    entries = {entry_of(module) for module in own_modules(package) if module != package}
    assert {f"{package}.{entry}" for entry in FLOORS[package].split()} == entries


@pytest.mark.parametrize("package", FLOORS)
def test_no_room_holds_a_circle_of_imports(package):
    arrows = {
        module: {found for found in imported_modules(path) if found != module}
        for module, path in own_modules(package).items()
    }
    while True:
        free = {module for module, found in arrows.items() if not found & arrows.keys()}
        if not free:
            break
        for module in free:
            del arrows[module]
    assert arrows == {}, "these import each other in a circle"


@pytest.mark.parametrize("package", AGREED)
def test_only_the_agreed_parts_of_another_package_are_used(package):
    wrong = []
    for module, path in own_modules(package).items():
        for imported in imported_modules(path):
            is_own = is_within(imported, package)
            is_agreed = any(is_within(imported, part) for part in AGREED[package])
            if not is_own and not is_agreed:
                wrong.append(f"{module} imports {imported}")
    assert wrong == []


@pytest.mark.parametrize("part", NEVER)
def test_nobody_imports_what_is_kept_from_them(part):
    wrong = []
    for module, path in own_modules(part).items():
        for imported in imported_modules(path):
            if any(is_within(imported, forbidden) for forbidden in NEVER[part]):
                wrong.append(f"{module} imports {imported}")
    assert own_modules(part) and wrong == []


@pytest.mark.parametrize("part", [*MAY_LOAD, "requests_app", "picaisso_site"])
def test_importing_a_part_loads_only_what_it_may(part):
    """Read from the source; the narrowest entry of the table decides."""
    wrong = []
    for module, path in own_modules(part).items():
        narrower = [one for one in MAY_LOAD if is_within(module, one) and len(one) > len(part)]
        if narrower or module.endswith("onnx_graph"):
            continue
        for imported in imported_names(path, at_import_only=True):
            top = imported.split(".")[0]
            if top in sys.stdlib_module_names or top in PACKAGES:
                continue
            if top in TORCH if part not in MAY_LOAD else top not in MAY_LOAD[part]:
                wrong.append(f"{module} imports {imported}")
    assert own_modules(part) and wrong == []


@pytest.mark.parametrize("package", ["scraping", "training"])
def test_the_libraries_know_nothing_of_django(package):
    wrong = []
    for module, path in own_modules(package).items():
        for imported in imported_names(path):
            if imported.split(".")[0] in DJANGO:
                wrong.append(f"{module} imports {imported}")
    assert wrong == []


def test_nobody_reads_the_environment_but_the_places_for_it():
    readers = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            named = isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
            named = named and isinstance(node.value, ast.Name) and node.value.id == "os"
            taken = isinstance(node, ast.ImportFrom) and node.module == "os"
            taken = taken and any(alias.name in ("environ", "getenv") for alias in node.names)
            if named or taken:
                readers.add(str(path.relative_to(PROJECT)))
    assert readers <= ENVIRONMENT_READERS


def loaded_by(statement: str) -> set[str]:
    """Top-level packages that a bare interpreter has loaded after a statement."""
    names = "{name.split('.')[0] for name in sys.modules}"
    code = f"import sys; {statement}; print('LOADED', *sorted({names}))"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    return set(answer.stdout.split("LOADED")[1].split())


@pytest.mark.parametrize(
    "statement",
    [
        "import scraping.collect, scraping.download, scraping.gallery, scraping.sources",
        "import training.run_folder, training.duplicates, training.predict",
    ],
)
def test_these_load_without_django_and_without_torch(statement):
    assert not loaded_by(statement) & (DJANGO | TORCH)


def test_training_loads_without_django():
    assert (
        not loaded_by("import training.run, training.export.model_folder, training.metrics")
        & DJANGO
    )


def test_the_web_process_loads_no_torch_and_no_browser(tmp_path):
    statement = (
        f"import os; os.environ['PICAISSO_DATA_DIR'] = {str(tmp_path)!r};"
        "from picaisso_site.wsgi import application;"
        "from django.urls import get_resolver; get_resolver().url_patterns;"
        "import requests_app.views.requests, requests_app.pipeline, requests_app.admin;"
        "import requests_app.views.model"
    )
    assert not loaded_by(statement) & (TORCH | {"selenium", "sklearn", "onnxruntime"})


def test_the_names_of_tasks_resolve():
    from requests_app import tasks
    from requests_app.workers import jobs

    for task in ("drain", "reap", "send_mail", "prune", "beat"):
        assert callable(getattr(tasks, task))
    assert jobs.QUEUES == ("picaisso", "collect", "train")


def test_no_file_is_a_drawer_for_leftovers():
    forbidden = {"utils", "helpers", "common", "core", "types", "misc"}
    assert [p for p in sources() if p.stem in forbidden or p.parent.name in forbidden] == []


def test_fine_tuning_loads_with_torch_torchvision_numpy_and_pillow_alone():
    others = [
        "sklearn",
        "scipy",
        "onnx",
        "onnxruntime",
        "safetensors",
        "matplotlib",
        "jinja2",
        "rich",
        "threadpoolctl",
    ]
    modules = "training.finetuning.trainer, training.images.decode, training.networks.image_cache"
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({others!r})); import {modules};"
        "import training.networks.backbones; print('loaded')"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=120
    )
    assert found.stdout.strip() == "loaded", found.stderr
