"""The host and its device: small tensors that are sent together and never fetched back, and random numbers for both.

Reading a tensor of a GPU on the host waits for everything that was asked of the GPU before. So what decides how to
compute (masks, noise levels, positions) is made on the host and sent, and the host keeps what it sent.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

#: Where a tensor on a device keeps the one that it was sent from. Whatever is computed from it has none of its own.
SOURCE = "_sora2_sent_from"
#: Bytes at whose multiples the tensors of one transfer begin.
ALIGNMENT = 16


def on_host(x: Tensor) -> Tensor:
    """`x` on the CPU: what it was sent from, or else, and slower, a copy."""
    if x.device.type == "cpu":
        return x
    source = getattr(x, SOURCE, None)
    return x.cpu() if source is None else source


def tokens_of(x: Tensor, first: int, last: int) -> Tensor:
    """Tokens [first, last) of `x` (B, N, ...), with what it was sent from."""
    part, source = x[:, first:last], getattr(x, SOURCE, None)
    if source is not None:
        setattr(part, SOURCE, source[:, first:last])
    return part


def send(tensors: Sequence[Tensor], device: torch.device | str) -> list[Tensor]:
    """The tensors on `device`. To a GPU they go in one transfer, which the host does not wait for.

    Axes along which a tensor repeats itself (`expand`) are sent once. Tensors must not be changed afterwards.
    """
    device = torch.device(device)
    here = [i for i, t in enumerate(tensors) if t.device.type == "cpu"]
    if device.type != "cuda" or not here:
        return [t.to(device) for t in tensors]
    cores = [tensors[i][tuple(slice(0, 1 if s == 0 else None) for s in tensors[i].stride())] for i in here]
    buffer, starts = _packed(cores)
    arrived = buffer.to(device, non_blocking=True)
    found = [t.to(device) if t.device.type != "cpu" else t for t in tensors]
    for i, core, start in zip(here, cores, starts, strict=True):
        found[i] = _part(arrived, start, core).expand(tensors[i].shape)
        setattr(found[i], SOURCE, tensors[i])
    return found


def _packed(tensors: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
    """All of them in one buffer of bytes, pinned where there is a GPU, and where each begins."""
    sizes = [-(-t.numel() * t.element_size() // ALIGNMENT) * ALIGNMENT for t in tensors]
    *starts, end = itertools.accumulate(sizes, initial=0)
    buffer = torch.empty(end, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
    for tensor, start in zip(tensors, starts, strict=True):
        _part(buffer, start, tensor).copy_(tensor)
    return buffer, starts


def _part(packed: Tensor, start: int, like: Tensor) -> Tensor:
    """The bytes of `like` in `packed`, as a tensor of its shape and dtype."""
    return packed[start : start + like.numel() * like.element_size()].view(like.dtype).view(like.shape)


class Arriving:
    """Numbers on their way to the host while the device goes on: `read` waits for them, and for nothing asked later."""

    def __init__(self, x: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if x.device.type != "cuda":
            self._numbers = x.detach().clone()
            return
        self._numbers = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
        self._numbers.copy_(x.detach(), non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record(torch.cuda.current_stream(x.device))

    def read(self) -> Tensor:
        if self._event is not None:
            self._event.synchronize()
        return self._numbers


def noise_generator(generator: torch.Generator, device: torch.device | str) -> torch.Generator:
    """For draws of many numbers on `device`: `generator` where that is its device, else one of the device's own.

    The rule of random numbers: decisions are drawn on the host from a generator keyed by the place in the run; noise is
    drawn where it is used, by a generator that one number from the first seeds.
    """
    device = torch.device(device)
    if generator.device.type == device.type:
        return generator
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return torch.Generator(device).manual_seed(int(seed))
