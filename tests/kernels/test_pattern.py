"""A pattern is what its rule says in words, checked token by token against plain arithmetic."""

import pytest
import torch

from sora2.kernels import PADDING, Boxes, Part, PatternError, Rule, TilePattern, Tiles, Tiling, concatenate
from sora2.kernels.picture import draw_pattern, states

GRID, TILE, TEXT, AUDIO = (6, 5, 7), (2, 2, 3), 9, 40
VIDEO_SECONDS = ((torch.arange(6) + 0.5) * 0.25).repeat_interleave(35)
AUDIO_SECONDS = (torch.arange(AUDIO) + 0.5) * 0.04
N = TEXT + 210 + AUDIO


def tiling(chunk_seconds=None, text=TEXT):
    parts = [
        Part("text", torch.zeros(1, text)),
        Part("video", VIDEO_SECONDS[None], GRID),
        Part("audio", AUDIO_SECONDS[None]),
    ]
    return Tiling.of(parts, TILE, 16, chunk_seconds)


def in_raster(t, pattern):
    """(N, N) bool of the definition, rows and columns in the order of the clip."""
    back = t.order.argsort()
    return pattern.allowed()[0, 0][back][:, back]


def test_tile_order_is_a_permutation_that_keeps_boxes_together():
    boxes = Boxes.of(GRID, TILE)
    order = boxes.order()
    assert torch.equal(order.sort().values, torch.arange(210))
    place = torch.stack(torch.meshgrid(*(torch.arange(n) for n in GRID), indexing="ij"), -1).view(-1, 3)[
        order
    ]
    box = place // torch.tensor(TILE)
    expected = boxes.coordinates().repeat_interleave(boxes.sizes(), dim=0)
    assert torch.equal(box, expected)


def test_the_default_rule_is_everything():
    t = tiling()
    assert bool(t.pattern(Rule()).allowed().all())
    assert t.pattern(Rule()).density == 1.0


def test_causality_by_chunks():
    t = tiling(0.5)
    chunk = torch.cat(
        [torch.full((TEXT,), -1.0), (VIDEO_SECONDS / 0.5).floor(), (AUDIO_SECONDS / 0.5).floor()]
    )
    pattern = t.pattern(Rule())
    assert torch.equal(in_raster(t, pattern), chunk <= chunk[:, None])
    assert pattern.key_rank is None  # tiles end where chunks end: no comparison is left to kernels


