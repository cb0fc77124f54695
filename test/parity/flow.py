"""Parity of speech tokens to mel: recordings `cv2_flow` and `cv3_flow`."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from light_tts.models.flow.cfm import solve, time_steps
from light_tts.models.flow.flow_state import FlowChunk, FlowInput, FlowPrompt, FlowState
from light_tts.models.flow.noise import NOISE_FRAMES, NOISE_SEED, fixed_noise
from light_tts.models.flow.token_to_mel import Flow
from light_tts.models.layers.ragged import Frames
from light_tts.models.loader import load_flow
from light_tts.models.model_yaml import read_model_config
from test.parity.recording import Recording
from test.parity.report import DECODE, MEL, Report

CPU = torch.device("cpu")
SOLVER_STEPS = (0, 1, 5, 9)  # cfm.x_before_steps_0_1_5_9


def check(folder: Path, report: Report) -> list[Recording]:
    recordings = []
    for version in (2, 3):
        model_dir = folder / f"cosyvoice{version}"
        if not (folder / "fixtures" / f"cv{version}_flow.safetensors").exists():
            continue
        recording = Recording(folder / "fixtures", f"cv{version}_flow")
        flow = load_flow(model_dir, read_model_config(model_dir).flow, CPU, torch.float32)
        with torch.inference_mode():
            _FlowCheck(flow, recording, report).run()
        recordings.append(recording)
    return recordings


class _FlowCheck:
    """All cases of one recording."""

    def __init__(self, flow: Flow, recording: Recording, report: Report) -> None:
        self.flow, self.recording = flow, recording
        self.case = recording.name
        self.close = partial(report.close, self.case)
        self.equal = partial(report.equal, self.case)
        self.tokens = recording.tensor("token")[0]
        self.prompt = FlowPrompt(
            tokens=recording.tensor("prompt_token")[0],
            mel=recording.tensor("prompt_feat")[0],
            embedding=recording.tensor("embedding")[0],
        )

    def run(self) -> None:
        self.settings()
        self.inputs()
        for name in ("full", "full_stream", "ctx", "ctx_stream"):
            if f"enc.{name}.mu" in self.recording:
                self.encoder(name)
        self.estimator()
        self.solver()
        for streaming in (False, True):
            for finalize in (False, True):
                name = f"mel.stream{int(streaming)}.final{int(finalize)}"
                self.mel(name, FlowInput(self.tokens, self.prompt, finalize), streaming)
        self.chunks()
        voiceless = FlowPrompt.without_recording(torch.zeros_like(self.prompt.embedding))
        self.mel("mel.noprompt_zero_emb", FlowInput(self.tokens, voiceless), streaming=False)

    def settings(self) -> None:
        meta = self.recording.meta
        self.equal("n_timesteps", self.flow.cfg.num_steps, meta("n_timesteps"))
        self.equal("inference_cfg_rate", self.flow.cfg.inference_cfg_rate, meta("inference_cfg_rate"))
        self.equal("rand_noise.seed", NOISE_SEED, meta("rand_noise", "seed"))
        self.equal(
            "rand_noise.shape", [1, self.flow.cfg.output_size, NOISE_FRAMES], meta("rand_noise", "shape")
        )
        noise = fixed_noise(self.flow.cfg.output_size, CPU)
        digest = hashlib.sha256(noise.numpy().tobytes()).hexdigest()
        self.equal("rand_noise.sha256_f32", digest, meta("rand_noise", "sha256_f32"))
        prefix = self.recording.tensor("rand_noise_prefix")
        self.equal("rand_noise_prefix", noise[None, :, : prefix.shape[2]], prefix)

    def inputs(self) -> None:
        state = self.flow.start(self.prompt)
        everything = torch.cat([state.pending, self.tokens])[None]
        self.equal("all_token", everything, self.recording.tensor("all_token"))
        self.equal("token_emb", self.flow.input_embedding(everything), self.recording.tensor("token_emb"))
        self.close("spk_proj", state.speaker, self.recording.tensor("spk_proj"), DECODE)

    def encoder(self, name: str) -> None:
        """full: all tokens, nothing follows. ctx: the last tokens are look-ahead. _stream: chunked masks."""
        tokens, context = self.recording.tensor("all_token"), None
        if name.startswith("ctx"):
            ahead = self.flow.cfg.pre_lookahead_len
            tokens, context = tokens[:, :-ahead], tokens[:, -ahead:]
        num_tokens = tokens.shape[1]
        chunk = self.flow.chunk_size if name.endswith("_stream") else 0
        frames = Frames.whole(torch.tensor([num_tokens]), num_tokens, chunk)
        with _Outputs(self.flow) as outputs:
            mu, _ = self.flow.condition(tokens, frames, context)
        self.close(f"enc.{name}.mu", mu.transpose(1, 2), self.recording.tensor(f"enc.{name}.mu"), MEL)
        for stage, output in outputs.first.items():
            if f"enc.{name}.{stage}" in self.recording:
                self.close(f"enc.{name}.{stage}", output, self.recording.tensor(f"enc.{name}.{stage}"), MEL)

    def estimator(self) -> None:
        x, mu, cond, spks, t = (
            self.recording.tensor(f"est.{name}") for name in ("x", "mu", "cond", "spks", "t")
        )
        lens = torch.full((len(x),), x.shape[2])
        for name, chunk in (("est.out", 0), ("est.out_stream", self.flow.cfg.estimator.chunk_size)):
            frames = Frames.whole(lens, x.shape[2], chunk)
            out, _ = self.flow.decoder.estimator(x, mu, t, spks, cond, frames)
            self.close(name, out, self.recording.tensor(name), MEL)

    def solver(self) -> None:
        """The steps of the case `mel.stream0.final1`, from the recorded mu."""
        cfg = self.flow.cfg
        mu = self.recording.tensor("enc.full.mu").transpose(1, 2)
        num_frames = mu.shape[2]
        cond = F.pad(self.prompt.mel.T[None], (0, num_frames - len(self.prompt.mel)))
        xs, times, first = [], [], []

        def observe(step: int, t: float, x: Tensor, conditioned: Tensor, unconditioned: Tensor) -> None:
            times.append(t)
            if step in SOLVER_STEPS:
                xs.append(x.clone())
            if step == 0:
                first.extend([conditioned.clone(), unconditioned.clone()])

        mel, _ = solve(
            self.flow.decoder.estimator,
            fixed_noise(cfg.output_size, CPU)[None, :, :num_frames],
            mu,
            self.recording.tensor("spk_proj"),
            cond,
            Frames.whole(torch.tensor([num_frames]), num_frames),
            cfg.inference_cfg_rate,
            cfg.num_steps,
            observer=observe,
        )
        recorded = self.recording.tensor
        self.close("cfm.t", torch.tensor(times), recorded("cfm.t"), 1e-6)
        self.close("cfm.t of time_steps", time_steps(cfg.num_steps)[0], recorded("cfm.t"), 1e-6)
        self.close("cfm.x_before_steps_0_1_5_9", torch.cat(xs), recorded("cfm.x_before_steps_0_1_5_9"), MEL)
        self.close("cfm.est_cond_step0", first[0], recorded("cfm.est_cond_step0"), MEL)
        self.close("cfm.est_uncond_step0", first[1], recorded("cfm.est_uncond_step0"), MEL)
        speech = mel[:, :, len(self.prompt.mel) :]
        self.close("mel.stream0.final1 from recorded mu", speech, recorded("mel.stream0.final1"), MEL)

    def chunks(self) -> None:
        """The product's own way to `mel.stream1.final1`: no token is computed twice."""
        state: FlowState | None = self.flow.prefill_prompt(self.prompt)
        ahead, size = self.flow.cfg.pre_lookahead_len, self.flow.chunk_size
        mels: list[Tensor] = []
        first = size - len(self.prompt.tokens) % size + ahead
        for piece in (self.tokens[:first], *self.tokens[first:].split(size)):
            assert state is not None
            finalize = len(piece) < (first if not mels else size)
            (mel,), (state,) = self.flow.stream([FlowChunk(piece, finalize)], [state])
            mels.append(mel)
        if state is not None:
            (mel,), _ = self.flow.stream([FlowChunk(self.tokens[:0], finalize=True)], [state])
            mels.append(mel)
        recorded = self.recording.tensor("mel.stream1.final1")
        self.close("mel.stream1.final1 in chunks", torch.cat(mels, dim=1)[None], recorded, MEL)

    def mel(self, name: str, item: FlowInput, streaming: bool) -> None:
        (mel,) = self.flow([item], streaming)
        self.close(name, mel[None], self.recording.tensor(name), MEL)


class _Outputs:
    """While entered, keeps what the encoder's stages first return, under the recordings' names."""

    def __init__(self, flow: Flow) -> None:
        self.first: dict[str, Tensor] = {}
        if flow.encoder is None:
            self._stages: dict[str, nn.Module] = {"out": flow.pre_lookahead_layer}
        else:
            self._stages = {
                "embed": flow.encoder.embed,
                "pre_lookahead": flow.encoder.pre_lookahead_layer,
                "encoders": flow.encoder.encoders[-1],
                "up_layer": flow.encoder.up_layer,
                "out": flow.encoder,
            }

    def __enter__(self) -> _Outputs:
        self._handles = [
            stage.register_forward_hook(partial(self._keep, name)) for name, stage in self._stages.items()
        ]
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _keep(
        self, name: str, stage: nn.Module, arguments: object, output: Tensor | tuple[Tensor, object]
    ) -> None:
        self.first.setdefault(name, output if isinstance(output, Tensor) else output[0])
