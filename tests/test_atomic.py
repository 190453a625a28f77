"""A failed write leaves the earlier file whole and no litter."""

import errno

import pytest
import torch
from safetensors.torch import load_file

from sora2.atomic import save_json, save_safetensors, write_atomic
from sora2.errors import UserError


def test_full_disk_keeps_the_earlier_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_safetensors({"w": torch.ones(3)}, path)

    def fail(temporary):
        temporary.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=r"weights\.safetensors.*free space"):
        write_atomic(path, fail)
    assert torch.equal(load_file(str(path))["w"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_interrupt_keeps_the_earlier_file(tmp_path):
    path = tmp_path / "a.json"
    save_json({"a": 1}, path)

    def interrupt(temporary):
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, interrupt)
    assert path.read_text() == '{\n "a": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    save_safetensors({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
