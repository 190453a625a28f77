"""The toybox: a procedural audio-video world with exact ground truth."""

from sora2.toybox.captions import WORDS, caption, mentions
from sora2.toybox.config import (
    SPLITS,
    ToyboxConfig,
    ToyboxError,
    pixel_to_world,
    world_to_pixel,
)
from sora2.toybox.scene import SCENES, Scene, get_scene, register_scene
from sora2.toybox.toybox import Toybox, attributes, clip_from_spec
from sora2.toybox.vocabulary import (
    AMBIENCES,
    BACKGROUNDS,
    COLORS,
    GRAVITIES,
    HELD_OUT,
    MATERIALS,
    SIZES,
    STYLES,
    Material,
)

__all__ = [
    "AMBIENCES",
    "BACKGROUNDS",
    "COLORS",
    "GRAVITIES",
    "HELD_OUT",
    "MATERIALS",
    "SCENES",
    "SIZES",
    "SPLITS",
    "STYLES",
    "WORDS",
    "Material",
    "Scene",
    "Toybox",
    "ToyboxConfig",
    "ToyboxError",
    "attributes",
    "caption",
    "clip_from_spec",
    "get_scene",
    "mentions",
    "pixel_to_world",
    "register_scene",
    "world_to_pixel",
]
