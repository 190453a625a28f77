"""Speech with exact times: backends, a fixed vocabulary, mouth shapes, and words on a clip's clock."""

from sora2.toybox.speech.backend import Span, SpeechBackend, SpeechError, Utterance, Voice
from sora2.toybox.speech.cache import CachedBackend
from sora2.toybox.speech.mouth import Mouth, mouth_of
from sora2.toybox.speech.select import speech_backend
from sora2.toybox.speech.timeline import PlacedWord, place
from sora2.toybox.speech.words import VOCABULARY, check_words

__all__ = [
    "VOCABULARY",
    "CachedBackend",
    "Mouth",
    "PlacedWord",
    "Span",
    "SpeechBackend",
    "SpeechError",
    "Utterance",
    "Voice",
    "check_words",
    "mouth_of",
    "place",
    "speech_backend",
]
