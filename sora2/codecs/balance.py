"""Latents whose distances are those of what they stand for.

A codec is free to spend a unit of variance on the brightness of a whole cell, and another on a detail that hardly
shows; a diffusion model then spends as much of its loss on the one as on the other. `balance` gives the latents the
directions and scales of the decoder's mean Jacobian: with power 1 an error of the latent is as large as the error of
the pixels that it makes, to first order; with power 0 nothing but the directions changes. Only the linear layers on
either side of the latent change, so what comes out of the codec does not.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor

from sora2.codecs.base import LatentCodec


@torch.no_grad()
def latent_metric(
    codec: LatentCodec, inputs: Iterable[Tensor], probes: int = 2, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """(C, C) each: mean over positions of J^T J, J the decoder's Jacobian at normalised latents; and their covariance.

    Hutchinson's estimate: gradients of the output along random signs, `probes` for each of `inputs` (B, ...), which are
    pixels or samples.
    """
    generator = torch.Generator().manual_seed(seed)
    channels = codec.latent_channels
    metric, gradients = torch.zeros(channels, channels), 0
    moment, total, positions = torch.zeros(channels, channels), torch.zeros(channels), 0
    for x in inputs:
        latent = codec.encode(x)  # (B, C, ...)
        flat = latent.transpose(0, 1).flatten(1)  # (C, positions)
        moment += flat @ flat.T
        total += flat.sum(1)
        positions += flat.shape[1]
        for _ in range(probes):
            with torch.enable_grad():
                point = latent.clone().requires_grad_()
                output = codec.decode_raw(codec.denormalize(point))
                signs = torch.randint(0, 2, output.shape, generator=generator).to(output) * 2 - 1
                (gradient,) = torch.autograd.grad((output * signs).sum(), point)
            flat = gradient.transpose(0, 1).flatten(1)
            metric += flat @ flat.T
            gradients += flat.shape[1]
    mean = total / positions
    return metric / gradients, moment / positions - torch.outer(mean, mean)


@torch.no_grad()
def balance(codec: LatentCodec, metric: Tensor, covariance: Tensor, power: float = 1.0) -> LatentCodec:
    """A copy of `codec` whose latents are scaled by (metric's eigenvalues)^(power / 2) along its directions, the most
    important first, and have a variance of 1 in the mean over channels.

    Its posterior has one variance for all inputs, that of typical ones: to train it further, train it as a new codec.
    """
    values, directions = torch.linalg.eigh(metric.double())
    values, directions = values.flip(0).clamp_min(1e-12), directions.flip(1)
    turn = values.pow(power / 2)[:, None] * directions.T  # of normalised latents
    turn /= (torch.trace(turn @ covariance.double() @ turn.T) / len(turn)).sqrt()
    forward = turn * (codec.latent_spread / codec.latent_std).double()  # of raw latents, less their mean
    backward = torch.linalg.inv(forward)
    mean = codec.latent_mean.double()
    result = copy.deepcopy(codec)
    c = codec.latent_channels
    out = result.encoder_out
    posterior = torch.exp(out.bias[c:].double())
    _set(out.weight[:c], forward @ out.weight[:c].double())
    _set(out.bias[:c], forward @ out.bias[:c].double())
    out.weight[c:] = 0.0
    _set(out.bias[c:], (forward.square() @ posterior).log())
    linear = result.linear_encoder
    _set(linear.weight, forward @ linear.weight.double())
    _set(linear.bias, forward @ (linear.bias.double() - mean))
    for layer in (result.decoder_in, result.linear_decoder):
        weight = layer.weight.double()
        _set(layer.bias, layer.bias.double() + weight @ mean)
        _set(layer.weight, weight @ backward)
    spread = (turn @ covariance.double() @ turn.T).diag().sqrt().float()
    result.set_statistics(torch.zeros(c), spread)
    result.latent_spread.copy_(spread)
    return result


def _set(target: Tensor, value: Tensor) -> None:
    target.copy_(value.to(target.dtype))
