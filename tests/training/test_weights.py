import hashlib
import io
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.conftest import LoopbackServer
from training.networks.backbones import BACKBONES, load_backbone
from training.networks.weights import WeightSources, WeightsUnavailableError, find_weights

CONTENT = b"weights" * 1000
NAME = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


def places(tmp_path: Path, url: str, folder: Path | None = None) -> WeightSources:
    return WeightSources(folder, tmp_path / "cache", url)


def test_weights_are_downloaded_once_and_then_taken_from_the_cache(
    tmp_path: Path, server: LoopbackServer
) -> None:
    server.files[f"/models/{NAME}"] = CONTENT
    seen: list[tuple[int, int]] = []
    for _ in range(2):
        path = find_weights(
            NAME, places(tmp_path, f"{server.url}/models/"), lambda *row: seen.append(row)
        )
        assert path.read_bytes() == CONTENT
    assert server.asked == [f"/models/{NAME}"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [NAME]


def test_the_given_folder_comes_first_and_nothing_is_downloaded(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / NAME).write_bytes(CONTENT)
    assert find_weights(NAME, places(tmp_path, "", tmp_path / "given")) == tmp_path / "given" / NAME


def test_a_damaged_file_in_the_cache_is_downloaded_again(
    tmp_path: Path, server: LoopbackServer
) -> None:
    server.files[f"/{NAME}"] = CONTENT
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / NAME).write_bytes(CONTENT[:-1])
    assert find_weights(NAME, places(tmp_path, server.url)).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "promised", "reason"),
    [
        (None, 0, "the download server answered 404"),
        (b"something else", 0, "wrong hash"),
        (CONTENT[:4000], 3000, "download server|wrong hash"),
    ],
    ids=["not there", "another file", "cut short"],
)
def test_a_file_that_is_not_what_was_promised_is_not_kept(
    tmp_path: Path, server: LoopbackServer, content: bytes | None, promised: int, reason: str
) -> None:
    if content is not None:
        server.files[f"/{NAME}"] = content
    server.promise_more = promised
    with pytest.raises(WeightsUnavailableError, match=reason):
        find_weights(NAME, places(tmp_path, server.url))
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/models", "file:///etc", ""])
def test_a_server_that_cannot_be_asked_is_said_at_once(tmp_path: Path, url: str) -> None:
    started = time.monotonic()
    with pytest.raises(WeightsUnavailableError):
        find_weights(NAME, places(tmp_path, url))
    assert time.monotonic() - started < 15


def test_downloaded_weights_are_the_ones_that_the_network_gets(
    tmp_path: Path, server: LoopbackServer
) -> None:
    from torchvision.models import resnet18

    torch.manual_seed(3)
    original = resnet18()
    stream = io.BytesIO()
    torch.save(original.state_dict(), stream)
    name = f"resnet18-{hashlib.sha256(stream.getvalue()).hexdigest()[:8]}.pth"
    server.files[f"/{name}"] = stream.getvalue()
    wanted = replace(BACKBONES["resnet18"], weights_file=name)
    loaded = load_backbone(wanted, "pretrained", places(tmp_path, server.url))
    assert loaded.notice is None and loaded.weights == "torchvision IMAGENET1K_V1"
    for key, tensor in loaded.network.state_dict().items():
        assert torch.equal(tensor, original.state_dict()[key])


def test_weights_that_cannot_be_had_are_replaced_by_the_bundled_ones_and_said_so(
    tmp_path: Path, server: LoopbackServer
) -> None:
    loaded = load_backbone(BACKBONES["resnet50"], "pretrained", places(tmp_path, server.url))
    assert server.asked == ["/resnet50-11ad3fa6.pth"]
    assert loaded.backbone.name == "efficientnet_lite0"
    assert loaded.notice is not None
    assert (
        "ResNet50" in loaded.notice and "404" in loaded.notice and "used instead" in loaded.notice
    )


def test_the_bundled_network_has_its_real_weights_under_the_names_that_timm_knows() -> None:
    import timm

    loaded = load_backbone(
        BACKBONES["efficientnet_lite0"], "pretrained", WeightSources(None, Path(), "")
    )
    backbone = loaded.backbone
    oracle = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    ours = {
        backbone.exported_name(name): tensor for name, tensor in loaded.network.state_dict().items()
    }
    assert list(ours) == list(oracle.state_dict())
    oracle.load_state_dict(ours, strict=True)
    pictures = torch.randn(2, 3, 224, 224, generator=torch.manual_seed(0))
    with torch.inference_mode():
        expected = oracle.forward_features(pictures)
        found = backbone.last_map(loaded.network.eval(), pictures)
    assert torch.allclose(found, expected, atol=1e-5)
    assert loaded.notice is None and expected.std() > 0.1
