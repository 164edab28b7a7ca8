"""Which view of the images a run takes."""

import dataclasses

import numpy as np

from tests.training.example_results import labels_of
from training.fitting.selection import SplitImages
from training.fitting.view import SAMPLE, compare_views, sample_of_learned
from training.run_folder import ImageRow

CLASSES = 2


def images_of(count: int) -> SplitImages:
    """Images of two classes whose embeddings by the crop tell nothing."""
    random = np.random.default_rng(0)
    ids = [label.id for label in labels_of(["cat", "dog"])]
    rows = []
    for index in range(count):
        split = "test" if index % 5 == 4 else "train"
        rows.append(ImageRow(f"{index}.jpg", ids[index % 2], f"{index:064d}", split=split))
    labels = np.arange(count) % 2
    return SplitImages(
        rows=rows,
        embeddings=random.normal(size=(count, 16)).astype(np.float32),
        labels=labels,
        groups=np.arange(count),
        statistics=np.zeros((count, 0), np.float32),
        manifest_indices=np.arange(count),
        manifest=rows,
        classes=CLASSES,
        seed=0,
    )


def telling(images: SplitImages) -> np.ndarray:
    truth = np.eye(CLASSES)[images.labels].repeat(8, axis=1)
    return (images.embeddings + 2 * truth).astype(np.float32)


def test_the_view_whose_unseen_predictions_lose_less_is_taken() -> None:
    images = images_of(100)
    sample = sample_of_learned(images)
    chosen = compare_views(images, telling(images)[sample], sample)
    assert chosen["chosen"] == "letterbox"
    assert chosen["losses"]["letterbox"] < chosen["losses"]["crop"]
    assert chosen["sentence"].startswith("The whole of each picture, padded to a square: loss 0.")
    assert chosen["sentence"].endswith("cross-validated on 80 pictures.")
    swapped = dataclasses.replace(images, embeddings=telling(images))
    assert compare_views(swapped, images.embeddings[sample], sample)["chosen"] == "crop"


def test_alike_views_are_the_crop() -> None:
    images = images_of(60)
    sample = sample_of_learned(images)
    assert compare_views(images, images.embeddings[sample], sample)["chosen"] == "crop"


def test_no_test_image_and_at_most_so_many_others_take_part_in_the_choice() -> None:
    images = images_of(1000)
    sample = sample_of_learned(images)
    assert len(set(sample.tolist())) == SAMPLE
    assert all(images.rows[index].split == "train" for index in sample)
    again = sample_of_learned(images)
    assert np.array_equal(sample, again)


def test_a_small_class_takes_part_in_the_choice_with_all_its_images() -> None:
    images = images_of(2000)
    labels = np.zeros(2000, np.int64)
    labels[:2000:200] = 1
    unequal = dataclasses.replace(images, labels=labels)
    sample = sample_of_learned(unequal)
    assert len(set(sample.tolist())) == SAMPLE
    learned = unequal.labels[unequal.indices("train", "val")]
    assert unequal.labels[sample].sum() == learned.sum()
