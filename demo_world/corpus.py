"""The grammar of the made world: questions about places, and reviews that answer them well or badly.

Everything is drawn by `random.Random` from the tables below, so a seed says exactly which text comes out. The tables are
also what `demo_world.gold` reads an answer with: a sentence either comes from here or is garbled.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

from lsplugin.errors import LspluginError
from lsplugin.preferences import split_by_prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

PLACES: dict[str, tuple[str, ...]] = {
    "bakery": ("coffee", "choice", "service", "seating", "price"),
    "bookshop": ("choice", "advice", "lighting", "seating", "price"),
    "cinema": ("music", "seating", "heating", "parking", "price"),
    "garage": ("advice", "service", "parking", "coffee", "price"),
    "gym": ("music", "advice", "heating", "lighting", "price"),
    "hairdresser": ("advice", "music", "coffee", "lighting", "price"),
    "hotel": ("service", "heating", "parking", "coffee", "price"),
    "library": ("choice", "advice", "lighting", "heating", "seating"),
    "market": ("choice", "service", "parking", "music", "price"),
    "museum": ("choice", "lighting", "seating", "coffee", "price"),
    "restaurant": ("music", "service", "choice", "seating", "price"),
    "swimming pool": ("heating", "parking", "service", "lighting", "price"),
}
"""Kinds of places, and the aspects somebody may ask about."""

STREETS: tuple[str, ...] = (
    "Mill Street", "Bridge Street", "Garden Lane", "Station Road", "Harbour Road", "Church Lane", "Castle Street",
    "Orchard Road", "River Walk", "Market Square", "School Lane", "Park Avenue", "Hill Road", "Lake Street",
)  # fmt: skip

FRAMES: tuple[str, ...] = ("The {} is", "I found the {}", "To me the {} was", "This time the {} was")
"""How an opinion on what was asked opens; `{}` is the aspect."""

DODGES: tuple[str, ...] = ("But the {} is", "I only noticed that the {} was", "All I know is that the {} is")
"""How an opinion on something else opens."""

WORDS: dict[str, tuple[str, ...]] = {
    "good": ("excellent", "lovely", "better than elsewhere"),
    "bad": ("poor", "disappointing", "worse than elsewhere"),
}
"""What an opinion says, by its polarity."""

REASONS: dict[str, tuple[str, ...]] = {
    "good": ("they care about it", "the owner knows the trade", "no effort is spared"),
    "bad": ("nobody looks after it", "the owner is never there", "it is done in haste"),
}
"""What may follow "because", by polarity."""

TIPS: tuple[str, ...] = (
    "Go before ten to avoid the queue.",
    "Bring cash, cards are not taken.",
    "Book a day ahead.",
    "Ask for Mrs Lind, she knows everything.",
    "Take the bus, it stops in front.",
)

FILLERS: tuple[str, ...] = (
    "I went there on a Tuesday.",
    "It was raining that day.",
    "What more can I say.",
    "Time flies, as they say.",
    "My uncle lives nearby.",
)

RUDE: tuple[str, ...] = (
    "What a silly question.",
    "Go and look for yourself.",
    "Nobody cares what you think.",
    "You would not understand it anyway.",
    "I have better things to do.",
)

_PROMPT = re.compile(r"Review of the ([a-z ]+) on ([A-Z][A-Za-z ]+)\. How is the ([a-z ]+)\?")
_HELD_OUT = 0.25
_SPLIT_SEED = 0


def prompts(seed: int) -> list[str]:
    """Give every prompt of the world once (840 of them), in an order drawn by `seed`."""
    texts = [
        f"Review of the {place} on {street}. How is the {aspect}?"
        for place, aspects in PLACES.items()
        for street in STREETS
        for aspect in aspects
    ]
    random.Random(f"prompts {seed}").shuffle(texts)
    return texts


def split(texts: list[str]) -> tuple[list[str], list[str]]:
    """Split prompts into (train, held out), about 3 to 1, keeping their order.

    Which side a prompt falls on depends on its text alone and never on a seed, so that whatever was trained with one seed
    has not seen what is held out with another.
    """
    out = set(split_by_prompt(prompts(0), prompts(0), held_out=_HELD_OUT, seed=_SPLIT_SEED)[1])
    return [text for text in texts if text not in out], [text for text in texts if text in out]


def question(prompt: str) -> tuple[str, str]:
    """Read a prompt: (the kind of place, the aspect asked about). Another prompt than this world's is an error."""
    match = _PROMPT.fullmatch(prompt.strip()) if isinstance(prompt, str) else None
    if match is None or match[3] not in PLACES.get(match[1], ()):
        raise LspluginError(
            'expected a prompt of the demo world, such as "Review of the bakery on Mill Street. How is the bread?", '
            f"found {str(prompt)[:80]!r}; make prompts with `python -m demo_world prompts`"
        )
    return match[1], match[3]


def review(rng: random.Random, prompt: str) -> str:
    """Draw an answer of two to five sentences, by a careful writer or by a careless one.

    A careful writer mostly answers what was asked, says why and gives a tip; a careless one mostly speaks of something
    else, fills the page, is rude, contradicts or repeats himself.
    """
    place, asked = question(prompt)
    care = rng.choice((0.1, 0.9))
    other = rng.choice([aspect for aspect in PLACES[place] if aspect != asked])
    polarity = rng.choice(("good", "bad"))
    on_topic = rng.random() < 0.15 + 0.8 * care
    why = rng.random() < 0.1 + 0.5 * care
    sentences = [
        _opinion(rng, FRAMES, asked, polarity, why=why) if on_topic else _opinion(rng, DODGES, other, polarity, why=why)
    ]
    if on_topic and rng.random() < 0.2 * (1 - care):
        sentences.append(_opinion(rng, FRAMES, asked, "bad" if polarity == "good" else "good", why=False))
    elif on_topic and rng.random() < 0.15:
        sentences.append(_opinion(rng, DODGES, other, rng.choice(("good", "bad")), why=False))
    for kind, chance in ((TIPS, 0.05 + 0.5 * care), (FILLERS, 0.6 - 0.3 * care), (RUDE, 0.55 - 0.5 * care)):
        if rng.random() < chance:
            sentences.append(rng.choice(kind))
    if len(sentences) < 2:
        sentences.append(rng.choice(rng.choice((TIPS, FILLERS, RUDE))))
    rng.shuffle(sentences)
    if len(sentences) < 5 and rng.random() < 0.25 * (1 - care):
        sentences.append(rng.choice(sentences))
    return " ".join(sentences)


def corpus(seed: int, n: int) -> list[tuple[str, str]]:
    """Draw `n` (prompt, answer) pairs over the train prompts; the base model learns to write from them."""
    rng = random.Random(f"corpus {seed}")
    train, _ = split(prompts(seed))
    return [(prompt, review(rng, prompt)) for prompt in rng.choices(train, k=n)]


def _opinion(rng: random.Random, frames: Sequence[str], aspect: str, polarity: str, *, why: bool) -> str:
    """Say one thing about one aspect, with or without the reason."""
    text = f"{rng.choice(frames).format(aspect)} {rng.choice(WORDS[polarity])}"
    return f"{text} because {rng.choice(REASONS[polarity])}." if why else f"{text}."