def test_windows_count_tiles_and_move_inwards_at_borders():
    t = tiling()
    allowed = in_raster(t, t.pattern(Rule((3, 1, 3))))[TEXT:-AUDIO, TEXT:-AUDIO]
    place = torch.stack(torch.meshgrid(*(torch.arange(n) for n in GRID), indexing="ij"), -1).view(-1, 3)
    box, expected = place // torch.tensor(TILE), torch.ones(210, 210, dtype=torch.bool)
    for axis, (width, count) in enumerate(zip((3, 1, 3), (3, 3, 3), strict=True)):
        first = (box[:, axis] - width // 2).clamp(0, count - width)[:, None]
        expected &= (box[:, axis] >= first) & (box[:, axis] < first + width)
    assert torch.equal(allowed, expected)


def test_a_causal_window_looks_back():
    t = tiling(0.25)  # a chunk per frame, so tiles of one frame
    allowed = in_raster(t, t.pattern(Rule((3, 99, 99))))[TEXT:-AUDIO, TEXT:-AUDIO]
    frame = torch.arange(210) // 35
    assert torch.equal(allowed, (frame <= frame[:, None]) & (frame > frame[:, None] - 3))


def test_sound_and_picture_meet_in_time():
    t = tiling()
    pattern = t.pattern(Rule(None, 0.1, 0.3))
    allowed = in_raster(t, pattern)
    video, audio = slice(TEXT, TEXT + 210), slice(TEXT + 210, N)
    gap = (VIDEO_SECONDS[:, None] - AUDIO_SECONDS).abs()
    assert bool(allowed[video, audio][gap <= 0.1].all()) and bool(allowed[audio, video].T[gap <= 0.3].all())
    # Beyond the seconds and what two tiles add (0.5 s of video, 0.64 s of sound) nothing is seen.
    assert not bool(allowed[video, audio][gap > 0.1 + 0.25 + 0.6].any())
    assert not bool(allowed[audio, video].T[gap > 0.3 + 0.25 + 0.6].any())
    assert bool(allowed[audio, audio].all()) and bool(allowed[video, video].all())
    assert bool(allowed[:, :TEXT].all()) and bool(allowed[:TEXT].all())


@pytest.mark.parametrize("chunk_seconds", [None, 0.5])
def test_lists_are_transposed_sorted_and_classified(chunk_seconds):
    t = tiling(chunk_seconds)
    mask = torch.ones(2, N, dtype=torch.bool)
    mask[0, 4:9] = False
    pattern = t.pattern(Rule((3, 1, 1), 0.2)).with_padding(mask)
    n = pattern.queries.count
    found = {}
    for lists in (pattern.by_query, pattern.by_key):
        pairs = []
        for row in range(n):
            entries = lists.entry[lists.start[row] : lists.start[row + 1]].tolist()
            full = int(lists.full[row])
            assert entries[:full] == sorted(entries[:full]) and entries[full:] == sorted(entries[full:])
            pairs += [(row, e, i < full) for i, e in enumerate(entries)]
        found[lists is pattern.by_query] = set(pairs)
    assert found[True] == {(q, k, full) for k, q, full in found[False]}
    allowed = pattern.allowed(2, 1)[:, 0]
    owner = pattern.queries.of_token()
    for q in range(n):
        for k in range(n):
            block = allowed[:, owner == q][:, :, owner == k]
            whole = bool(block.all()) and block.shape[-1] == pattern.keys.size
            listed = (q, k, whole) in found[True]
            assert listed == bool(block.any())


def test_padding_hides_keys_of_its_own_sample_only():
    mask = torch.rand(3, N, generator=torch.Generator().manual_seed(0)) > 0.3
    pattern = tiling(0.5).pattern(Rule((3, 1, 1)))
    assert torch.equal(pattern.with_padding(mask).allowed(3, 1), pattern.allowed() & mask[:, None, None, :])


def test_clocks_that_differ_within_a_batch():
    clock = torch.stack([VIDEO_SECONDS, VIDEO_SECONDS + 0.3])
    t = Tiling.of([Part("text", torch.zeros(2, TEXT)), Part("video", clock, GRID)], TILE, 16, 0.5)
    allowed = t.pattern(Rule()).allowed(2, 1)[:, 0]
    chunk = torch.cat([torch.full((2, TEXT), -1.0), (clock / 0.5).floor()], dim=1)[:, t.order]
    assert torch.equal(allowed, chunk[:, None, :] <= chunk[:, :, None])


def test_packed_samples_do_not_see_each_other():
    short, long = tiling(0.5, text=3).pattern(Rule()), tiling().pattern(Rule((1, 1, 1)))
    packed = concatenate([short, long])
    expected = torch.block_diag(short.allowed()[0, 0].int(), long.allowed()[0, 0].int()).bool()
    assert torch.equal(packed.allowed()[0, 0], expected)
    n = short.queries.count
    assert packed.queries.sample.tolist() == [0] * n + [1] * (packed.queries.count - n)


def test_density_and_bytes_are_those_of_the_lists():
    pattern = tiling().pattern(Rule((1, 1, 1), 0.0))
    assert pattern.density == pytest.approx(float(pattern.allowed().double().mean()))
    assert pattern.list_bytes < 5000


def test_the_geometry_of_five_seconds_has_the_published_density():
    """20 x 32 x 48 latents, 500 sound tokens, 256 of text: 246 tiles; density by hand in the docs of patterns."""
    seconds = ((torch.arange(20) + 0.5) / 4).repeat_interleave(32 * 48)[None]
    sound = ((torch.arange(500) + 0.5) / 100)[None]
    parts = [Part("text", torch.zeros(1, 256)), Part("video", seconds, (20, 32, 48)), Part("audio", sound)]
    pattern = Tiling.of(parts, (4, 4, 8), 128).pattern(Rule((3, 5, 3), 0.5, 0.5))
    assert pattern.queries.count == 246 and pattern.queries.tokens == 31_476
    assert pattern.density == pytest.approx(0.211, abs=0.001)
    assert pattern.list_bytes < 128 * 1024


def test_any_pattern_can_be_drawn(tmp_path):
    t = tiling()
    mask = torch.ones(1, N, dtype=torch.bool)
    mask[0, 5:9] = False
    pattern = t.pattern(Rule((3, 1, 1), 0.2)).with_padding(mask)
    path = draw_pattern(pattern, tmp_path / "pattern.png", title="window")
    assert path.stat().st_size > 5000
    drawn = states(pattern)
    assert torch.equal(drawn > 0, pattern.matrix()[0])
    assert bool((drawn[:, 0] == 1).all())  # the padded text tile is seen by mask


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rule((2, 3, 3)), "three odd numbers"),
        (lambda: Rule(video_hears_seconds=-1.0), "at least 0"),
        (lambda: Rule(top_k=0), "at least 1"),
        (lambda: Tiles.of_lengths([3, 0]), "at least one token"),
        (lambda: Tiles.regular(10, 0), "too small"),
        (lambda: Tiling.of([Part("video", torch.zeros(1, 11), (2, 2, 3))], TILE, 8), "do not fill the grid"),
        (
            lambda: Tiling.of([Part("video", torch.zeros(1, 12))], TILE, 8).pattern(Rule((1, 1, 1))),
            "video_shape",
        ),
        (lambda: tiling().pattern(Rule()).with_padding(torch.ones(1, 3, dtype=torch.bool)), "has 259 keys"),
        (
            lambda: TilePattern.of_matrix(
                Tiles.regular(8, 4), Tiles.regular(8, 4), torch.ones(1, 3, 2).bool()
            ),
            "expected",
        ),
    ],
)
def test_impossible_patterns_say_why(make, message):
    with pytest.raises(PatternError, match=message):
        make()


def test_padding_is_a_rank_that_no_query_reaches():
    pattern = tiling(0.5).pattern(Rule()).with_padding(torch.zeros(1, N, dtype=torch.bool))
    assert pattern.by_query.entry.numel() == 0
    assert PADDING > 2**30
