"""The backbone that a run's configuration asks for, and what holds where that says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from training.networks.backbones import BACKBONES, LoadedBackbone, load_backbone
from training.networks.catalogue import DEFAULT as DEFAULT_BACKBONE
from training.networks.weights import DOWNLOAD_URL, WeightSources
from training.progress import Progress, no_progress
from training.run_folder import RunConfig, RunError

DEFAULTS: Mapping[str, Any] = {
    "backbone": DEFAULT_BACKBONE,
    "seed": 0,
    "device": "auto",
    "time_budget_seconds": 600.0,
    "finetune": "auto",
    "epochs": 0,
    "weights": "pretrained",
    "weights_dir": "",
    "weights_cache": "data/cache/weights",
    "weights_url": DOWNLOAD_URL,
    "text_image_model": "",
    "own_test": False,
    "threads": 0,
}


def load_configured(
    config: RunConfig, instead: str | None = None, report: Progress = no_progress
) -> LoadedBackbone:
    """Load the backbone of a configuration with all defaults, or the one named in its stead.

    Raises RunError for a name that is no backbone's.
    """
    name = instead or str(config.backbone)
    if name not in BACKBONES:
        raise RunError(
            "features",
            f"“{name}” is not a backbone that Picaisso knows.",
            f"Choose one of {', '.join(BACKBONES)}.",
            retry=False,
        )
    sources = WeightSources(
        folder=Path(config.weights_dir) if config.weights_dir else None,
        cache=Path(config.weights_cache or ""),
        url=config.weights_url or "",
    )
    weights = cast(Any, config.weights)
    return load_backbone(BACKBONES[name], weights, sources, report)
