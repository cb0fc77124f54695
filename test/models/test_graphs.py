from __future__ import annotations

import torch

from light_tts.models.graphs import Graphs


def test_without_a_gpu_work_is_simply_done() -> None:
    graphs: Graphs[list[torch.Tensor]] = Graphs(torch.device("cpu"))

    def fill(inputs: list[torch.Tensor]) -> None:
        inputs[0].fill_(3.0)

    with graphs.turn(), graphs.turn():  # one thread may come twice
        (out,) = graphs.run("any", lambda: [torch.zeros(2)], fill, lambda inputs: (inputs[0] * 2,))
    assert torch.equal(out, torch.tensor([6.0, 6.0]))
    assert len(graphs) == 0
