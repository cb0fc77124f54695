"""Parity of text to speech tokens: recordings `cv2_llm`, `cv3_llm` and `ras`.

What the fields of a case mean:
feed: the symbols of each forward
kv_len: tokens in the cache after each forward (bistream), or tokens that it fed (otherwise)
sampled, ignore_eos, chosen_logp: one per call of the sampler, which a forced fill token does without
plan: ids that replaced the sampler's choice, by number of the call
nfinal: after how many calls of the last phase eos replaced its choice
min_top2_margin: least distance of the two most probable speech tokens where one was taken
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from light_tts.encode.tokenizer import TextTokenizer
from light_tts.llm.bistream import BistreamSequence
from light_tts.llm.engine import Engine, Event, FailedEvent, FinishedEvent, TokenEvent
from light_tts.llm.request import LengthLimits, SamplingParams, SequenceRequest
from light_tts.llm.sampler import Picker
from light_tts.llm.sequence import SpeechSequence, UniSequence
from light_tts.llm.silent import MAX_SILENT_RUN, SILENT_TOKENS, SilentTokenFilter
from light_tts.models.checkpoint import open_checkpoint
from light_tts.models.loader import load_speech_lm
from light_tts.models.model_yaml import read_model_config
from light_tts.quirks import ReferenceQuirks
from test.parity.llm_probes import Greedy, Trace
from test.parity.ras import check_ras
from test.parity.recording import Recording
from test.parity.report import LOGITS, Report

CPU = torch.device("cpu")
POOL_SIZE = 8192
WITH_VOICE_PROMPT = ("bi_prompt", "bi_onebyone", "bi_earlyfill")
NUM_DROPPED = 3  # bi_long_speech_prompt: prompt speech that the reference never feeds, so it was not recorded


def check(folder: Path, report: Report) -> list[Recording]:
    recordings = []
    for version in (2, 3):
        if not (folder / "fixtures" / f"cv{version}_llm.json").exists():
            continue
        recording = Recording(folder / "fixtures", f"cv{version}_llm")
        _LlmCheck(folder / f"cosyvoice{version}", recording, report).run()
        recordings.append(recording)
    if (folder / "fixtures" / "ras.json").exists():
        recordings.append(check_ras(Recording(folder / "fixtures", "ras"), report))
    return recordings


class _LlmCheck:
    """All cases of one recording."""

    def __init__(self, model_dir: Path, recording: Recording, report: Report) -> None:
        self.recording, self.report = recording, report
        self.model_dir = model_dir
        self.cfg = read_model_config(model_dir).llm
        self.weights = open_checkpoint(model_dir / "llm.pt")
        self.model = load_speech_lm(model_dir, self.cfg, CPU, torch.float32).prepare()
        tokenizer = TextTokenizer.from_model_dir(model_dir / "CosyVoice-BlankEN", self.cfg.version)
        self.end_of_prompt_id = tokenizer.end_of_prompt_id

    def run(self) -> None:
        self.constants()
        self.silent()
        for case in self.recording.meta("margins"):
            if self.recording.has_meta(case, "pieces"):
                self.bistream(case)
            else:
                self.whole_text(case)
        for name in self.recording.tensor_names:
            if found := re.fullmatch(r"ras_seed(\d+)\.tokens", name):
                self.sampler(name, int(found[1]))

    def constants(self) -> None:
        constants, cfg = self.recording.meta("constants"), self.cfg
        shown = constants["stop_token_ids"]  # at most the first five of them
        actual = {
            "speech_token_size": cfg.speech_token_size,
            "eos": cfg.eos_id,
            "fill": cfg.fill_id,
            "stop_token_ids": list(cfg.stop_ids)[: len(shown)],
            "n_stop": len(cfg.stop_ids),
            "mix_ratio": list(cfg.mix_ratio),
            "eop": self.end_of_prompt_id,
        }
        for key in ("sos", "task_id"):
            expected = self.special(constants[key])
            self.report.close(self.name("constants"), key, self.model.embed_special(key), expected, 0.0)
        for key, value in actual.items():
            self.report.equal(self.name("constants"), key, value, constants[key])

    def silent(self) -> None:
        meta, case = self.recording.meta("silent"), self.name("silent")
        self.report.equal(
            case, "silent_tokens", sorted(SILENT_TOKENS[self.cfg.version]), meta["silent_tokens"]
        )
        self.report.equal(case, "max_silent_token_num", MAX_SILENT_RUN, meta["max_silent_token_num"])
        outputs = []
        for tokens in meta["inputs"]:
            silent = SilentTokenFilter(SILENT_TOKENS[self.cfg.version])
            outputs.append([token for token in tokens if silent.keeps(token)])
        self.report.equal(case, "outputs", outputs, meta["outputs"])

    def whole_text(self, case: str) -> None:
        limits = replace(LengthLimits(), **self.recording.meta(case, "kwargs"))
        request = self.request(case, limits)
        picker = Greedy(self.cfg, self.recording.meta(case, "plan") or {})
        trace, tokens = self.generate(request, picker)
        self.compare(case, picker, trace, tokens)
        lens = [batch.sequences[0].query_len for batch in trace.batches]
        self.report.equal(self.name(case), "kv_len", lens, self.recording.meta(case, "kv_len"))
        self.feeds(case, UniSequence(self.cfg, request, ReferenceQuirks.reference()), [])

    def bistream(self, case: str) -> None:
        text, pieces = self.ids("bi_text"), []
        for length in self.recording.meta(case, "pieces"):
            pieces.append(text[:length])
            text = text[length:]
        lens = [len(piece) for piece in pieces]
        self.report.equal(self.name(case), "pieces", lens, self.recording.meta(case, "pieces"))
        request = self.bistream_request(case, sum(lens))
        plan, num_final = self.recording.meta(case, "plan") or {}, self.recording.meta(case, "nfinal")
        picker = Greedy(self.cfg, plan, num_final)
        trace, tokens = self.generate(request, picker, pieces)
        self.compare(case, picker, trace, tokens)
        lens = [batch.sequences[0].kv_len for batch in trace.batches]
        self.report.equal(self.name(case), "kv_len", lens, self.recording.meta(case, "kv_len"))
        quirks = ReferenceQuirks.reference()
        self.feeds(case, BistreamSequence(self.cfg, request, quirks, self.end_of_prompt_id), pieces)

    def sampler(self, name: str, seed: int) -> None:
        """The real sampler; the recording was made with the inputs and limits of `zero_shot`."""
        limits = replace(LengthLimits(), **self.recording.meta("zero_shot", "kwargs"))
        sampling = SamplingParams.of(self.cfg.sampling, seed=seed)
        request = replace(self.request("zero_shot", limits), sampling=sampling)
        _, tokens = self.generate(request, None)
        self.report.equal(self.name(name), "tokens", tokens, self.recording.tensor(name))

    def request(self, case: str, limits: LengthLimits) -> SequenceRequest:
        match case:
            case "no_prompt" if self.cfg.version == 3:
                return SequenceRequest(self.ids("text_with_eop"), limits=limits)
            case "no_prompt":
                return SequenceRequest(self.ids("text"), limits=limits)
            case "instruct":
                return SequenceRequest(self.ids("text"), self.ids("prompt_text"), limits=limits)
            case _:
                prompt_text, prompt_speech = self.ids("prompt_text"), self.ids("prompt_speech")
                return SequenceRequest(self.ids("text"), prompt_text, prompt_speech, limits=limits)

    def bistream_request(self, case: str, num_text_tokens: int) -> SequenceRequest:
        """Which part of which prompt a case used follows from how much text it fed."""
        speech: tuple[int, ...] = ()
        if case in WITH_VOICE_PROMPT:
            speech = self.ids("bi_prompt_speech")
        elif case == "bi_long_speech_prompt":
            fed = self.ids("bi_long_prompt_speech_ids")
            fed = fed[: len(fed) - len(self.recording.meta(case, "yielded"))]
            speech = fed + fed[:NUM_DROPPED]
        kinds = [symbol[0] for forward in self.recording.meta(case, "feed") for symbol in forward]
        plain = case in WITH_VOICE_PROMPT or self.cfg.version == 2
        prompt = self.ids("bi_prompt_text" if plain else "bi_eop_only_prompt")
        prompt = prompt[: kinds.count("text") - num_text_tokens]
        return SequenceRequest((), prompt, speech, max_text_tokens=num_text_tokens)

    def generate(
        self, request: SequenceRequest, picker: Picker | None, pieces: Sequence[tuple[int, ...]] | None = None
    ) -> tuple[Trace, list[int]]:
        """Run one sequence. A piece of text is appended when all that came before it has been used up."""
        quirks = ReferenceQuirks.reference()
        engine = Engine(
            self.model, POOL_SIZE, 1, quirks, end_of_prompt_id=self.end_of_prompt_id, silent_tokens=()
        )
        trace, events, left = Trace(), list[Event](), list(pieces or [])
        sequence_id = engine.add(request, picker)
        handles = trace.attach(self.model)
        while not any(isinstance(event, FinishedEvent) for event in events):
            while engine.is_idle():
                if left:
                    engine.append_text(sequence_id, left.pop(0))
                else:
                    engine.end_text(sequence_id)
            events += engine.step()
            for event in events:
                if isinstance(event, FailedEvent):
                    raise event.error
        for handle in handles:
            handle.remove()
        return trace, [event.token for event in events if isinstance(event, TokenEvent)]

    def compare(self, case: str, picker: Greedy, trace: Trace, tokens: list[int]) -> None:
        meta, name = self.recording.meta, self.name(case)
        self.report.equal(name, "tokens", tokens, self.recording.tensor(f"{case}.tokens"))
        self.report.equal(name, "yielded", tokens, meta(case, "yielded"))
        self.report.equal(name, "sampled", picker.sampled, meta(case, "sampled"))
        self.report.equal(name, "ignore_eos", picker.ignore_eos, meta(case, "ignore_eos"))
        if case == "bi_long_speech_prompt":
            fed = [s[1] for forward in meta(case, "feed") for s in forward if s[0] == "speech"]
            self.report.equal(name, "speech ids", self.ids("bi_long_prompt_speech_ids"), fed)
        actual = {
            "chosen_logp": picker.chosen_logp,
            "prefill_input": trace.inputs[0][None],
            "prefill_hidden": trace.hidden[0][None],
            "prefill_logits": trace.logits[0],
        }
        for step, row in enumerate(picker.log_probs):
            actual[f"logp_step{step}"] = row
        for key, value in actual.items():
            if f"{case}.{key}" in self.recording:
                self.report.close(name, key, value, self.recording.tensor(f"{case}.{key}"), LOGITS)
        for key in ("min_top2_margin", "margins"):
            path = (case, key) if key != "margins" else (key, case)
            expected = torch.tensor(meta(*path))
            self.report.close(name, key, torch.tensor(min(picker.margins)), expected, LOGITS)
        embedded = self.embedded(meta(case, "feed"))
        self.report.close(name, "inputs of all forwards", torch.cat(trace.inputs), embedded, 0.0)

    def feeds(self, case: str, sequence: SpeechSequence, pieces: Sequence[tuple[int, ...]]) -> None:
        """The state machine alone, given the tokens that were recorded."""
        feeds, sampled, left = [], list(self.recording.meta(case, "sampled")), list(pieces)
        while sequence.finish_reason is None:
            feed = sequence.next_feed()
            if feed is None:
                if left:
                    sequence.append_text(left.pop(0))
                else:
                    sequence.end_text()
                continue
            feeds.append(
                [[s.kind.value] if s.kind in ("sos", "task_id") else [s.kind.value, s.id] for s in feed]
            )
            forced = sequence.constraint().forced
            sequence.accept(sampled.pop(0) if forced is None else forced)
        self.report.equal(self.name(case), "feed", feeds, self.recording.meta(case, "feed"))

    def embedded(self, feed: list[list[list[str | int]]]) -> Tensor:
        """What the recorded symbols must become, straight from the checkpoint."""
        constants, rows = self.recording.meta("constants"), []
        for symbol in (symbol for forward in feed for symbol in forward):
            match symbol:
                case ["text", int(token)]:
                    rows.append(self.weights["llm.model.model.embed_tokens.weight"][token])
                case ["speech", int(token)]:
                    rows.append(self.weights["speech_embedding.weight"][token])
                case [str(name)]:
                    rows.append(self.special(constants[name])[0])
        return torch.stack(rows)

    def special(self, row: int) -> Tensor:
        table = "llm_embedding.weight" if self.cfg.version == 2 else "speech_embedding.weight"
        return self.weights[table][row][None]

    def ids(self, name: str) -> tuple[int, ...]:
        tokens = self.recording.tensor(name)
        return tuple(int(token) for token in tokens[0])

    def name(self, case: str) -> str:
        return f"{self.recording.name} {case}"
