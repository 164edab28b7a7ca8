"""What the model card tells a reader to type, typed as it stands in the unzipped folder."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from tests.training import example_models
from training.images.decode import as_array, read_image
from training.predict import open_model

# Runs each block by itself, then asks what it made for the picture's class.
TYPIST = """
import json, sys
import torch
from PIL import Image
names = json.load(open("config.json", encoding="utf-8"))["label_names"]
picture = Image.open("picture.jpg").convert("RGB")
answers = {}
prepare = None
blocks = json.loads(sys.argv[1])
for block in sorted(blocks, key=lambda block: "prepare" not in block):
    made = {}
    exec(block, made)
    prepare = made.get("prepare", prepare)
    if "classify" in made:
        answers["transformers"] = made["classify"]("picture.jpg")[0]["label"]
    elif "model" in made:
        with torch.inference_mode():
            scores = made["model"].eval()(prepare(picture)[None])[0]
        library = "timm" if "prepare" in made else "torchvision"
        answers[library] = names[int(scores.argmax())]
print(json.dumps(answers))
"""


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
def test_every_snippet_of_the_card_runs_as_written_and_gives_the_same_answer(
    backbone: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path / "picaisso-mammal-plant-model"
    example_models.export(folder, backbone, tmp_path_factory.getbasetemp() / "caches")
    blots = example_models.blots(np.random.default_rng(5), 300, 300)
    Image.fromarray(blots).save(folder / "picture.jpg", quality=95)
    card = (folder / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.+?)\n```$", card, re.DOTALL | re.MULTILINE)
    assert all(len(block.splitlines()) == 3 for block in blocks)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", TYPIST, json.dumps(blocks)],
        cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-2000:]
    answers = json.loads(ended.stdout.splitlines()[-1])
    libraries = {"timm", "transformers"}
    if backbone == "resnet18":
        libraries.add("torchvision")
    assert set(answers) == libraries
    said = open_model(folder).predict(read_image(folder / "picture.jpg"))
    assert set(answers.values()) == {said.label}
    probabilities = open_model(folder).run(as_array(read_image(folder / "picture.jpg")))
    shown = re.search(r"^\[\[([\d. e-]+)\]\]$", ended.stdout, re.MULTILINE)
    assert shown, "ONNX Runtime's block prints the probabilities"
    printed = [float(number) for number in shown[1].split()]
    assert np.allclose(printed, probabilities.probabilities, atol=1e-3)

    data = ModelCard(card, ignore_metadata_errors=False).data
    (result,) = data.eval_results or [None]
    assert result is not None and result.metric_type == "accuracy" and result.metric_value == 1.0
    assert data.pipeline_tag == "image-classification" and data.library_name == "timm"
