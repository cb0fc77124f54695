"""Where the voice that comes with the package lies."""

from __future__ import annotations

from pathlib import Path

from light_tts.errors import ModelNotFound

NAME = "light-tts-mini"


def bundled_model_dir() -> Path | None:
    """The model directory inside the installed package, None if this installation has none."""
    folder = Path(__file__).parent.parent / "voices" / NAME
    return folder if folder.is_dir() else None


def resolve_model_dir(model_dir: Path | str | None) -> Path:
    """`model_dir`, or the bundled voice for None. Raises ModelNotFound, which says what to give."""
    if model_dir is not None:
        folder = Path(model_dir)
        if not folder.is_dir():
            raise ModelNotFound(f"model directory {folder} does not exist")
        return folder
    bundled = bundled_model_dir()
    if bundled is None:
        raise ModelNotFound(
            f"this installation holds no bundled voice ({NAME}): "
            "give --model_dir, a CosyVoice2 or CosyVoice3 model directory"
        )
    return bundled
