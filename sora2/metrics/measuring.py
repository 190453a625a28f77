"""One clip through all metrics: gates first, then every metric on shared evidence. What worker processes run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from sora2.metrics.controls import Item
from sora2.metrics.corpus import Outcome
from sora2.metrics.evidence import Evidence
from sora2.metrics.features import get_feature
from sora2.metrics.gates import Expected, failed_gates
from sora2.metrics.registry import Metric, all_metrics
from sora2.metrics.values import MetricValue
from sora2.metrics.weights import weights_state
from sora2.processes import worker_pool
from sora2.types import Clip


@dataclass(frozen=True)
class Task:
    """What is measured of every clip."""

    metrics: tuple[str, ...]
    features: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()  # of the features
    expected: Expected = field(default_factory=Expected)


def measure(item: Item, task: Task, *, shared: Evidence | None = None) -> Outcome:
    """All metrics and features of one clip.

    A clip that could not be read, or that fails a gate, is unmeasurable by all metrics, for that reason. `shared`:
    evidence of a clip with some of the very same streams, whose measurements are taken over.
    """
    known = all_metrics()
    metrics = {n: known[n] for n in task.metrics}
    common: dict[str, Any] = {"key": item.key, "prompt": item.prompt, "seed": item.seed, "path": item.path}
    if item.clip is None:
        values = {n: MetricValue.missing(item.failure, m.unit) for n, m in metrics.items()}
        return Outcome(**common, values=values, gates={"decodes": item.failure})
    evidence = Evidence(item.clip, truth=item.truth, reference=item.reference)
    if shared is not None:
        evidence.share(shared)
    return Outcome(
        **common,
        **measure_evidence(evidence, metrics, task),
        fps=item.clip.fps,
        size=(0, 0) if item.clip.video is None else tuple(item.clip.video.shape[1:3]),
    )


def measure_evidence(evidence: Evidence, metrics: Mapping[str, Metric], task: Task) -> dict[str, Any]:
    """{"gates", "values", "features"} of one clip. Metrics that need a reference, or enrolment, are absent where
    there is none."""
    gates = failed_gates(evidence, task.expected)
    values: dict[str, MetricValue] = {}
    for name, metric in metrics.items():
        if any(n in metric.needs and not evidence.offers(n) for n in ("reference", "enrolment")):
            continue
        value = metric.evaluate(evidence)
        if value is not None:  # None: the truth does not ask for it, which a failed gate does not change
            reason = f"fails a gate: {'; '.join(gates.values())}"
            values[name] = MetricValue.missing(reason, metric.unit) if gates else value
    features = {} if gates else {n: get_feature(n)(evidence) for n in task.features}
    return {"gates": gates, "values": values, "features": features}


def measure_all(
    items: Iterable[Item], task: Task, *, workers: int = 1, cache_file: Path | None = None
) -> Iterator[Outcome]:
    """Outcomes of `items`, in order; clips are handed to `workers` processes, a few ahead.

    `cache_file`: outcomes are appended to it as they are made, and those of the same clip, metrics and code are not
    made again: an interrupted evaluation continues where it stopped.
    """
    done = {} if cache_file is None else _read_cache(cache_file)
    file = None
    if cache_file is not None:
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        file = cache_file.open("a")
    pool = worker_pool(workers) if workers > 1 else None
    try:
        waiting: list[tuple[str, Outcome | Future[Outcome]]] = []
        source = iter(items)
        while True:
            for item in islice(source, 4 * workers - len(waiting)):
                digest = "" if cache_file is None else fingerprint(item, task)
                if digest in done:
                    waiting.append(("", done[digest]))
                elif pool is None:
                    waiting.append((digest, measure(item, task)))
                else:
                    waiting.append((digest, pool.submit(measure, item, task)))
            if not waiting:
                return
            digest, found = waiting.pop(0)
            outcome = found.result() if isinstance(found, Future) else found
            if file is not None and digest:
                file.write(json.dumps({"digest": digest, "outcome": asdict(outcome)}) + "\n")
                file.flush()
            yield outcome
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)
        if file is not None:
            file.close()


def fingerprint(item: Item, task: Task) -> str:
    """Of everything that an outcome depends on: the clip, what it is measured against, the metrics, their code and
    weights."""
    digest = hashlib.sha256(code_fingerprint().encode())
    plain = [item.key, item.prompt, item.seed, item.path, item.failure, item.truth, asdict(task)]
    known = all_metrics()
    needed = dict.fromkeys([*(w for name in task.metrics for w in known[name].weights), *task.weights])
    plain.append(weights_state(needed))
    digest.update(json.dumps(plain, sort_keys=True, default=str).encode())
    enrolment = () if item.clip is None else item.clip.meta.get("enrolment", ())
    for clip in (item.clip, item.reference, *enrolment):
        digest.update(clip_digest(clip))
    return digest.hexdigest()


@cache
def code_fingerprint() -> str:
    """Of the source of the metrics."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*")):
        if path.suffix in (".py", ".json"):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def outcome_from(plain: dict[str, Any]) -> Outcome:
    """The inverse of `dataclasses.asdict`."""
    values = {n: MetricValue(**v) for n, v in plain["values"].items()}
    return Outcome(**{**plain, "values": values, "size": tuple(plain["size"])})


def clip_digest(clip: Clip | None) -> bytes:
    """Of its pictures and its sound."""
    if clip is None:
        return b"none"
    digest = hashlib.sha256(f"{clip.fps} {clip.sample_rate}".encode())
    for stream in (clip.video, clip.audio):
        if stream is not None:
            digest.update(str(tuple(stream.shape)).encode())
            digest.update(stream.contiguous().numpy().tobytes())
    return digest.digest()


def _read_cache(path: Path) -> dict[str, Outcome]:
    if not path.exists():
        return {}
    found = {}
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # the last line of an interrupted run may be cut; its clip is measured again
        found[entry["digest"]] = outcome_from(entry["outcome"])
    return found
