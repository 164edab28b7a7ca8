"""The model card, README.md of the model folder: figures, limits, licences, and how to load each file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from training.backbones import Backbone


def model_card(config: Mapping[str, Any], metrics: Mapping[str, Any], backbone: Backbone) -> str:
    """The card as Markdown with the YAML block that model hubs read."""
    parts = (
        _front_matter(config, metrics),
        f"# Picture classifier: {', '.join(_plain(name) for name in config['label_names'])}\n",
        _verdict(metrics),
        _notices(metrics),
        _figures(metrics),
        _how_made(config, metrics, backbone),
        _loading(config, backbone),
        _limits(metrics),
        f"## Licences\n\n{backbone.licence} The licences of the training pictures are listed with the dataset.\n",
    )
    return "\n".join(part for part in parts if part)


def _front_matter(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    dataset = {"type": "imagefolder", "name": "pictures collected by Picaisso", "split": "test"}
    index = {
        "name": "picaisso",
        "results": [
            {
                "task": {"type": "image-classification"},
                "dataset": dataset,
                "metrics": [{"type": "accuracy", "value": round(metrics["accuracy"], 4)}],
            }
        ],
    }
    # JSON is valid YAML: quoting of class names needs no rules of our own.
    return (
        "---\npipeline_tag: image-classification\nlibrary_name: timm\nlicense: other\n"
        f"tags: {json.dumps(['image-classification', 'picaisso', config['architecture']])}\n"
        f"model-index: {json.dumps([index], ensure_ascii=False)}\n---\n"
    )


def _verdict(metrics: Mapping[str, Any]) -> str:
    low, high = metrics["interval"]
    tested = sum(row["support"] for row in metrics["per_class"].values())
    accuracy = (
        f"On {tested} test pictures that it never saw, this model is right on {metrics['accuracy']:.1%} "
        f"(95 % interval {low:.1%} to {high:.1%}); always naming the largest class would be right on "
        f"{metrics['majority_baseline']:.1%}.\n"
    )
    if metrics["better_than_chance"]:
        return accuracy
    return f"**This model is no better than guessing: the classes could not be told apart.** {accuracy}"


def _notices(metrics: Mapping[str, Any]) -> str:
    return "\n".join(f"> {notice}\n" for notice in metrics["notices"])


def _figures(metrics: Mapping[str, Any]) -> str:
    rows = [
        f"| {_plain(name)} | {row['precision']:.1%} | {row['recall']:.1%} | {row['support']} |"
        for name, row in metrics["per_class"].items()
    ]
    names = [_plain(name) for name in metrics["confusion"]["labels"]]
    confusion = [
        f"| **{name}** | " + " | ".join(str(count) for count in row) + " |"
        for name, row in zip(names, metrics["confusion"]["matrix"], strict=True)
    ]
    return "\n".join(
        [
            "## Figures\n",
            f"Balanced accuracy {metrics['balanced_accuracy']:.1%}, macro F1 {metrics['macro_f1']:.3f}. "
            f"{_calibration(metrics)}\n",
            "| class | precision | recall | test pictures |\n| --- | --- | --- | --- |",
            *rows,
            "\nRows are true classes, columns what the model said:\n",
            f"| | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}",
            *confusion,
            "",
        ]
    )


def _calibration(metrics: Mapping[str, Any]) -> str:
    if metrics["ece_after"] is None:
        return "Fewer than 100 test pictures: too few for a calibration error."
    return f"Calibration error {metrics['ece_after']:.3f} ({metrics['ece_before']:.3f} before temperature scaling)."


def _how_made(config: Mapping[str, Any], metrics: Mapping[str, Any], backbone: Backbone) -> str:
    split = metrics["split"]
    return (
        "## How it was made\n\n"
        f"Picaisso {config['picaisso_version']} trained a linear classifier on the features of {backbone.title} "
        f"({metrics['weights']}) from {split['train']} training and {split['val']} validation pictures, "
        f"and tested it on {split['test']}. "
        "Near copies were grouped first, so that none of them stands on both sides. "
        f"Regularisation and temperature ({config['temperature']:.3f}) come from cross-validation; "
        f"seed {metrics['seed']}, device {metrics['device']}. "
        f"{_suspected(metrics['label_issues'])} may carry a wrong label.\n"
    )


def _suspected(count: int) -> str:
    if not count:
        return "No picture"
    return "1 picture" if count == 1 else f"{count} pictures"


def _loading(config: Mapping[str, Any], backbone: Backbone) -> str:
    make = (
        f'timm.create_model("{backbone.architecture}", num_classes={config["num_classes"]})'
        if backbone.weights_file is None
        else f"torchvision.models.{backbone.architecture}(num_classes={config['num_classes']})"
    )
    module = make.split(".", 1)[0]
    return (
        "## How to use it\n\n"
        "```\npip install -r requirements.txt\npython predict.py --check\npython predict.py picture.jpg\n```\n\n"
        "`model.onnx` takes a uint8 RGB picture [height, width, 3] of any size and gives `probabilities`, "
        "`embedding` and `cam`; resizing and normalising are inside. The other two files hold the plain network, "
        "without the temperature:\n\n"
        f"```python\nimport torch, {module}\n\nmodel = {make}\n"
        'model.load_state_dict(torch.load("model.pth", weights_only=True))\n```\n\n'
        '```python\nimport timm\n\nmodel = timm.create_model("local-dir:.", pretrained=True)  # this folder\n```\n\n'
        f"Outside `model.onnx`, resize the shorter side to {backbone.resize} (bilinear, antialiased), "
        f"crop the middle {config['pretrained_cfg']['input_size'][1]}, "
        f"scale to 0..1, and normalise with mean {list(backbone.mean)} and standard deviation {list(backbone.std)}.\n"
    )


def _limits(metrics: Mapping[str, Any]) -> str:
    names = ", ".join(_plain(name) for name in metrics["per_class"])
    return (
        "## Limits\n\n"
        f"It knows only {names}, and answers with one of them whatever it is shown. "
        "It was trained on pictures found by their names on the web, so it shares "
        "their mistakes and their habits. Do not use it where an error hurts someone.\n"
    )


def _plain(name: str) -> str:
    """A class name that cannot break out of a Markdown table or heading."""
    return "".join("\\" + sign if sign in r"\|*_`[]<>#" else sign for sign in name)
