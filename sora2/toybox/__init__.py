"""The toybox: a procedural audio-video world with exact ground truth."""

from sora2.toybox.captions import WORDS, mentions
from sora2.toybox.config import (
    SPLITS,
    WHOLE_SCENES,
    ToyboxConfig,
    ToyboxError,
    pixel_to_world,
    whole_world,
    world_to_pixel,
)
from sora2.toybox.scene import SCENES, Scene, get_scene, register_scene
from sora2.toybox.toybox import Toybox, attributes, clip_from_spec, controls_of
from sora2.toybox.vocabulary import (
    AMBIENCE_LEVELS,
    AMBIENCES,
    BACKGROUNDS,
    CAMERAS,
    COLORS,
    GRAVITIES,
    HELD_OUT,
    LIGHTS,
    MATERIALS,
    OBSTACLES,
    PACINGS,
    SIZES,
    STYLES,
    Material,
)

__all__ = [
    "AMBIENCES",
    "AMBIENCE_LEVELS",
    "BACKGROUNDS",
    "CAMERAS",
    "COLORS",
    "GRAVITIES",
    "HELD_OUT",
    "LIGHTS",
    "MATERIALS",
    "OBSTACLES",
    "PACINGS",
    "SCENES",
    "SIZES",
    "SPLITS",
    "STYLES",
    "WHOLE_SCENES",
    "WORDS",
    "Material",
    "Scene",
    "Toybox",
    "ToyboxConfig",
    "ToyboxError",
    "attributes",
    "clip_from_spec",
    "controls_of",
    "get_scene",
    "mentions",
    "pixel_to_world",
    "register_scene",
    "whole_world",
    "world_to_pixel",
]
