"""The model card, README.md of the model folder: figures, limits, licences, and how to load each
file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from training.evaluation.learning_curve import MINIMUM_IMAGES
from training.evaluation.shortcuts import ATTRIBUTES
from training.metrics import ECE_MINIMUM, ClassificationMetrics, Metrics
from training.networks.catalogue import CROP, BackboneInfo
from training.phrases import (
    counted,
    figure_on_test,
    headline_counts,
    headline_title,
    interval,
    listed,
    names_alone,
    percent,
    refusal,
    refusal_measured,
    verdict,
)

PYTHON = "3.9"
"""The oldest that the delivered predict.py runs on."""
REQUIREMENTS = {"onnxruntime": "1.19.0", "pillow": "11.3.0"}
"""What predict.py needs, and the oldest release of each that it was tried with: onnxruntime 1.19 is
the first that works with every numpy, Pillow 11.3 the first that reads AVIF."""

_ONNX_LINES = (
    "import numpy, onnxruntime, PIL.Image",
    'image = numpy.asarray(PIL.Image.open("picture.jpg").convert("RGB"))',
    'print(onnxruntime.InferenceSession("model.onnx").run(["probabilities"], {"image": image})[0])',
)
_BROWSER_LINES = (
    'const session = await ort.InferenceSession.create("model.onnx");',
    'const image = new ort.Tensor("uint8", rgb, [height, width, 3]);',
    "console.log((await session.run({ image })).probabilities.data);",
)
_TIMM_LINES = (
    "import timm",
    'model = timm.create_model("local-dir:.", pretrained=True).eval()',
    "prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
)
_TRANSFORMERS_LINES = (
    "from transformers import pipeline",
    'classify = pipeline("image-classification", model=".")',
    'print(classify("picture.jpg"))',
)


def model_card(config: Mapping[str, Any], metrics: Metrics, backbone: BackboneInfo) -> str:
    """Return the card as Markdown with the YAML block that model hubs read.

    `config` is `config.json` of the model folder.
    """
    names = [_plain(name) for name in config["label_names"]]
    sections = [
        _front_matter(config, metrics, backbone),
        f"# Picture classifier: {', '.join(names)}\n",
        _verdict_and_notices(metrics),
        _figures(metrics),
        _candidates(metrics),
        _by_source(metrics),
        _none_of_these(metrics),
        _doubts(metrics),
        _how_made(config, metrics, backbone),
        _how_to_use(config, backbone),
        _limits(names),
        _licences(backbone),
    ]
    return "\n".join(sections)


def calibration_in_words(metrics: Metrics) -> str:
    """Return what was measured of how far its probabilities can be believed."""
    figures = judged_figures(metrics)
    before = figures["ece_before"]
    after = figures["ece_after"]
    if before is None or after is None:
        return f"Fewer than {ECE_MINIMUM} pictures: too few for a calibration error."
    how = ", by cross-validation" if metrics["cross_validated"] else ""
    return f"Calibration error {after:.3f} ({before:.3f} before temperature scaling{how})."


def judged_figures(metrics: Metrics) -> ClassificationMetrics:
    """Return the figures that calibration, confusion and recall are shown of.

    The cross-validated ones where there are any, else those of the test images.
    """
    return metrics["cross_validated"] or metrics


def unknown_in_words(metrics: Metrics) -> str:
    """Return from where a picture counts as none of the classes, and how often that was wrong."""
    threshold = metrics["reject_threshold"]
    unknown = metrics["unknown"]
    share = percent(unknown["share"])
    bounds = interval(unknown["interval"])
    return (
        f"A picture whose novelty is above {threshold:.3f} is called unknown, because it looks"
        " like none of the classes. The threshold is set for 5 % false alarms; of the test"
        " pictures, all of which show one of the classes, it refused"
        f" {unknown['refused']} of {unknown['tested']}: {share} (95 % interval {bounds})."
    )


def suspects_in_words(metrics: Metrics) -> str:
    """Return how many pictures are doubtful, and what was done about them."""
    sentences = []
    if metrics["verdict"] == "better":
        count = counted(metrics["label_issues"], "picture")
        count = count[0].upper() + count[1:]
        sentences.append(f"{count} outside the test part may carry a wrong label.")
    sentences.append(metrics["curation"]["sentence"])
    off_topic = metrics["off_topic"]
    if off_topic:
        look = "looks" if off_topic == 1 else "look"
        sentences.append(
            f"{counted(off_topic, 'picture')} outside the test part {look} like a page, screen,"
            " packet or drawing rather than a photograph."
        )
    return " ".join(sentences)


def labels_in_words(metrics: Metrics) -> str:
    """Return how many test labels a person has checked, and how many were wrong."""
    verified = metrics["verified"]
    noise = metrics["label_noise"]
    tested = counted(metrics["split"]["test"], "test picture")
    if noise is None:
        return (
            f"Nobody has checked the labels of the {tested} yet:"
            " where they are wrong, the figures are too."
        )
    found = (
        f"{verified['right']} with the right label, {verified['wrong']} of another class,"
        f" {verified['off_topic']} of none of the classes"
    )
    share = percent(noise["share"])
    bounds = interval(noise["interval"])
    return (
        f"A person has checked {verified['n']} of the {tested}: {found}. So about {share} of the"
        f" test labels are wrong (95 % interval {bounds}), and a figure on labels that nobody has"
        " checked can be too low or too high by as much."
    )


def more_in_words(metrics: Metrics) -> str:
    """Return what more pictures would bring, or why that is not known."""
    curve = metrics["learning_curve"]
    if curve is not None:
        return curve["sentence"]
    return (
        f"What more pictures would bring can be measured from {MINIMUM_IMAGES} on;"
        " with fewer, more usually help."
    )


def phrases_of(metrics: Metrics) -> dict[str, str]:
    """Return the sentences that the report has in common with the card."""
    return {
        "calibration": calibration_in_words(metrics),
        "unknown": unknown_in_words(metrics),
        "more": more_in_words(metrics),
        "suspects": suspects_in_words(metrics),
        "labels": labels_in_words(metrics),
        "names_alone": names_alone(metrics),
        "refusal": refusal(metrics),
        "refusal_measured": refusal_measured(metrics),
    }


def _front_matter(config: Mapping[str, Any], metrics: Metrics, backbone: BackboneInfo) -> str:
    headline = metrics["headline"]
    dataset = {"type": "imagefolder", "name": "pictures collected by Picaisso", "split": "test"}
    if headline["how"] == "cross_validated":
        dataset["split"] = "train+validation+test, cross-validated"
    accuracy = {
        "type": "accuracy",
        "value": round(headline["value"], 4),
        "name": f"{headline_title(metrics)}: {headline_counts(metrics)}",
    }
    result = {
        "task": {"type": "image-classification"},
        "dataset": dataset,
        "metrics": [accuracy],
    }
    index = [{"name": "picaisso", "results": [result]}]
    tags = ["image-classification", "picaisso", config["architecture"]]
    # JSON is valid YAML: quoting of class names needs no rules of our own.
    return (
        "---\n"
        "pipeline_tag: image-classification\n"
        f"library_name: {'timm' if backbone.in_timm else 'torchvision'}\n"
        "license: other\n"
        f"tags: {json.dumps(tags)}\n"
        f"model-index: {json.dumps(index, ensure_ascii=False)}\n"
        "---\n"
    )


def _verdict_and_notices(metrics: Metrics) -> str:
    sentence = verdict(metrics)
    if metrics["verdict"] != "better":
        sentence = f"**{sentence}**"
    notices = [f"> {_prose(notice)}\n" for notice in metrics["notices"]]
    return "\n".join([f"{sentence}\n", *notices])


def _figures(metrics: Metrics) -> str:
    figures = judged_figures(metrics)
    balanced_accuracy = percent(figures["balanced_accuracy"])
    summary = (
        f"Balanced accuracy {balanced_accuracy}, macro F1 {figures['macro_f1']:.3f}."
        f" {calibration_in_words(metrics)}\n"
    )
    judged = "test pictures"
    if metrics["cross_validated"]:
        judged = "pictures"
        summary = (
            "Figures of all pictures by cross-validation. On the test pictures alone it is right on"
            f" {figure_on_test(metrics)}.\n\n{summary}"
        )
    class_rows = []
    for name, row in figures["per_class"].items():
        precision = percent(row["precision"])
        recall = percent(row["recall"])
        class_rows.append((_plain(name), precision, recall, row["support"]))
    confusion = figures["confusion"]
    names = [_plain(name) for name in confusion["labels"]]
    confusion_rows = []
    for name, counts in zip(names, confusion["matrix"], strict=True):
        confusion_rows.append((f"**{name}**", *counts))
    parts = [
        "## Figures\n",
        summary,
        _table(("class", "precision", "recall", judged), class_rows),
        "Rows are true classes, columns what the model said:\n",
        _table(("", *names), confusion_rows),
    ]
    return "\n".join(parts)


def _candidates(metrics: Metrics) -> str:
    """Return the linear head beside the fine-tuned network."""
    candidates = {"linear head": metrics["head"], "fine-tuned network": metrics["network"]}
    rows = []
    for name, figures in candidates.items():
        if figures is None:
            continue
        accuracy = percent(figures["accuracy"])
        bounds = interval(figures["interval"])
        rows.append((name, accuracy, bounds, f"{figures['val_loss']:.3f}"))
    table = _table(("candidate", "right on test", "95 % interval", "loss on validation"), rows)
    alone = names_alone(metrics)
    baseline = f"\n{_prose(alone)}\n" if alone else ""
    return (
        f"## Linear head or fine-tuned network\n\n{_prose(metrics['choice'])}\n\n{table}{baseline}"
    )


def _by_source(metrics: Metrics) -> str:
    rows = []
    for source, figures in metrics["by_source"].items():
        title = _plain(source) or "not known"
        accuracy = percent(figures["accuracy"])
        bounds = interval(figures["interval"])
        rows.append((title, accuracy, bounds, figures["support"]))
    table = _table(("source", "right", "95 % interval", "test pictures"), rows)
    unseen = _unseen_sources(metrics)
    return f"## By source\n\n{table}\n{unseen}"


def _unseen_sources(metrics: Metrics) -> str:
    """Return what is known of pictures from a source not learned from."""
    sentence = f"{_prose(metrics['unseen_sentence'])}\n"
    rows = []
    for figures in metrics["unseen_source"]:
        title = _plain(figures["source"]) or "not known"
        accuracy = percent(figures["accuracy"])
        rows.append((title, accuracy, interval(figures["interval"]), figures["n"]))
    if not rows:
        return sentence
    heads = ("source left out of training", "right", "95 % interval", "its pictures")
    return f"{sentence}\n{_table(heads, rows)}"


def _none_of_these(metrics: Metrics) -> str:
    measured = f"{refusal(metrics)} {refusal_measured(metrics)}".strip()
    paragraphs = [
        "## None of these\n",
        f"{unknown_in_words(metrics)} Strangers that resemble a class still get through.\n",
    ]
    if measured:
        paragraphs.insert(1, f"{measured}\n")
    return "\n".join(paragraphs)


def _doubts(metrics: Metrics) -> str:
    """Return wrong labels, shortcuts, and what more pictures would bring."""
    guesses = []
    for name, share in metrics["shortcuts"].items():
        guesses.append(f"{ATTRIBUTES[name].title} {percent(share)}")
    suspects = suspects_in_words(metrics)
    shortcut = metrics["shortcut_sentence"]
    more = more_in_words(metrics)
    return (
        "## Doubts\n\n"
        f"- {_prose(labels_in_words(metrics))}\n"
        f"- {_prose(suspects)}\n"
        f"- {_prose(shortcut)}\n"
        "- Balanced accuracy of guesses that do not look at what a picture shows:"
        f" by {listed(guesses)}.\n"
        f"- {_prose(more)}\n"
    )


def _how_made(config: Mapping[str, Any], metrics: Metrics, backbone: BackboneInfo) -> str:
    weights = metrics["weights"]
    if metrics["delivered"] == "head":
        trained = f"trained a linear classifier on the features of {backbone.title} ({weights})"
        calibrated = "cross-validation"
    else:
        trained = f"fine-tuned {backbone.title} ({weights})"
        calibrated = "pictures held out in its trial"
    split = metrics["split"]
    inverse_regularization = metrics["regularisation"]
    return (
        "## How it was made\n\n"
        f"Picaisso {config['picaisso_version']} {trained}"
        f" from {split['train']} training and {split['val']} validation pictures,"
        f" and tested it on {split['test']}."
        " Near-duplicates were grouped first, so that no group is in two splits."
        f" The temperature ({config['temperature']:.3f}) comes from {calibrated},"
        f" the inverse regularisation of the linear head (C = {inverse_regularization:g})"
        " from cross-validation;"
        f" seed {metrics['seed']}, device {metrics['device']},"
        f" computed in {metrics['arithmetic']}."
        f" What it looks at: {metrics['view']['sentence']}\n"
    )


def _how_to_use(config: Mapping[str, Any], backbone: BackboneInfo) -> str:
    packages = listed([f"{name} {oldest}" for name, oldest in REQUIREMENTS.items()])
    return (
        "## How to use it\n\n"
        "```\n"
        "pip install -r requirements.txt\n"
        "python predict.py --check\n"
        "python predict.py picture.jpg\n"
        "```\n\n"
        f"It runs with Python {PYTHON} or newer and {packages} or newer.\n\n"
        "`try.html` classifies pictures in a browser, without a network."
        " `model.onnx` takes a uint8 RGB picture [height, width, 3] of any size and gives"
        " `probabilities`, `embedding`, `cam` (where in the picture each class was seen) and"
        " `novelty`; resizing and normalising are inside."
        " A picture is known when its novelty is at most `reject` of config.json."
        " In this folder, with ONNX Runtime:\n\n"
        f"{_snippet(_ONNX_LINES)}"
        "On a page of your own, with onnxruntime-web (`rgb` holds three bytes for each pixel, row"
        " by row):\n\n"
        f"{_snippet(_BROWSER_LINES, 'js')}"
        "`model.safetensors` holds the plain network, without temperature and novelty."
        f" {_loaders(config, backbone)}"
        f"Outside `model.onnx`, {_resizing(config, backbone)}, scale to 0..1, and normalise with"
        f" mean {list(backbone.mean)} and standard deviation {list(backbone.std)}.\n"
    )


def _loaders(config: Mapping[str, Any], backbone: BackboneInfo) -> str:
    """Return how each library that has the architecture loads the weights of the folder."""
    text = ""
    if backbone.weights_file is not None:
        create = f"torchvision.models.{backbone.architecture}(num_classes={config['num_classes']})"
        lines = (
            "import safetensors.torch, torchvision",
            f"model = {create}",
            'model.load_state_dict(safetensors.torch.load_file("model.safetensors"))',
        )
        text += f"With torchvision:\n\n{_snippet(lines)}"
    if backbone.in_timm:
        text += f"With timm:\n\n{_snippet(_TIMM_LINES)}"
        text += f"With transformers, which needs timm for it:\n\n{_snippet(_TRANSFORMERS_LINES)}"
    return text


def _snippet(lines: Sequence[str], language: str = "python") -> str:
    """Return lines of code as a block of their own."""
    code = "\n".join(lines)
    return f"```{language}\n{code}\n```\n\n"


def _resizing(config: Mapping[str, Any], backbone: BackboneInfo) -> str:
    """Return what makes the square that the network sees of a picture."""
    if config.get("view") == "letterbox":
        return (
            f"resize the longer side to {CROP} (bilinear, antialiased), pad to a square with the"
            " mean colour of the picture's outermost pixels"
        )
    return (
        f"resize the shorter side to {backbone.resize} (bilinear, antialiased), crop the middle"
        f" {CROP}"
    )


def _limits(names: Sequence[str]) -> str:
    return (
        "## Limits\n\n"
        f"It knows only {listed(names)}. What looks like none of them is meant to be called"
        " unknown, which fails for strangers that resemble a class; its answer is always one of"
        " these names, so heed `novelty`. It shares the mistakes and habits of the pictures that"
        " it learned from. Do not use it where an error hurts someone.\n"
    )


def _licences(backbone: BackboneInfo) -> str:
    return (
        "## Licences\n\n"
        f"{backbone.license} The licences of the training pictures are listed in report.html.\n"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = []
    for row in [head, ["---"] * len(head), *rows]:
        cells = [str(cell) for cell in row]
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def _plain(name: str) -> str:
    """Return a class name that cannot break out of a Markdown table, heading or line."""
    return _escaped(name, r"\|*_`[]<>#~&")


def _prose(sentence: str) -> str:
    """Return a sentence of ours with the class names in it kept from becoming markup."""
    return _escaped(sentence, r"\|*`[]<>&")


def _escaped(text: str, signs: str) -> str:
    one_line = " ".join(text.split())
    return "".join(f"\\{sign}" if sign in signs else sign for sign in one_line)
