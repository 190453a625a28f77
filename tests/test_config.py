"""Config errors name the key, the value and the remedy."""

from dataclasses import dataclass, field

import pytest

from sora2.config import ConfigError, from_mapping, to_mapping


@dataclass(frozen=True)
class Inner:
    width: int = 4
    ratio: float = 2.0


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    betas: tuple[float, float] = (0.9, 0.99)
    limit: int | None = None


def test_round_trip_converts_nested_values():
    built = from_mapping(
        Outer, {"name": "a", "inner": {"width": 8, "ratio": 3}, "betas": [1, 0.5], "limit": 3}
    )
    assert built == Outer("a", Inner(8, 3.0), (1.0, 0.5), 3)
    assert from_mapping(Outer, to_mapping(built)) == built
    assert from_mapping(Outer, {"name": 42}).name == "42"


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"name": "a", "inner": {"widht": 8}}, r"'inner\.widht'.*did you mean 'width'"),
        ({"inner": {}}, "'name' is missing"),
        ({"name": "a", "inner": {"width": "wide"}}, r"inner\.width='wide' must be int"),
        ({"name": "a", "inner": {"width": True}}, r"inner\.width=True must be int"),
        ({"name": "a", "betas": [0.9]}, r"betas=\[0\.9\] must have 2 entries"),
        ({"name": "a", "limit": "x"}, "limit='x' must be int"),
        ({"name": "a", "inner": 3}, "inner: expected a group of keys"),
    ],
)
def test_errors(mapping, message):
    with pytest.raises(ConfigError, match=message):
        from_mapping(Outer, mapping)
