"""`light-tts voices`: list, add, show, rename, remove, blend, import; here or, with --server, through a server."""

from __future__ import annotations

import argparse
import math
from dataclasses import fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from light_tts.config import ServerConfig
from light_tts.errors import InvalidInput
from light_tts.voice_access import NewVoice, Voices, VoicesOfServer, VoicesOnDisk
from light_tts.voice_info import default_voices_dir

_LIMITS = ("max_voices", "max_voice_mb", "max_prompt_s")


def add_voice_options(parser: argparse.ArgumentParser) -> None:
    """Without an action the voices are listed, as ever."""
    shared = argparse.ArgumentParser(add_help=False)
    _add_shared(shared)
    _add_shared(parser)
    parser.set_defaults(action="list", model_dir=None, voices_dir=None, server=None)
    for name in _LIMITS:
        parser.set_defaults(**{name: None})
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", parents=[shared], help="all voices (the default)")
    add = actions.add_parser("add", parents=[shared], help="register a voice out of a recording")
    add.add_argument("recording", type=Path, help="audio file of 0.5-30 s")
    add.add_argument("--name", required=True, help="letters, digits, _ and -")
    add.add_argument("--text", default="", help="what the recording says; omit it to take the voice only")
    _add_details(add, consent=True)
    show = actions.add_parser("show", parents=[shared], help="what is known of a voice")
    show.add_argument("name")
    rename = actions.add_parser("rename", parents=[shared], help="give a registered voice another name")
    rename.add_argument("old")
    rename.add_argument("new")
    remove = actions.add_parser("remove", parents=[shared], help="delete a registered voice")
    remove.add_argument("name")
    blend = actions.add_parser("blend", parents=[shared], help="mix the speaker embeddings of voices")
    blend.add_argument("name", help="of the new voice")
    blend.add_argument("parts", nargs="+", metavar="VOICE=WEIGHT", help="two to eight voices")
    blend.add_argument(
        "--prompt-voice", help="one of them, whose recording the mix speaks on from (default: nobody's)"
    )
    _add_details(blend, consent=False)
    take_over = actions.add_parser("import", parents=[shared], help="speakers of CosyVoice's spk2info.pt")
    take_over.add_argument("archive", type=Path, help="spk2info.pt; nothing of it is run")
    take_over.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="LABEL[=NAME]",
        help="import this one, under that name",
    )
    take_over.add_argument("--consent", nargs="?", const="true", default="", help="the speakers agree")
    take_over.add_argument("--overwrite", action="store_true", help="replace voices of the same names")


def run_voices(options: argparse.Namespace, console: Console) -> int:
    """Returns the exit status. Raises errors of `light_tts.errors`; OSError."""
    voices = _voices(options)
    match options.action:
        case "add":
            _add(voices, options, console)
        case "show":
            _show(voices, options.name, console)
        case "rename":
            voices.rename(options.old, options.new)
            _tell(console, f"{options.old} is called {options.new} now")
        case "remove":
            voices.remove(options.name)
            _tell(console, f"{options.name} is removed")
        case "blend":
            _blend(voices, options, console)
        case "import":
            _import(voices, options, console)
        case _:
            _list(voices, console)
    return 0


def _voices(options: argparse.Namespace) -> Voices:
    limits = {name: getattr(options, name) for name in _LIMITS if getattr(options, name) is not None}
    if options.server is not None:
        local = {"--model_dir": options.model_dir, "--voices_dir": options.voices_dir} | limits
        unread = [flag for flag, value in local.items() if value is not None]
        if unread:
            raise InvalidInput(f"{', '.join(unread)} cannot be used with --server, which has its own")
        return VoicesOfServer(options.server)
    folder = options.voices_dir or default_voices_dir()
    if folder is None:
        raise InvalidInput("this user has no home: say where voices are (--voices_dir)")
    return VoicesOnDisk(options.model_dir, folder, ServerConfig(**limits))


def _add(voices: Voices, options: argparse.Namespace, console: Console) -> None:
    new = NewVoice(
        name=options.name,
        ref_text=options.text,
        description=options.description,
        language=options.language,
        consent=options.consent,
        overwrite=options.overwrite,
    )
    voices.add(new, _bytes_of(options.recording))
    _tell(console, f"{options.name} is registered")


def _blend(voices: Voices, options: argparse.Namespace, console: Console) -> None:
    new = NewVoice(
        name=options.name,
        description=options.description,
        language=options.language,
        overwrite=options.overwrite,
    )
    voices.blend(new, _weights(options.parts), options.prompt_voice)
    _tell(console, f"{options.name} is registered")


def _import(voices: Voices, options: argparse.Namespace, console: Console) -> None:
    new = NewVoice(name="", consent=options.consent, overwrite=options.overwrite)
    names = voices.take_over(new, _bytes_of(options.archive), ",".join(options.label))
    _tell(console, f"registered: {', '.join(names)}")


def _show(voices: Voices, name: str, console: Console) -> None:
    info = voices.show(name)
    for item in fields(info):
        if value := getattr(info, item.name):
            _tell(console, f"{item.name}: {value}")


def _list(voices: Voices, console: Console) -> None:
    table = Table("name", "language", "kind", "description")
    for voice in voices.list():
        table.add_row(voice.name, voice.language or "-", voice.kind, voice.description)
    console.print(table)


def _weights(parts: list[str]) -> dict[str, float]:
    """VOICE=WEIGHT each; raises InvalidInput."""
    weights: dict[str, float] = {}
    for part in parts:
        name, equals, number = part.partition("=")
        try:
            weight = float(number) if equals else 1.0
        except ValueError:
            weight = math.nan
        if not name or math.isnan(weight):
            raise InvalidInput(f"{part!r} must be VOICE=WEIGHT, such as nora=0.7")
        if name in weights:
            raise InvalidInput(f"{name!r} is named more than once")
        weights[name] = weight
    return weights


def _bytes_of(path: Path) -> bytes:
    if not path.is_file():
        raise InvalidInput(f"{path} does not exist or is no regular file")
    return path.read_bytes()


def _add_shared(parser: argparse.ArgumentParser) -> None:
    nothing = (
        argparse.SUPPRESS
    )  # the same options stand before and behind the action: neither undoes the other
    parser.add_argument(
        "--server", metavar="URL", default=nothing, help="ask this server in place of the disk"
    )
    parser.add_argument(
        "--model_dir",
        "--model-dir",
        type=Path,
        default=nothing,
        help="CosyVoice2/3 model directory (default: the bundled voice)",
    )
    parser.add_argument(
        "--voices_dir",
        "--voices-dir",
        type=Path,
        default=nothing,
        help="folder of registered voices (default: as `light-tts serve`)",
    )
    parser.add_argument("--max_voices", type=int, default=nothing, help="as the server's flag")
    parser.add_argument("--max_voice_mb", type=float, default=nothing, help="as the server's flag")
    parser.add_argument("--max_prompt_s", type=float, default=nothing, help="as the server's flag")


def _add_details(parser: argparse.ArgumentParser, *, consent: bool) -> None:
    parser.add_argument("--description", default="", help="for people")
    parser.add_argument("--language", default="", help="zh, en, ...: for the choice of a default voice")
    parser.add_argument("--overwrite", action="store_true", help="replace a voice of the same name")
    if consent:
        parser.add_argument(
            "--consent",
            nargs="?",
            const="true",
            default="",
            help="the speaker agrees; with a word: an id of yours by which that can be shown",
        )


def _tell(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
