"""All scenes; importing this package registers them."""

from sora2.toybox.scenes import bounce as bounce
from sora2.toybox.scenes import strike as strike
from sora2.toybox.scenes import weather as weather
from sora2.toybox.scenes import talk as talk
from sora2.toybox.scenes import street as street
