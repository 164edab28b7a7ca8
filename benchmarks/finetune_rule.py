"""What the rule for fine-tuning costs and brings: whole runs with it, without it, and before it.

`python -m benchmarks.finetune_rule FOLDER... [--before CHECKOUT] [--budget SECONDS] [--threads N]`

trains from each folder of class folders on the CPU by the rule, with fine-tuning switched off and,
given a checkout of an earlier commit, by the rule of that one. A row of the table has seconds and
accuracy on the test pictures, which are the same for all, and what the rule said.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parents[1]
_BACKBONE = "efficientnet_lite0"


@dataclass(frozen=True)
class Settings:
    """What all runs of the table have in common."""

    seed: int
    budget: float
    """Seconds."""
    threads: int


def measured(images: Path, settings: Settings, checkout: Path, finetune: str) -> dict[str, Any]:
    """Return metrics.json of a run; raises CalledProcessError where it failed."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "run"
        command = [sys.executable, "-m", "training", "fit", "--images", str(images.resolve())]
        command += ["--out", str(out), "--backbone", _BACKBONE, "--device", "cpu"]
        command += ["--seed", str(settings.seed), "--threads", str(settings.threads)]
        command += ["--time-budget", str(settings.budget), "--finetune", finetune]
        environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=name, env=environment)
        metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        return metrics


def row(images: Path, settings: Settings, before: Path | None) -> str:
    """Return a row of the table for one folder."""
    runs = {"never": measured(images, settings, _HERE, "never")}
    if before is not None:
        runs["before"] = measured(images, settings, before, "auto")
    runs["rule"] = measured(images, settings, _HERE, "auto")
    cells = [f"{images.name}, seed {settings.seed}"]
    for metrics in runs.values():
        cells += _cells(metrics)
    cells.append(runs["rule"]["choice"])
    return f"| {' | '.join(cells)} |"


def _cells(metrics: Mapping[str, Any]) -> list[str]:
    """Return the seconds of a run, and how often each of its candidates is right."""
    seconds = sum(metrics["seconds"].values())
    return [f"{seconds:.0f}", f"{metrics['delivered']}: {metrics['accuracy']:.1%}"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT")
    parser.add_argument("--budget", type=float, default=600.0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args(arguments)
    names = ["without", "before", "by the rule"]
    if options.before is None:
        names.remove("before")
    titles = ["set"]
    for name in names:
        titles += [f"seconds {name}", f"test {name}"]
    titles.append("the rule said")
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for folder in options.folders:
        for seed in range(options.seeds):
            settings = Settings(seed, options.budget, options.threads)
            print(row(folder, settings, options.before), flush=True)


if __name__ == "__main__":
    main()
