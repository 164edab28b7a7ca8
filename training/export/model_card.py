"""The model card, README.md of the model folder: figures, limits, licences, and how to load each
file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from training.evaluation.learning_curve import MINIMUM_IMAGES
from training.phrases import counted, interval, listed, percent, verdict

if TYPE_CHECKING:
    from training.networks.backbones import Backbone

Metrics = Mapping[str, Any]

SHORTCUT_TITLES = {
    "size": "the size of a picture",
    "brightness": "its brightness",
    "sharpness": "its sharpness",
    "source": "where it was found",
    "all": "all of these together",
}


def model_card(config: Mapping[str, Any], metrics: Metrics, backbone: Backbone) -> str:
    """The card as Markdown with the YAML block that model hubs read."""
    parts = (
        _front_matter(config, metrics),
        f"# Picture classifier: {', '.join(_plain(name) for name in config['label_names'])}\n",
        f"{verdict(metrics)}\n" if metrics["better_than_chance"] else f"**{verdict(metrics)}**\n",
        "\n".join(f"> {_prose(notice)}\n" for notice in metrics["notices"]),
        _figures(metrics),
        _candidates(metrics),
        _by_source(metrics),
        _unknown(metrics),
        _doubts(metrics),
        _how_made(config, metrics, backbone),
        _loading(config, backbone),
        _limits(metrics),
        f"## Licences\n\n{backbone.license} The licences of the training pictures are listed in report.html.\n",
    )
    return "\n".join(part for part in parts if part)


def calibration_in_words(metrics: Metrics) -> str:
    """What was measured of how far its probabilities can be believed."""
    if metrics["ece_after"] is None:
        return "Fewer than 100 test pictures: too few for a calibration error."
    return f"Calibration error {metrics['ece_after']:.3f} ({metrics['ece_before']:.3f} before temperature scaling)."


def unknown_in_words(metrics: Metrics) -> str:
    """From where a picture counts as none of the classes, and how often that hit pictures that do
    show one.
    """
    unknown = metrics["unknown"]
    return (
        f"A picture whose novelty is above {metrics['reject_threshold']:.3f} is called unknown, because it looks like "
        "none of the classes. The threshold is set for 5 % false alarms; of the test pictures, all of which show one "
        f"of the classes, it refused {unknown['refused']} of {unknown['tested']}: {percent(unknown['share'])} "
        f"(95 % interval {interval(unknown['interval'])})."
    )


def suspects_in_words(metrics: Metrics) -> str:
    """How many pictures are doubtful, and what was done about them."""
    count = counted(metrics["label_issues"], "picture")
    return (
        f"{count[0].upper()}{count[1:]} may carry a wrong label. {metrics['curation']['sentence']}"
    )


def more_in_words(metrics: Metrics) -> str:
    """What more pictures would bring, or why that is not known."""
    if metrics["learning_curve"]:
        return str(metrics["learning_curve"]["sentence"])
    if metrics["split"]["train"] + metrics["split"]["val"] < MINIMUM_IMAGES:
        return f"What more pictures would bring can be measured from {MINIMUM_IMAGES} on; with fewer, more usually help."
    return "There was no time left to measure what more pictures would bring."


def _front_matter(config: Mapping[str, Any], metrics: Metrics) -> str:
    dataset = {"type": "imagefolder", "name": "pictures collected by Picaisso", "split": "test"}
    figures = [{"type": "accuracy", "value": round(metrics["accuracy"], 4)}]
    results = [{"task": {"type": "image-classification"}, "dataset": dataset, "metrics": figures}]
    index = {"name": "picaisso", "results": results}
    # JSON is valid YAML: quoting of class names needs no rules of our own.
    return (
        "---\npipeline_tag: image-classification\nlibrary_name: timm\nlicense: other\n"
        f"tags: {json.dumps(['image-classification', 'picaisso', config['architecture']])}\n"
        f"model-index: {json.dumps([index], ensure_ascii=False)}\n---\n"
    )


def _figures(metrics: Metrics) -> str:
    rows = [
        (_plain(name), percent(row["precision"]), percent(row["recall"]), row["support"])
        for name, row in metrics["per_class"].items()
    ]
    names = [_plain(name) for name in metrics["confusion"]["labels"]]
    confusion = [
        (f"**{name}**", *counts)
        for name, counts in zip(names, metrics["confusion"]["matrix"], strict=True)
    ]
    return "\n".join(
        [
            "## Figures\n",
            f"Balanced accuracy {percent(metrics['balanced_accuracy'])}, macro F1 {metrics['macro_f1']:.3f}. "
            f"{calibration_in_words(metrics)}\n",
            _table(("class", "precision", "recall", "test pictures"), rows),
            "Rows are true classes, columns what the model said:\n",
            _table(("", *names), confusion),
        ]
    )


def _candidates(metrics: Metrics) -> str:
    """The linear head beside the fine-tuned network."""
    rows = [
        (name, percent(row["accuracy"]), interval(row["interval"]), f"{row['val_loss']:.3f}")
        for name, row in (
            ("linear head", metrics["head"]),
            ("fine-tuned network", metrics["network"]),
        )
        if row
    ]
    table = _table(("candidate", "right on test", "95 % interval", "loss on validation"), rows)
    return f"## Linear head or fine-tuned network\n\n{_prose(metrics['choice'])}\n\n{table}"


def _by_source(metrics: Metrics) -> str:
    rows = [
        (
            _plain(source) or "not known",
            percent(row["accuracy"]),
            interval(row["interval"]),
            row["support"],
        )
        for source, row in metrics["by_source"].items()
    ]
    return f"## By source\n\n{_table(('source', 'right', '95 % interval', 'test pictures'), rows)}"


def _unknown(metrics: Metrics) -> str:
    return f"## None of these\n\n{unknown_in_words(metrics)} Strangers that resemble a class still get through.\n"


def _doubts(metrics: Metrics) -> str:
    """Wrong labels, shortcuts, and what more pictures would bring."""
    traits = [
        f"{SHORTCUT_TITLES[name]} {percent(share)}" for name, share in metrics["shortcuts"].items()
    ]
    lines = (
        _prose(suspects_in_words(metrics)),
        _prose(metrics["shortcut_warning"] or "No sign of a shortcut was found."),
        f"Balanced accuracy of guesses that do not look at what a picture shows: by {listed(traits)}.",
        _prose(more_in_words(metrics)),
    )
    return "## Doubts\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"


def _how_made(config: Mapping[str, Any], metrics: Metrics, backbone: Backbone) -> str:
    split = metrics["split"]
    trained = (
        f"trained a linear classifier on the features of {backbone.title} ({metrics['weights']})"
        if metrics["delivered"] == "head"
        else f"fine-tuned {backbone.title} ({metrics['weights']})"
    )
    calibrated = "cross-validation" if metrics["delivered"] == "head" else "the validation pictures"
    return (
        "## How it was made\n\n"
        f"Picaisso {config['picaisso_version']} {trained} "
        f"from {split['train']} training and {split['val']} validation pictures, and tested it on {split['test']}. "
        "Near copies were grouped first, so that none of them stands on both sides. "
        f"The temperature ({config['temperature']:.3f}) comes from {calibrated}, the regularisation of the linear head "
        f"({metrics['regularisation']:g}) from cross-validation; seed {metrics['seed']}, device {metrics['device']}, "
        f"computed in {metrics['arithmetic']}.\n"
    )


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
        "`try.html` classifies pictures in a browser, without a network. "
        "`model.onnx` takes a uint8 RGB picture [height, width, 3] of any size and gives `probabilities`, `embedding`, "
        "`cam` (where in the picture each class was seen) and `novelty`; resizing and normalising are inside. "
        "A picture is known when its novelty is at most `reject` of config.json. The next two files hold the plain "
        "network, without temperature and novelty:\n\n"
        f"```python\nimport torch, {module}\n\nmodel = {make}\n"
        'model.load_state_dict(torch.load("model.pth", weights_only=True))\n```\n\n'
        '```python\nimport timm\n\nmodel = timm.create_model("local-dir:.", pretrained=True)  # this folder\n```\n\n'
        f"Outside `model.onnx`, resize the shorter side to {backbone.resize} (bilinear, antialiased), "
        f"crop the middle {config['pretrained_cfg']['input_size'][1]}, "
        f"scale to 0..1, and normalise with mean {list(backbone.mean)} and standard deviation {list(backbone.std)}.\n"
    )


def _limits(metrics: Metrics) -> str:
    names = [_plain(name) for name in metrics["per_class"]]
    return (
        "## Limits\n\n"
        f"It knows only {listed(names)}. What looks like none of them is meant to be called unknown, which fails for "
        "strangers that resemble a class; its answer is always one of these names, so heed `novelty`. It shares the "
        "mistakes and habits of the pictures that it learned from. "
        "Do not use it where an error hurts someone.\n"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def _plain(name: str) -> str:
    """A class name that cannot break out of a Markdown table, heading or line."""
    return _escaped(name, r"\|*_`[]<>#~&")


def _prose(sentence: str) -> str:
    """A sentence of ours that may hold class names, which must not become markup."""
    return _escaped(sentence, r"\|*`[]<>&")


def _escaped(text: str, signs: str) -> str:
    return "".join("\\" + sign if sign in signs else sign for sign in " ".join(text.split()))
