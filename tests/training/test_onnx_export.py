"""Programs of the real models in ONNX Runtime give what the eager models give."""

import pytest
import torch
from torch import Tensor, nn

from shards.onnx_program import OnnxProgram
from tests.training.model_batches import candidate_batch, item_batch, model_inputs, request_batch
from training.models.multi_task_ranker import MultiTaskRanker, MultiTaskRankerConfig
from training.models.task_links import probabilities
from training.models.three_tower import ThreeTower, ThreeTowerConfig
from training.models.two_tower import TwoTower, TwoTowerConfig
from training.onnx_export import faster_onnx
from training.programs import Program, interaction, query_tower, scorer, user_tower

ROWS = 9


def run_onnx(program: Program, inputs: dict[str, Tensor]) -> torch.Tensor:
    """Run the form for ONNX Runtime with other rows than it was exported with."""
    assert program.onnx is not None
    assert program.spec.onnx_file == f"{program.name}.onnx"
    session = OnnxProgram(program.onnx)
    (output,) = session({name: inputs[name].detach().numpy() for name in session.inputs})
    return torch.from_numpy(output)


@pytest.mark.parametrize("history", ["attention", "mean", "none"])
def test_the_query_tower(history: str) -> None:
    torch.manual_seed(0)
    model = TwoTower(TwoTowerConfig(width=8, hidden=16, history=history), model_inputs()).eval()
    program = query_tower(model, request_batch(2))
    request = request_batch(5, seed=3)
    torch.testing.assert_close(run_onnx(program, request), model.encode_query(request), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("history", [True, False])
def test_the_pre_ranker(history: bool) -> None:
    torch.manual_seed(0)
    config = ThreeTowerConfig(width=8, hidden=16, tasks=("like", "watch"))
    model = ThreeTower(config, model_inputs(history=history)).eval()
    request, item = request_batch(1), model.encode_item(item_batch())
    user = model.encode_request(request)
    torch.testing.assert_close(run_onnx(user_tower(model, request), request), user, rtol=1e-4, atol=1e-5)
    rows, cross, _ = candidate_batch(1, ROWS)
    program = interaction(model, user.detach(), item[:3].detach(), cross[0, :3])
    inputs = {"user": user, "item": item[rows[0]], "cross": cross[0]}
    expected = model(request, item_batch(), rows, cross)[0, :, 0]
    torch.testing.assert_close(run_onnx(program, inputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("history", [True, False])
def test_the_ranker(history: bool) -> None:
    torch.manual_seed(0)
    config = MultiTaskRankerConfig(width=8, hidden=16, experts=2, expert_width=8, tasks=("like", "watch"))
    model = MultiTaskRanker(config, model_inputs(history=history)).eval()
    request, item = request_batch(1), model.encode_item(item_batch())
    rows, cross, _ = candidate_batch(1, ROWS)
    program = scorer(model, probabilities(2), request, item[:3].detach(), cross[0, :3])
    inputs = {**request, "item": item[rows[0]], "cross": cross[0]}
    expected = model(request, item_batch(), rows, cross)[0].sigmoid()
    torch.testing.assert_close(run_onnx(program, inputs), expected, rtol=1e-4, atol=1e-5)


def test_an_empty_bag_is_zero() -> None:
    torch.manual_seed(0)
    model = TwoTower(TwoTowerConfig(width=8, hidden=16), model_inputs()).eval()
    request = request_batch(2)
    request["query_tokens"][:] = 0
    program = query_tower(model, request_batch(2))
    assert run_onnx(program, request).isfinite().all()
    torch.testing.assert_close(run_onnx(program, request), model.encode_query(request), rtol=1e-4, atol=1e-5)


def test_what_is_too_large_for_the_format_stays_with_torch() -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # Pages that nobody writes to take no memory.
            self.weight = nn.Parameter(torch.empty(300, 2**20))

        def forward(self, value: Tensor) -> Tensor:
            return self.weight[0] + value

    example = {"value": torch.zeros(1)}
    exported = torch.export.export(Large(), (), example)
    assert faster_onnx(exported, example, ()) is None
