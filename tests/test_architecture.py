"""The walls of the house: who may import whom, read from the source and proven by bare
interpreters.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
DJANGO = {"django", "django_q", "django_htmx", "csp", "environ", "whitenoise"}
TORCH = {"torch", "torchvision"}
# package or module -> what it must never import (a top-level name, or a dotted module of ours)
WALLS = {
    "scraping": DJANGO | TORCH | {"requests_app", "picaisso_site"},
    "training": DJANGO | {"scraping", "requests_app", "picaisso_site"},
    "training.run_folder": TORCH,
    "training.duplicates": TORCH,
    "training.predict": TORCH,
    "training.takedown": TORCH,
    "picaisso_site": TORCH | {"scraping", "training"},
    "requests_app": TORCH,
    "requests_app.models": {
        "scraping",
        "training",
        "requests_app.pipeline",
        "requests_app.views",
    },
    "requests_app.pipeline": {
        "requests_app.views",
        "requests_app.forms",
        "requests_app.admin",
        "requests_app.tasks",
    },
    "requests_app.workers.processes": DJANGO | {"scraping", "training", "requests_app.models"},
    "requests_app.workers.jobs": {"scraping", "training", "requests_app.pipeline"},
    "requests_app.mail": {"scraping", "training", "requests_app.pipeline"},
    "requests_app.delivery.dataset_zip": {"scraping", "training", "requests_app.pipeline"},
    "requests_app.tasks": {"scraping", "training", "requests_app.views"},
    "requests_app.views": {"scraping", "training", "requests_app.tasks"},
    "requests_app.admin": {"scraping", "training", "requests_app.tasks"},
    "requests_app.management": {"scraping", "training", "requests_app.tasks"},
}
FROM_TRAINING = {
    "scraping": {"training.duplicates"},
    "requests_app.pipeline": {"training.run_folder"},
    "requests_app.versions": {"training.run_folder"},
    "requests_app.takedowns": {"training.run_folder", "training.takedown"},
    "requests_app.lifecycle": set(),
}
ENVIRONMENT_READERS = {
    "picaisso_site/settings.py",
    "scraping/__main__.py",
    "training/__main__.py",
    # These hand the environment on to processes they start, and read nothing that people configure.
    "requests_app/workers/processes.py",
    "requests_app/workers/jobs.py",
    "requests_app/workers/supervisor.py",
    "requests_app/demo/scenario.py",
    "scraping/net/browser.py",
    # These only switch telemetry off.
    "training/__init__.py",
    "training/export/assets/predict.py",
    "picaisso_site/wsgi.py",
}


def sources() -> list[Path]:
    packages = ("picaisso_site", "requests_app", "scraping", "training")
    return [path for package in packages for path in sorted((PROJECT / package).rglob("*.py"))]


def module_name(path: Path) -> str:
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, at_import_only: bool = False) -> set[str]:
    """Dotted names a file imports; with ``at_import_only`` those inside functions are not
    counted.
    """
    tree = ast.parse(path.read_text())
    nodes = tree.body if at_import_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def breaks(imported: str, forbidden: set[str]) -> bool:
    return any(imported == name or imported.startswith(name + ".") for name in forbidden)


@pytest.mark.parametrize("wall", WALLS)
def test_nobody_looks_over_a_wall(wall):
    found = []
    for path in sources():
        name = module_name(path)
        if name != wall and not name.startswith(wall + "."):
            continue
        # predict may use torch for the GPU, but only where it is asked to
        for imported in imports(path, at_import_only=name == "training.predict"):
            if breaks(imported, WALLS[wall]):
                found.append(f"{path.relative_to(PROJECT)} imports {imported}")
    assert found == []


@pytest.mark.parametrize("wall", FROM_TRAINING)
def test_only_the_agreed_parts_of_training_are_used_outside(wall):
    used = set()
    for path in sources():
        name = module_name(path)
        if name == wall or name.startswith(wall + "."):
            used |= {".".join(i.split(".")[:2]) for i in imports(path) if i.startswith("training.")}
    assert used <= FROM_TRAINING[wall]


def test_every_wall_names_code_that_exists():
    names = {module_name(path) for path in sources()}
    missing = [
        wall for wall in WALLS if not any(n == wall or n.startswith(wall + ".") for n in names)
    ]
    assert missing == []


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
    code = f"import sys; {statement}; print('LOADED', *sorted({{name.split('.')[0] for name in sys.modules}}))"
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
        "from picaisso_site.wsgi import application; from django.urls import get_resolver; get_resolver().url_patterns;"
        "import requests_app.views.requests, requests_app.pipeline, requests_app.admin"
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
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({others!r})); "
        "import training.finetuning.trainer, training.images.decode, training.networks.backbones, training.networks.image_cache; print('loaded')"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=120
    )
    assert found.stdout.strip() == "loaded", found.stderr
