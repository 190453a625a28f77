"""Passing vehicles: retarded time, Doppler ratio, level, picture, captions."""

import numpy as np
import pytest

from sora2.toybox.config import ToyboxError
from sora2.toybox.doppler import SPEED_OF_SOUND, PassBy

RATE = 16000


@pytest.mark.parametrize("speed", [-40.0, -10.0, 0.0, 12.0, 60.0])
def test_retarded_time_solves_the_wave_equation(speed):
    line = PassBy(1.0, 10.7, speed)
    heard = np.linspace(-1, 3, 101)
    emitted = line.emitted_seconds(heard)
    np.testing.assert_allclose(heard - emitted, line.distance(emitted) / SPEED_OF_SOUND, atol=1e-12)
    np.testing.assert_allclose(line.heard_seconds(emitted), heard, atol=1e-12)
    step = 1e-5
    slope = (line.emitted_seconds(heard + step) - line.emitted_seconds(heard - step)) / (2 * step)
    np.testing.assert_allclose(line.pitch_ratio(heard), slope, rtol=1e-8)
    before, after = line.pitch_ratio(np.array([-1e5, 1e5]))
    np.testing.assert_allclose([before, after], line.pitch_ratios, rtol=1e-6)


def test_the_pitch_passes_through_one_when_the_sound_of_the_nearest_point_is_heard():
    line = PassBy(1.0, 20.0, 25.0)
    assert line.pitch_ratio(line.heard_seconds(1.0)) == pytest.approx(1.0, abs=1e-12)


def test_a_line_through_the_listener_is_refused():
    with pytest.raises(ToyboxError, match="closest_metres"):
        PassBy(0.0, 0.0, 10.0)
