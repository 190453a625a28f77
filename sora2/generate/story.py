"""A clip told in cards: each says what is seen and heard from its second on, until the next.

A card goes on from what came before it, or begins a new shot after a cut.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from sora2.generate.grid import Grid
from sora2.generate.request import Card, Request, RequestError

_CARD = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(cut)?\s*:(.*)", re.DOTALL)


def parse_cards(values: Sequence[str]) -> tuple[Card, ...]:
    """`SECOND: PROMPT` or `SECOND cut: PROMPT` of every card, or the name of a .txt file of one a line.

    Raises:
        RequestError: no such file, or something that is not a card.
    """
    if len(values) == 1 and values[0].endswith(".txt"):
        path = Path(values[0])
        if not path.is_file():
            raise RequestError(f"--story {path} does not exist")
        values = [line for line in path.read_text().splitlines() if line.strip()]
        if not values:
            raise RequestError(f"--story {path} has no card in it")
    cards = []
    for value in values:
        found = _CARD.fullmatch(value)
        if found is None:
            raise RequestError(
                f'--story: {value!r} is not a card; write "0: a red ball rolls", or "2.5 cut: a face says ..." where '
                "a new shot begins"
            )
        cards.append(Card(float(found[1]), found[3].strip(), cut=found[2] is not None))
    return tuple(cards)


@dataclass(frozen=True)
class Scene:
    """Frames first .. last - 1 of a clip, told by one prompt; times in it are counted from `first`."""

    first: int
    last: int
    shot: int  # the frame at which its shot begins
    prompt: str


def scenes(request: Request, frames: int, grid: Grid) -> list[Scene]:
    """What is told of a clip of so many frames, in order: one scene without cards.

    Raises:
        RequestError: a card that begins where another does, or not within the clip.
    """
    if not request.story:
        return [Scene(0, frames, 0, request.prompt)]
    begins = [round(card.start * grid.fps) for card in request.story]
    for card, first, last in zip(request.story, begins, [*begins[1:], frames], strict=True):
        if first >= frames:
            raise RequestError(
                f"--story: the card at {card.start:g} s begins after the end of a clip of {frames / grid.fps:g} s; "
                "give more --seconds, or a longer source"
            )
        if first == last:
            raise RequestError(
                f"--story: the card at {card.start:g} s and the next begin with the same frame at {grid.fps:g} fps"
            )
    found, shot = [], 0
    for card, (first, last) in zip(request.story, pairwise([*begins, frames]), strict=True):
        shot = first if card.cut else shot
        prompt = ", ".join(part for part in (request.prompt, card.prompt) if part)
        found.append(Scene(first, last, shot, prompt))
    return found
