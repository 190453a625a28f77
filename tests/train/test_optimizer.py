"""Muon orthogonalises what it should, leaves the rest to an AdamW that equals torch's, and learns."""

import pytest
import torch
from torch import nn

from sora2.train.config import OptimizerConfig
from sora2.train.optimizer import MuonAdamW, build_optimizer, orthogonalize


@pytest.mark.parametrize("shape", [(16, 16), (8, 64), (64, 8)])
def test_orthogonalize_keeps_directions_and_flattens_singular_values(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = orthogonalize(matrix)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.4 and values.max() < 1.4
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    core = u.mT @ result @ vh.mT
    assert (core - core.diagonal().diag()).abs().max() < 0.02


@pytest.mark.parametrize("shape", [(256, 128), (160, 512)])
def test_bf16_iterations_step_the_same_way(shape, monkeypatch):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -2, shape[1])
    monkeypatch.setattr("sora2.train.optimizer.has_fast_bf16", lambda: False)
    exact = orthogonalize(matrix)
    monkeypatch.setattr("sora2.train.optimizer.has_fast_bf16", lambda: True)
    low = orthogonalize(matrix)
    assert low.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(low.flatten(), exact.flatten(), dim=0) > 0.999


def train(optimizer, model, steps=20):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(32, 8, generator=generator)
        loss = (model(x) - x.roll(1, dims=1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 8))


def test_the_adam_part_equals_torch():
    ours, theirs = network(), network()
    train(
        MuonAdamW([{"params": list(ours.parameters()), "weight_decay": 0.1, "lr": 1e-2}], (0.9, 0.99), 1e-8),
        ours,
    )
    train(
        torch.optim.AdamW(theirs.parameters(), lr=1e-2, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1), theirs
    )
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_muon_takes_hidden_matrices_only_and_decay_spares_vectors():
    model = network()
    optimizer = build_optimizer(
        dict(model.named_parameters()), OptimizerConfig(name="muon"), outer=("0.", "4.")
    )
    muon = [p for g in optimizer.param_groups if g["muon"] for p in g["params"]]
    assert len(muon) == 1 and muon[0] is model[2].weight
    assert all(g["weight_decay"] == 0 for g in optimizer.param_groups if g["params"][0].ndim < 2)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == 6


def test_muon_learns():
    model = network()
    optimizer = build_optimizer(
        dict(model.named_parameters()), OptimizerConfig(name="muon"), outer=("0.", "4.")
    )
    for group in optimizer.param_groups:
        group["lr"] = 2e-2
    first = train(optimizer, model, 1)
    assert train(optimizer, model, 200) < 0.4 * first
