"""Pages as a browser shows them, drawn here: what searches for pictures find besides."""

import random

from PIL import Image, ImageDraw, ImageFont

_WORDS = ("about", "home", "learn", "market", "news", "people", "power", "pricing", "sign", "the")


def page(seed: int, width: int = 900, height: int = 700) -> Image.Image:
    """A page with a bar on top, a heading and paragraphs, other words for each seed."""
    chosen = random.Random(seed)
    image = Image.new("RGB", (width, height), (255, 255, 250 - 5 * (seed % 4)))
    draw = ImageDraw.Draw(image)
    color = (chosen.randrange(120), chosen.randrange(120), chosen.randrange(100, 200))
    draw.rectangle((0, 0, width, 44), fill=color)
    small = ImageFont.load_default(16)
    draw.text((20, 12), "Home   News   Shop   About", fill="white", font=small)
    draw.text((40, 70), _line(chosen, 4), fill=color, font=ImageFont.load_default(40))
    for number in range(140, height - 40, 22):
        if number % 5:
            draw.text((40, number), _line(chosen, 14), fill=(40, 40, 40), font=small)
    return image


def _line(chosen: random.Random, words: int) -> str:
    return " ".join(chosen.choice(_WORDS) for _ in range(words)).capitalize()
