"""Who may be seen in which split."""

import itertools

from sora2.toybox import ToyboxConfig
from sora2.toybox.identity import APPEARANCE, CLIPS_PER_CAMEO, HELD_OUT_SHARE, identity_of


def appearance(identity):
    return tuple(getattr(identity, name) for name in APPEARANCE)


def test_cameos_are_never_seen_in_training_nor_in_the_other_splits():
    cameo = ToyboxConfig(split="cameo")
    strangers = {appearance(identity_of(cameo, i)[0]) for i in range(0, 800, CLIPS_PER_CAMEO)}
    assert len(strangers) > 150
    for split in ("train", "validation", "test"):
        config = ToyboxConfig(split=split)
        seen = [identity_of(config, i)[0] for i in range(400)]
        assert not any(identity.held_out for identity in seen)
        assert not strangers & {appearance(identity) for identity in seen}


def test_about_one_appearance_in_eight_is_held_out_and_every_value_is_trained_on():
    identity = identity_of(ToyboxConfig(), 0)[0]
    others = identity.__dict__
    shares, values = [], set()
    for words in itertools.product(*APPEARANCE.values()):
        other = type(identity)(**(others | dict(zip(APPEARANCE, words, strict=True))))
        shares.append(other.held_out)
        if not other.held_out:
            values.update(zip(APPEARANCE, words, strict=True))
    assert abs(sum(shares) / len(shares) - 1 / HELD_OUT_SHARE) < 0.02
    assert len(values) == sum(len(names) for names in APPEARANCE.values())


def test_takes_of_a_cameo_show_one_person():
    cameo = ToyboxConfig(split="cameo")
    who = [identity_of(cameo, i) for i in range(12)]
    for k in range(0, 12, CLIPS_PER_CAMEO):
        assert len({identity for identity, _ in who[k : k + CLIPS_PER_CAMEO]}) == 1
        assert [truth["role"] for _, truth in who[k : k + 4]] == ["enrolment"] * 3 + ["target"]
    assert who[0][0] != who[4][0]
