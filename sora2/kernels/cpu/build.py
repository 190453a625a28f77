"""The compiled CPU kernels as a shared library: built once per machine with the system's C++ compiler, then found.

The library's name holds a hash of all that decides what it contains: sources, flags, compiler and processor. It is
written under a temporary name and renamed, so any number of processes may build at once.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

SOURCE = Path(__file__).parent / "source"
#: Tried in this order; the environment variable CXX goes before them.
COMPILERS = ("c++", "g++", "clang++")
#: No -ffast-math: NaN and infinity must pass through, the trainer looks for them.
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math", "-w")
SECONDS = 120


class BuildError(Exception):
    """Why there is no library: one line for a person."""


def cache_folder() -> Path:
    """Where libraries lie: SORA2_KERNEL_CACHE, else a folder of the user's cache."""
    named = os.environ.get("SORA2_KERNEL_CACHE")
    if named:
        return Path(named)
    import platformdirs  # here, so that the kernels are imported and benchmarked where only PyTorch is installed

    return Path(platformdirs.user_cache_dir("sora2")) / "kernels"


def find_compiler() -> str:
    wanted = os.environ.get("CXX")
    for name in (wanted,) if wanted else COMPILERS:
        found = shutil.which(name)
        if found is not None:
            return found
    raise BuildError(
        f"the compiler CXX={wanted} is not on the path"
        if wanted
        else "no C++ compiler (g++ or clang++) is on the path"
    )


@functools.cache
def cpuinfo() -> str:
    """What Linux says of the processor; nothing on other systems."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def processor() -> str:
    """What decides which instructions `-march=native` uses."""
    lines = cpuinfo().splitlines()
    if not lines:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))


def is_amd() -> bool:
    """Whether the processor is AMD's."""
    return "AuthenticAMD" in cpuinfo()


def library_path() -> tuple[Path, list[str]]:
    """Where the library of these sources, this compiler and this processor is, and the command that builds it."""
    compiler = find_compiler()
    native = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
    command = [compiler, *FLAGS, native, str(SOURCE / "main.cpp")]
    try:
        version = subprocess.run(
            [compiler, "--version"], capture_output=True, text=True, timeout=SECONDS
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"the compiler {compiler} does not run: {error}") from error
    digest = hashlib.sha256("\0".join([*command[1:-1], version, processor(), torch.__version__]).encode())
    for path in sorted(SOURCE.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return cache_folder() / f"sora2_cpu_{digest.hexdigest()[:24]}.so", command


def build() -> Path:
    """The library, compiled when it is not there yet (about six seconds).

    Raises:
        BuildError: no compiler, a compiler that fails, a folder that cannot be written.
    """
    path, command = library_path()
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(descriptor)
    except OSError as error:
        raise BuildError(
            f"the folder {path.parent} cannot be written ({error.strerror}); set SORA2_KERNEL_CACHE to one that can"
        ) from error
    try:
        done = subprocess.run([*command, "-o", temporary], capture_output=True, text=True, timeout=SECONDS)
        if done.returncode:
            first = next(
                (line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200]
            )
            raise BuildError(f"{command[0]} fails with exit code {done.returncode}: {first}")
        os.chmod(temporary, 0o755)
        os.replace(temporary, path)
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"{command[0]} does not finish: {error}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path
