"""Speaks one text with espeak-ng and ends: run as a program, by file name, with the standard library alone.

espeak-ng keeps state from one utterance to the next (phase, noise, duration), so only a fresh process gives
the same samples every time. It also keeps the library out of the caller's address space.

Arguments: path of the library, path of its data. Standard input: JSON {text, voice, pitch, rate}. Standard
output: one line of JSON {sample_rate, samples, events}, then the samples as native int16. An event is [kind,
sample, name] with kind "word" (name is the offset of its first letter in the text) or "phoneme" (name in
IPA).
"""

import ctypes
import json
import sys

SYNCHRONOUS, PHONEME_EVENTS, PHONEME_IPA, DONT_EXIT = 2, 1, 2, 0x8000
RATE, PITCH = 1, 3  # espeak_PARAMETER
CHARACTER_POSITION, UTF8 = 1, 1
END_OF_LIST, WORD, PHONEME = 0, 1, 7  # espeak_EVENT_TYPE


class EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", EventId),
    )


Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


def main(library: str, data: str) -> None:
    request = json.load(sys.stdin)
    espeak = ctypes.CDLL(library)
    sample_rate = espeak.espeak_Initialize(
        SYNCHRONOUS, 0, data.encode(), PHONEME_EVENTS | PHONEME_IPA | DONT_EXIT
    )
    if sample_rate <= 0:
        sys.exit(f"espeak-ng found no data in {data}")
    sound = bytearray()
    events: list[list] = []

    def hear(samples, count, event):
        if samples and count > 0:
            sound.extend(ctypes.string_at(samples, 2 * count))
        i = 0
        while event[i].type != END_OF_LIST:
            if event[i].type == WORD:
                events.append(["word", event[i].sample, event[i].text_position - 1])
            elif event[i].type == PHONEME:
                events.append(["phoneme", event[i].sample, event[i].id.string.decode("utf-8", "replace")])
            i += 1
        return 0

    callback = Callback(hear)
    espeak.espeak_SetSynthCallback(callback)
    if espeak.espeak_SetVoiceByName(request["voice"].encode()) != 0:
        sys.exit(f"espeak-ng has no voice {request['voice']!r}")
    espeak.espeak_SetParameter(RATE, request["rate"], 0)
    espeak.espeak_SetParameter(PITCH, request["pitch"], 0)
    text = request["text"].encode() + b"\0"
    if espeak.espeak_Synth(text, len(text), 0, CHARACTER_POSITION, 0, UTF8, None, None) != 0:
        sys.exit("espeak-ng did not speak")
    espeak.espeak_Synchronize()
    head = {"sample_rate": sample_rate, "samples": len(sound) // 2, "events": events}
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + bytes(sound))


if __name__ == "__main__":
    main(*sys.argv[1:])
