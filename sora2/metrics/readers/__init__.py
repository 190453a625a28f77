"""Attribute readers: a small network that tells from pixels and sound alone what a caption would say.

    reading = read_clip(load_reader(find_weights("readers")), clip)
    reading["style"].value        # "cartoon"

`attributes` says what is read and what a truth asks for; `network` is the network, `training` its training
(`sora2 train experiment=readers`), `damage` what training does to clips, `reading` how a clip is read, `accuracy` how
well.
"""

from sora2.metrics.readers.attributes import ATTRIBUTES, Attribute, asked_attributes

__all__ = ["ATTRIBUTES", "Attribute", "asked_attributes"]
