"""Which of the two models is delivered: validation decides, and only where it can show it."""

import pytest

from training.fitting.selection import CHOICE_MINIMUM, choose


@pytest.mark.parametrize(
    ("head", "network", "images", "delivered"),
    [
        ((0.5, 0.8), (0.4, 0.8), CHOICE_MINIMUM, "network"),
        ((0.5, 0.8), (0.4, 0.8), CHOICE_MINIMUM - 1, "head"),  # too few to tell
        ((0.5, 0.8), (0.4, 0.79), 200, "head"),  # fewer hits
        ((0.5, 0.8), (0.5, 0.9), 200, "head"),  # no lower loss
        ((0.5, 0.8), (0.4, 0.95), 200, "network"),
    ],
)
def test_the_network_is_delivered_only_where_val_shows_that_it_is_better(
    head, network, images, delivered
) -> None:
    one, other = ({"val_loss": loss, "val_accuracy": share} for loss, share in (head, network))
    chosen, sentence = choose(one, other, images)
    assert chosen == delivered
    assert ("network is delivered" if chosen == "network" else "head is delivered") in sentence
    assert str(images) in sentence
