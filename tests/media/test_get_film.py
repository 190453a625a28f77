"""The film's script, without a network."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from sora2.errors import UserError

FILM = b"a film" * 1000


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("get_film", Path("scripts/get_film.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "FILM_SHA256", hashlib.sha256(FILM).hexdigest())
    monkeypatch.setattr(module, "FILM_BYTES", len(FILM))
    return module


def package(path: Path, script, film: bytes) -> Path:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr(script.FILM_IN_ZIP, film)
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo(script.ZIP_IN_PACKAGE)
        member.size = inner.tell()
        inner.seek(0)
        tar.addfile(member, inner)
    return path


def test_a_local_package_or_film_is_unpacked_verified_and_credited(script, tmp_path, capsys):
    source = package(tmp_path / "moviepy-2.2.1.tar.gz", script, FILM)
    (tmp_path / "copy.mp4").write_bytes(FILM)
    for number, local in enumerate((source, tmp_path / "copy.mp4")):
        out = tmp_path / str(number)
        assert script.main(["--out", str(out), "--from", str(local)]) == 0
        assert sorted(p.name for p in out.iterdir()) == ["LICENCE.txt", "bbb.json", "bbb.mp4"]
        assert (out / "bbb.mp4").read_bytes() == FILM
        assert "Blender Foundation" in (out / "LICENCE.txt").read_text()
        sidecar = json.loads((out / "bbb.json").read_text())
        assert sidecar["licence"] == "CC-BY-3.0" and "Blender Foundation" in sidecar["source"]
        assert sidecar["caption"]
    assert "CC-BY-3.0" in capsys.readouterr().out


def test_a_second_run_fetches_nothing(script, tmp_path, monkeypatch):
    (tmp_path / "bbb.mp4").write_bytes(FILM)
    monkeypatch.setattr(script, "_obtain", lambda *_: pytest.fail("fetched again"))
    assert script.get_film(tmp_path) == tmp_path / "bbb.mp4"


def test_another_film_is_refused_and_the_old_one_kept(script, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "bbb.mp4").write_bytes(b"older")
    wrong = package(tmp_path / "wrong.tar.gz", script, b"another film")
    with pytest.raises(UserError, match=r"wrong\.tar\.gz.*sha256"):
        script.get_film(out, wrong)
    (tmp_path / "broken.tar.gz").write_bytes(
        package(tmp_path / "whole.tar.gz", script, FILM).read_bytes()[:-40]
    )
    with pytest.raises(UserError, match=r"broken\.tar\.gz"):
        script.get_film(out, tmp_path / "broken.tar.gz")
    assert [p.name for p in out.iterdir()] == ["bbb.mp4"] and (out / "bbb.mp4").read_bytes() == b"older"


def test_no_network_names_the_way_out(script, tmp_path, monkeypatch, capsys):
    def offline(command, **kwargs):
        return script.subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution found\n")

    monkeypatch.setattr(script.subprocess, "run", offline)
    assert script.main(["--out", str(tmp_path / "out")]) == 1
    message = capsys.readouterr().err
    assert "No matching distribution" in message and "--from FILE" in message
    assert list((tmp_path / "out").iterdir()) == []
