"""Kinds of damage by what they take away; names are those of `sora2.metrics.corruptions`.

A metric declares what it `answers_to`, and what it notices `also`: damage that destroys what it looks at, or that truly
changes it. It is tested to ignore all the rest.
"""

#: There is less to see.
LOST_PICTURE = ("black", "object removed", "frames frozen")
#: Motion is no longer what it was.
SHAKEN_PICTURE = ("frames dropped", "frames swapped", "backwards", "ghosting", "compression")
#: There is less to hear.
LOST_SOUND = ("sounds removed", "sound noise")
#: There is something else to hear.
FALSE_SOUND = ("clicks", "sound seam", "sounds added", "clipping", "pitch shift", "wrong audio")
#: The law is broken, in picture and sound alike.
BROKEN_LAW = ("gravity", "restitution", "energy", "mass", "time warp", "passed through")
#: Sound is early, late, or each impact by another amount.
MOVED_SOUND = ("audio shift", "event jitter")
