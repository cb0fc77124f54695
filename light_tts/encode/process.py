"""The encode process: `python -m light_tts.child encode`."""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from light_tts.config import ServerConfig
from light_tts.encode.audio import AudioLimits
from light_tts.encode.frontend import TextFrontend
from light_tts.encode.lexicon import Lexicon
from light_tts.encode.planner import Planner
from light_tts.encode.prompt_encoder import PromptEncoder
from light_tts.encode.sender import Sender
from light_tts.encode.service import EncodeService
from light_tts.encode.tokenizer import TextTokenizer
from light_tts.encode.voice_catalog import VoiceCatalog
from light_tts.encode.voices import VoiceStore
from light_tts.encode.voices_told import write_own_voices
from light_tts.messages import Stage, ToEncode
from light_tts.models.bundled import resolve_model_dir
from light_tts.models.config import ModelConfig
from light_tts.models.model_yaml import read_model_config
from light_tts.observe import metrics
from light_tts.quirks import ReferenceQuirks
from light_tts.threads import use_threads
from light_tts.transport import Inbox, address

if TYPE_CHECKING:
    from light_tts.child import Control

logger = logging.getLogger(__name__)

_POLL_S = 0.1
_TEND_S = 0.25


def create(config: ServerConfig, run_dir: Path, index: int) -> EncodeProcess:
    """Load what encoding needs and bind the inbox. Raises errors of `light_tts.errors`, or OSError."""
    return EncodeProcess(config, run_dir, index)


class EncodeProcess:
    """A `StageProcess` of `light_tts.child`."""

    def __init__(self, config: ServerConfig, run_dir: Path, index: int) -> None:
        start = time.monotonic()
        threads = max(1, config.threads_per_process // config.encode_paral_num)
        use_threads(threads)
        folder = resolve_model_dir(config.model_dir)
        model = read_model_config(folder)
        catalog = _catalog(config, folder, model, threads)
        planner = Planner(*_frontends(config, folder, model), catalog)
        catalog.prepare()
        voices = catalog.list()
        write_own_voices(run_dir, catalog.own_voices())
        self._info = {
            "device": "cpu",
            "threads": f"{config.encode_paral_num} x {threads}",
            "voices": str(len(voices)),
        }
        self._max_job_s = config.request_timeout_s
        self._sender = Sender()
        self._service = EncodeService(
            planner,
            catalog,
            self._sender.send,
            partial(address, run_dir),
            metrics(),
            num_threads=config.encode_paral_num,
            max_text_chars=config.max_text_chars,
        )
        self._inbox: Inbox[ToEncode] = Inbox(address(run_dir, Stage.ENCODE, index), ToEncode)  # type: ignore[arg-type]
        logger.info("%d voices, ready after %.1f s", len(voices), time.monotonic() - start)

    def info(self) -> dict[str, str]:
        return dict(self._info)

    def run(self, control: Control) -> None:
        """Serve until `control.stopping`, then fail what is left."""
        tend_at = 0.0
        try:
            while not control.stopping:
                self._receive()
                now = time.monotonic()
                if now >= tend_at:
                    self._service.tend()
                    tend_at = now + _TEND_S
                if self._service.stuck_s() < self._max_job_s:  # else silence brings about a restart
                    control.beat(*self._service.load())
        finally:
            self.close()

    def close(self) -> None:
        self._service.close()
        self._sender.close()
        self._inbox.close()

    def _receive(self) -> None:
        try:
            message = self._inbox.receive(_POLL_S)
        except msgspec.DecodeError as error:  # also what is no msgpack at all
            logger.error("a message cannot be read: %s", error)
            return
        if message is not None:
            self._service.take(message)


def _frontends(config: ServerConfig, folder: Path, model: ModelConfig) -> tuple[TextFrontend, TextFrontend]:
    """With normalisation and without."""
    tokenizer = TextTokenizer.from_model_dir(folder / "CosyVoice-BlankEN", model.version)
    tokenizer.check_fits(model.llm.qwen.vocab_size)
    quirks, limit = ReferenceQuirks(), config.max_text_chars
    lexicon = Lexicon.read(config.lexicon) if config.lexicon is not None else None
    frontend = TextFrontend(tokenizer, model.version, quirks, max_chars=limit, lexicon=lexicon)
    frontend.warm_up()
    return frontend, TextFrontend(tokenizer, model.version, quirks, normalise=False, max_chars=limit)


def _catalog(config: ServerConfig, folder: Path, model: ModelConfig, threads: int) -> VoiceCatalog:
    encoder = PromptEncoder(folder, model, intra_op_threads=threads)
    folder_of_voices = config.voices_dir
    store = (
        VoiceStore(folder_of_voices, model.spk_embed_dim, config.max_voices)
        if folder_of_voices is not None
        else None
    )
    limits = AudioLimits(max_seconds=config.max_prompt_s)
    return VoiceCatalog(folder, encoder, model.spk_embed_dim, store, config.cache_capacity, limits)
