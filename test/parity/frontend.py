"""Text normalisation, splitting and the tokenizer, against recording `frontend`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from light_tts.encode.normalise import reference
from light_tts.encode.special_tokens import END_OF_TEXT
from light_tts.encode.text import TextNormaliser
from light_tts.encode.tokenizer import TextTokenizer
from light_tts.quirks import ReferenceQuirks
from test.parity.recording import Recording
from test.parity.report import Report

PRIMITIVES: dict[str, Callable[[str], object]] = {
    "replace_blank": reference.replace_blanks,
    "replace_corner_mark": reference.replace_superscripts,
    "remove_bracket": reference.remove_brackets,
    "spell_out_number": reference.spell_out_numbers,
    "is_only_punctuation": reference.is_only_punctuation,
}


def check(folder: Path, report: Report) -> list[Recording]:
    """Run every recorded text through the product's text front end in reference mode."""
    recording = Recording(folder / "fixtures", "frontend")
    check_primitives(recording, report)
    for version in (2, 3):
        directory = folder / f"cosyvoice{version}" / "CosyVoice-BlankEN"
        if not directory.is_dir():
            continue
        tokenizer = TextTokenizer.from_model_dir(directory, version)
        check_tokenizer(recording, report, tokenizer, f"v{version}")
        check_normalisation(recording, report, tokenizer, f"v{version}")
    return [recording]


def check_primitives(recording: Recording, report: Report) -> None:
    for name, cases in recording.meta("primitives").items():
        for text, expected in cases:
            report.equal(f"frontend.{name}", repr(text), PRIMITIVES[name](text), expected)


def check_tokenizer(recording: Recording, report: Report, tokenizer: TextTokenizer, version: str) -> None:
    for case in recording.meta("tokenizer"):
        ids = tokenizer.encode(case["text"], allow_control=True, allow_tags=True)
        report.equal(f"frontend.tokenizer.{version}", repr(case["text"]), ids, case[version])
    added = {token: token_id for token, token_id in tokenizer.special_ids.items() if token != END_OF_TEXT}
    expected: dict[str, int] = recording.meta("special_ids", version)
    report.equal(f"frontend.special_ids.{version}", "tokens", sorted(added), sorted(expected))
    for token, token_id in expected.items():
        report.equal(f"frontend.special_ids.{version}", token, added.get(token), token_id)


def check_normalisation(recording: Recording, report: Report, tokenizer: TextTokenizer, version: str) -> None:
    def count_tokens(text: str) -> int:
        return len(tokenizer.encode(text, allow_control=True, allow_tags=True))

    quirks = ReferenceQuirks.reference()
    normaliser = TextNormaliser(count_tokens, quirks)
    untouched = TextNormaliser(count_tokens, quirks, enabled=False)
    for case in recording.meta("text_normalize_no_tn"):
        name, text = f"frontend.normalise.{version}", case["text"]
        shown = repr(text[:24])
        report.equal(name, f"{shown} split", normaliser.split(text), case["split_true"])
        report.equal(name, f"{shown} whole", normaliser.normalise(text), case["split_false"])
        report.equal(name, f"{shown} off", untouched.split(text), case["text_frontend_false"])
