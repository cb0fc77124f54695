"""`light-tts serve | say | voices | bench | doctor | logs`."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from light_tts.bench.command import add_random_options, run_random
from light_tts.errors import InvalidInput, LightTTSError
from light_tts.flags import add_flags, config_from
from light_tts.threads import calm_thread_waits
from light_tts.voice_commands import add_voice_options, run_voices
from light_tts.voice_info import default_voices_dir

if TYPE_CHECKING:
    from light_tts.request import SynthesisRequest
    from light_tts.synthesizer import LightTTS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="light-tts", description="Text to speech with CosyVoice2-type models."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    add_flags(commands.add_parser("serve", help="the HTTP server", allow_abbrev=False))
    say = commands.add_parser("say", help="speak a text, a batch of jobs, or a recording in another voice")
    _add_model_options(say)
    _add_say_options(say)
    add_voice_options(commands.add_parser("voices", help="list, register, rename, remove and mix voices"))
    bench = commands.add_parser("bench", help="measure load time, RTF, time to first audio and memory")
    _add_model_options(bench)
    bench.add_argument("--repeats", type=int, default=3, help="runs of each measurement (default 3)")
    bench.add_argument("--text", help="speak this in place of the built-in sentences")
    bench.add_argument("--json", type=Path, help="also write the figures to this file")
    bench.add_argument("--profile", action="store_true", help="also show the operators that take the time")
    add_random_options(bench)
    doctor = commands.add_parser("doctor", help="check a model directory and this machine")
    doctor.add_argument("model_dir", nargs="?", type=Path, help="default: the bundled voice")
    doctor.add_argument("--verbose", action="store_true", help="name every key, not the first few")
    logs = commands.add_parser("logs", help="how long requests and their stages took, from the server's log")
    logs.add_argument("file", type=Path, help='log file; "-" reads standard input')
    logs.add_argument("--json", action="store_true", help="for scripts")
    return parser


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model_dir",
        "--model-dir",
        type=Path,
        help="CosyVoice2/3 model directory (default: the bundled voice)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")


def _add_say_options(say: argparse.ArgumentParser) -> None:
    say.add_argument("text", nargs="?", help='what to say; "-" reads standard input')
    say.add_argument("-o", "--output", type=Path, help="WAV file; with --batch a folder")
    say.add_argument("--voice", help="name of a voice (see `light-tts voices`)")
    say.add_argument(
        "--voices_dir",
        "--voices-dir",
        type=Path,
        help="folder of registered voices (default: as `light-tts serve`)",
    )
    say.add_argument(
        "--lexicon", type=Path, help="file of words with their pronunciation, word<TAB>respelling"
    )
    say.add_argument("--prompt-audio", type=Path, help="recording of the voice to speak with, 0.5-30 s")
    say.add_argument("--prompt-text", help="what the recording says; omit it to take the voice only")
    say.add_argument("--instruct", help="how to speak, in words the model was trained on")
    say.add_argument("--seed", type=int, help="same seed, same audio")
    say.add_argument("--speed", type=float, default=1.0, help="0.25-4.0, pitch kept (default 1)")
    say.add_argument(
        "--stream", action="store_true", help="synthesise chunk by chunk; prints time to first audio"
    )
    say.add_argument(
        "--tags", action="store_true", help="honour delivery tags such as [laughter] in the text"
    )
    say.add_argument("--convert", type=Path, metavar="WAV", help="speak this recording's words in the voice")
    say.add_argument(
        "--batch", type=Path, metavar="JOBS", help="JSON lines: id, text, lang, prompt_wav, prompt_text"
    )


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    calm_thread_waits()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    console = Console(stderr=True)
    try:
        options = _parser().parse_args(arguments)
        match options.command:
            case "serve":
                return _serve(options)
            case "say":
                return _say(options, console)
            case "voices":
                return run_voices(options, Console())
            case "bench":
                return _bench(options)
            case "logs":
                return _logs(options)
            case _:
                return _doctor(options)
    except LightTTSError as error:
        _tell(console, f"light-tts: {error.code}: {error}", style="red")
        return 2 if isinstance(error, InvalidInput) else 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        _tell(console, f"light-tts: {where}{error.strerror or error}", style="red")
        return 1
    except KeyboardInterrupt:
        return 130


def _tell(console: Console, line: str, style: str | None = None) -> None:
    """One line, never wrapped: it is searched and copied."""
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def _load(options: argparse.Namespace) -> LightTTS:
    from light_tts.synthesizer import LightTTS  # imports torch: only when a model is needed

    return LightTTS(
        options.model_dir,
        options.device,
        dtype=options.dtype,
        voices_dir=options.voices_dir or default_voices_dir(),
        num_threads=options.threads,
        lexicon=options.lexicon,
    )


def _serve(options: argparse.Namespace) -> int:
    from light_tts.server.api_server import serve

    serve(config_from(options))
    return 0


def _say(options: argparse.Namespace, console: Console) -> int:
    if options.output is None:
        raise InvalidInput("say where the audio goes: -o FILE.wav (with --batch: -o FOLDER)")
    if sum(value is not None for value in (options.text, options.convert, options.batch)) != 1:
        raise InvalidInput("give exactly one of TEXT, --convert WAV and --batch JOBS")
    for path in (options.convert, options.batch, options.prompt_audio):
        if path is not None and not path.is_file():
            raise InvalidInput(f"{path} does not exist or is no regular file")
    _refuse_what_would_be_ignored(options)
    if options.batch is None:
        _check_output("-o", options.output)
    elif options.output.exists() and not options.output.is_dir():
        raise InvalidInput(f"-o {options.output} is a file; with --batch it must be a folder")
    if options.batch:
        return _say_batch(options, console)
    if options.convert:
        return _convert(options, console)
    return _say_text(options, console)


def _refuse_what_would_be_ignored(options: argparse.Namespace) -> None:
    ways_of_text = {
        "--instruct": options.instruct,
        "--prompt-text": options.prompt_text,
        "--tags": options.tags,
    }
    if options.batch is not None:
        of_jobs = {"--voice": options.voice, "--prompt-audio": options.prompt_audio}
        unread = ways_of_text | of_jobs | {"--speed": options.speed != 1.0}
        used, advice = "--batch", "; the jobs say it line by line"
    elif options.convert is not None:
        unread, used, advice = ways_of_text | {"--stream": options.stream}, "--convert", ""
    else:
        return
    given = [flag for flag, value in unread.items() if value not in (None, False)]
    if given:
        raise InvalidInput(f"{', '.join(given)} cannot be used with {used}{advice}")


def _check_output(flag: str, output: Path) -> None:
    """Before any work is done for nothing."""
    if output.is_dir():
        raise InvalidInput(f"{flag} {output} is a folder, it must be a file")
    if not output.parent.is_dir():
        raise InvalidInput(f"{flag} {output}: the folder {output.parent} does not exist")
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        raise InvalidInput(f"{flag} {output} cannot be written: permission denied")


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"standard input is not UTF-8 text: byte {error.start} is no part of it"
        ) from error


def _say_batch(options: argparse.Namespace, console: Console) -> int:
    from light_tts.say import run_batch

    failed = run_batch(
        _load(options),
        options.batch,
        options.output,
        stream=options.stream,
        seed=options.seed,
        console=console,
    )
    _tell(
        console, f"wrote {options.output / 'manifest.jsonl'}" + (f", {failed} jobs failed" if failed else "")
    )
    return 1 if failed else 0


def _request(options: argparse.Namespace, text: str) -> SynthesisRequest:
    from light_tts.request import SynthesisRequest

    return SynthesisRequest(
        text=text,
        voice=options.voice,
        prompt_audio=options.prompt_audio,
        prompt_text=options.prompt_text,
        instruct_text=options.instruct,
        seed=options.seed,
        speed=options.speed,
        allow_tags=options.tags,
    )


def _say_text(options: argparse.Namespace, console: Console) -> int:
    from light_tts.say import speak

    text = _standard_input() if options.text == "-" else options.text
    request = _request(options, text)  # wrong options are told before the model loads
    audio, timing = speak(_load(options), request, stream=options.stream)
    audio.save(options.output)
    first = f", first audio after {timing.first_s * 1000:.0f} ms" if options.stream else ""
    seconds = f"{audio.duration_s:.2f} s of audio in {timing.total_s:.2f} s"
    _tell(console, f"{options.output}: {seconds}, RTF {timing.rtf:.3f}{first}")
    return 0


def _convert(options: argparse.Namespace, console: Console) -> int:
    import time

    request = _request(options, "")
    engine = _load(options)
    start = time.perf_counter()
    audio = engine.convert(
        options.convert,
        voice=request.voice,
        prompt_audio=request.prompt_audio,
        speed=request.speed,
        seed=request.seed,
    )
    audio.save(options.output)
    seconds = time.perf_counter() - start
    _tell(console, f"{options.output}: {audio.duration_s:.2f} s of audio in {seconds:.2f} s")
    return 0


def _bench(options: argparse.Namespace) -> int:
    if options.random_weights is not None:
        return run_random(options, Console())
    from light_tts.bench.one_process import measure, show
    from light_tts.request import check_range

    check_range("--repeats", options.repeats, 1, 1000, whole=True)
    if options.json is not None:
        _check_output("--json", options.json)
    figures = measure(
        options.model_dir,
        options.device,
        options.dtype,
        options.threads,
        options.repeats,
        profile=options.profile,
        text=options.text,
    )
    show(figures, Console())
    if options.json:
        options.json.write_text(json.dumps(figures.as_dict(), indent=1) + "\n", encoding="utf-8")
    return 0


def _logs(options: argparse.Namespace) -> int:
    from light_tts.log_report import as_json, as_table, report_of

    if str(options.file) == "-":
        summaries = report_of(io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="replace"))
    else:
        summaries = report_of(options.file)
    if not summaries:
        raise InvalidInput(f"{options.file} has no line that ends with a cost_time")
    if options.json:
        print(as_json(summaries))
    else:
        Console().print(as_table(summaries))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from light_tts.doctor import run

    return run(options.model_dir, Console(), verbose=options.verbose)


if __name__ == "__main__":
    sys.exit(main())
