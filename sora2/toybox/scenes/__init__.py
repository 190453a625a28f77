"""All scenes; importing this package registers them."""

from sora2.toybox.scenes import bounce as bounce
from sora2.toybox.scenes import cradle as cradle
from sora2.toybox.scenes import occlude as occlude
from sora2.toybox.scenes import pendulum as pendulum
from sora2.toybox.scenes import story as story
from sora2.toybox.scenes import street as street
from sora2.toybox.scenes import strike as strike
from sora2.toybox.scenes import talk as talk
from sora2.toybox.scenes import weather as weather
