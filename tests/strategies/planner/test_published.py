"""The formulas against the figures that others published: 2 % where the formula is theirs, 10 % elsewhere."""

import math
from dataclasses import replace
from typing import Any

import pytest
import yaml

from models.config import DecoderConfig
from models.flops import palm_flops_per_token, parameters
from strategies.parallel.mesh import MeshSizes
from strategies.planner.activation_memory import korthikanti_layer_bytes
from strategies.planner.hardware import read_hardware
from strategies.planner.peak_memory import zero_bytes
from strategies.planner.plan import make_plan
from strategies.planner.reliability import daly_interval, run_mtbf, young_interval
from strategies.planner.scaling_laws import BESIROGLU, HOFFMANN
from strategies.planner.schedule_simulation import Times, bubble, bubble_formula
from strategies.planner.step_time import korthikanti_flops, narayanan_days
from strategies.planner.training_setup import TrainingSetup
from tests.helpers.corpus import ROOT

THEIRS, ELSEWHERE = 0.02, 0.1
H100 = read_hardware(ROOT / "configs/hardware/h100.yaml")
LLAMA = {
    "8b": {"width": 4096, "layers": 32, "heads": 32, "feed_forward_width": 14336},
    "70b": {"width": 8192, "layers": 80, "heads": 64, "feed_forward_width": 28672},
    "405b": {"width": 16384, "layers": 126, "heads": 128, "feed_forward_width": 53248},
}


def llama(name: str) -> DecoderConfig:
    return DecoderConfig(128_256, key_value_heads=8, tied_embeddings=False, **LLAMA[name])


# GPT-3, Gopher and Chinchilla have two matrices in their feed-forward layers, 8 C^2 in all, where a `DecoderConfig` has
# three: a hidden width of 8 C / 3 makes as many parameters and products. Gopher's and Chinchilla's relative positions
# are one more matrix of C^2 a layer, put there too.
SHAPES = {
    "GPT-3": DecoderConfig(50_257, width=12_288, layers=96, heads=96, key_value_heads=96, feed_forward_width=32_768),
    "Gopher": DecoderConfig(32_000, width=16_384, layers=80, heads=128, key_value_heads=128, feed_forward_width=49_152),
    "Chinchilla": DecoderConfig(32_000, width=8192, layers=80, heads=64, key_value_heads=64, feed_forward_width=24_576),
    # SwiGLU and one key and value head, as it is.
    "PaLM": DecoderConfig(
        256_000, width=18_432, layers=118, heads=48, key_value_heads=1, head_width=256, feed_forward_width=73_728
    ),
    "Llama 3 405B": llama("405b"),
}


@pytest.mark.parametrize(
    ("name", "count", "tokens", "published", "tolerance"),
    [
        ("GPT-3", 174.6e9, 300e9, 3.14e23, THEIRS),  # Brown et al. 2020, table D.1
        ("Gopher", 280e9, 300e9, 5.04e23, THEIRS),  # Hoffmann et al. 2022
        ("Chinchilla", 70e9, 1.4e12, 5.76e23, ELSEWHERE),  # printed from another count; 6 N D of it is 5.88e23
        ("Llama 3 405B", 405.9e9, 15.6e12, 3.79e25, THEIRS),  # Grattafiori et al. 2024
    ],
)
def test_six_n_d_of_a_plan(name: str, count: float, tokens: float, published: float, tolerance: float) -> None:
    """Of a run over so many tokens; on how many devices does not matter."""
    config = SHAPES[name]
    setup = TrainingSetup(config, MeshSizes(dp_shard=512), 2048, 1, steps=round(tokens / (512 * 2048)))
    made = make_plan(setup, H100, every_steps=1)
    assert made.parameters == pytest.approx(count, rel=0.005)
    assert made.flops_6nd == pytest.approx(published, rel=tolerance)


def test_parameters_of_llama_3() -> None:
    for name, published in (("8b", 8.03e9), ("70b", 70.6e9), ("405b", 405.9e9)):
        assert parameters(llama(name)) == pytest.approx(published, rel=0.002)


def llama_3_405b(devices: int) -> TrainingSetup:
    """Its authors' mesh and batch (Grattafiori et al. 2024, table 4): tp 8, pp 16, 2,048 windows of 8,192 tokens."""
    rows = 2048 * 128 // devices
    return TrainingSetup(
        llama("405b"),
        MeshSizes(pp=16, dp_shard=devices // 128, tp=8),
        8192,
        rows,
        microbatches_per_batch=rows,
        steps=930_000,
        schedule="interleaved_1f1b",
        stages_per_rank=4,
        checkpointing="full",
    )


@pytest.mark.parametrize(
    ("devices", "published", "planned"),
    [(16_384, 0.41, (0.250, 0.332, 0.390, 0.447)), (8192, 0.43, (0.284, 0.380, 0.452, 0.522))],
)
def test_why_llama_3_405b_is_slower_here(devices: int, published: float, planned: tuple[float, ...]) -> None:
    """This project in the authors' mesh reaches 25 and 28 % of the data sheet where they reached 41 and 43 %: a gap of
    39 and 34 %. In turn: they computed no activations again, which fits them and not us (float32 weights and
    gradients, whole on every rank of a pipeline); tensor-parallel messages are float32 here and nothing hides them,
    the third figure is as if all were hidden; and their kernels at these widths may reach the 80 % of the data sheet
    that products reach at best, where `h100.yaml` was calibrated with an 8B model. All three together overshoot, by 9
    and 21 %: the second and third are bounds.
    """
    as_it_runs = llama_3_405b(devices)
    kept = replace(as_it_runs, checkpointing="none")
    hidden = replace(H100, link_bandwidth=1e15, latency_link=0.0)
    found = [
        make_plan(setup, hardware).utilization_palm
        for setup, hardware in (
            (as_it_runs, H100), (kept, H100), (kept, hidden), (kept, replace(hidden, matmul_share=0.8)),
        )
    ]  # fmt: skip
    assert found == pytest.approx(planned, abs=0.003)
    assert found[1] < published < found[3]


def test_hours_of_llama_3_405b() -> None:
    """30.84 million H100 hours are published, 34.5 % of the data sheet from end to end; the plan of what runs here is
    60 % more, saved every 25 steps and interrupted as often as theirs. Without its three differences (above) it lies
    11 % below: neither is within a tenth, the published figure lies between.
    """
    fast = replace(H100, link_bandwidth=1e15, latency_link=0.0, matmul_share=0.8)
    as_it_runs, without = (
        make_plan(setup, hardware, asynchronous=True, every_steps=25).device_hours
        for setup, hardware in (
            (llama_3_405b(16_384), H100),
            (replace(llama_3_405b(16_384), checkpointing="none"), fast),
        )
    )
    assert as_it_runs / 30.84e6 == pytest.approx(1.60, abs=0.01)
    assert without / 30.84e6 == pytest.approx(0.89, abs=0.01)


@pytest.mark.parametrize(("name", "published"), [("8b", 57.9e9), ("70b", 481.4e9), ("405b", 2625e9)])
def test_flops_a_token_in_palms_convention(name: str, published: float) -> None:
    assert palm_flops_per_token(llama(name), 8192) == pytest.approx(published, rel=THEIRS)


def test_utilization_of_palm() -> None:
    """238.3 thousand tokens a second on 6,144 TPU v4 of 275 TFLOP/s, windows of 2,048 tokens (appendix B)."""
    assert parameters(SHAPES["PaLM"]) == pytest.approx(540.35e9, rel=0.001)
    flops = palm_flops_per_token(SHAPES["PaLM"], 2048)
    assert 238.3e3 * flops / (6144 * 275e12) == pytest.approx(0.462, rel=THEIRS)


@pytest.mark.parametrize(
    ("parameters", "tokens", "devices", "rate", "published"),
    [(175e9, 300e9, 1024, 140e12, 34), (1e12, 450e9, 3072, 163e12, 84)],
)
def test_days_of_narayanan(parameters: float, tokens: float, devices: int, rate: float, published: float) -> None:
    assert narayanan_days(parameters, tokens, devices, rate) == pytest.approx(published, rel=THEIRS)


@pytest.mark.parametrize(("stage", "published"), [(0, 120), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_zero(stage: int, published: float) -> None:
    assert zero_bytes(7.5e9, 64, stage) / 1e9 == pytest.approx(published, rel=THEIRS)


@pytest.mark.parametrize(("ranks", "microbatches"), [(2, 8), (4, 8), (4, 16), (8, 32)])
def test_bubble_of_the_replayed_schedules_is_the_formula(ranks: int, microbatches: int) -> None:
    """Torch's own orders idle as Narayanan et al. say; zero-bubble ones less, and a V with equal times not in the
    middle at all.
    """
    for schedule, stages in (("gpipe", 1), ("1f1b", 1), ("interleaved_1f1b", 2)):
        times = Times((1.0,) * (ranks * stages), (2.0,) * (ranks * stages))
        replayed = bubble(schedule, ranks, stages, microbatches, times)
        assert replayed == pytest.approx(bubble_formula(ranks, microbatches, stages), rel=1e-9)
    times = Times((1.0,) * (2 * ranks), (2.0,) * (2 * ranks))
    ordinary = bubble_formula(ranks, microbatches)
    assert bubble("interleaved_zero_bubble", ranks, 2, microbatches, times) < ordinary / 2
    if microbatches >= 2 * ranks:
        assert bubble("zbv", ranks, 2, microbatches, times) < ordinary / 2


MODELS = {  # width, layers, heads, batch, GPUs, seconds an iteration, MFU, HFU (table 5), micro-batch
    "22B": (6144, 48, 64, 4, 8, 1.10, 41.5, 43.7, 4),
    "175B": (12288, 96, 96, 64, 64, 13.75, 51.4, 52.8, 1),
    "530B": (20480, 105, 128, 280, 280, 37.83, 56.0, 57.0, 1),
    "1T": (25600, 128, 160, 512, 512, 71.49, 56.3, 57.0, 1),
}


@pytest.mark.parametrize("name", MODELS)
def test_utilization_of_korthikanti(name: str) -> None:
    width, layers, _, batch, devices, seconds, mfu, hfu, _ = MODELS[name]
    for selective, published in ((False, mfu), (True, hfu)):
        flops = korthikanti_flops(layers, width, 2048, batch, 51_200, selective)
        assert 100 * flops / seconds / (devices * 312e12) == pytest.approx(published, rel=THEIRS)


@pytest.mark.parametrize(
    ("kind", "tensor", "published"),
    [
        ("none", 1, (7.08, 2.869, 4.110, 5.138)),
        ("sequence", 8, (0.885, 0.359, 0.514, 0.642)),
        ("selective", 8, (0.214, 0.107, 0.178, 0.223)),
    ],
)
def test_activations_of_korthikanti(kind: str, tensor: int, published: tuple[float, ...]) -> None:
    for (width, _, heads, *_, micro), expected in zip(MODELS.values(), published, strict=True):
        found = korthikanti_layer_bytes(2048, micro, width, heads, tensor, kind) / 1e9
        assert found == pytest.approx(expected, rel=THEIRS)


def test_selective_and_tensor_parallel_between_none_and_all() -> None:
    whole, tensor, sequence, selective, full = (
        korthikanti_layer_bytes(2048, 1, 12288, 96, 8, kind)
        for kind in ("none", "tensor", "sequence", "selective", "full")
    )
    assert whole > tensor > sequence > selective > 0
    assert full == pytest.approx(2 * 2048 * 12288)


def test_laws_at_the_compute_of_gopher() -> None:
    """Chinchilla's 70 billion parameters and 1.4e12 tokens: the corrected coefficients say so, the printed ones less
    (Besiroglu et al. 2024, section 5).
    """
    corrected, _ = BESIROGLU.optimum(5.76e23)
    printed, _ = HOFFMANN.optimum(5.76e23)
    assert corrected == pytest.approx(70e9, rel=0.1)
    assert printed < 45e9
    assert BESIROGLU.loss(70e9, 1.4e12) == pytest.approx(HOFFMANN.loss(70e9, 1.4e12), abs=0.05)
    for law in (BESIROGLU, HOFFMANN):
        n, d = law.optimum(1e22)
        assert 6 * n * d == pytest.approx(1e22)
        assert all(law.loss(n * f, d / f) > law.loss(n, d) for f in (0.9, 1.1))


def test_failures_of_llama_3() -> None:
    """419 in 54 days on 16,384 GPUs: one in three hours."""
    assert run_mtbf(H100.mtbf_hours, 16_384) == pytest.approx(54 * 24 / 419, rel=ELSEWHERE)


def test_daly_approaches_young_and_has_its_minimum_there() -> None:
    assert daly_interval(1, 1e6) == pytest.approx(young_interval(1, 1e6), rel=0.01)
    assert daly_interval(100, 40) == 40

    def waste(t: float) -> float:
        """Daly 2006, equation 20: M e^(R / M) (e^((t + d) / M) - 1) / t over the work, without constants."""
        return (math.exp((t + 60) / 3600) - 1) / t

    best = daly_interval(60, 3600)
    assert waste(best) <= min(waste(best * f) for f in (0.9, 0.95, 1.05, 1.1)) * (1 + 1e-6)


def test_throughput_of_an_8b_model_lies_among_those_reported() -> None:
    """Llama 3 8B sharded over 8 H100, compiled, nothing accumulated: 39 (torchtitan) to 58 % (FSDP2, fused kernels)."""
    setup = TrainingSetup(llama("8b"), MeshSizes(dp_shard=8), 8192, 1, checkpointing="selective", compiled=True)
    assert 0.39 <= make_plan(setup, H100).utilization_palm <= 0.58


# torchtitan's H100 have 96 GB of slower memory and draw 500 W of 700: "this MFU number is lower than actual MFU because
# we use the peak number of SXM directly" (benchmarks/llama3_h100_202412_torchtitan.md), by how much is not said.
GRAND_TETON = replace(H100, memory=96 * 2**30, memory_bandwidth=2.4e12)


@pytest.mark.parametrize(
    ("devices", "compiled", "float8", "rate", "gibibytes"),
    [
        (8, False, False, 5762, 82.4),
        (8, True, False, 6667, 77.0),
        (8, True, True, 8532, 76.8),
        (128, False, False, 5605, 67.0),
        (128, True, False, 6514, 62.0),
        (128, True, True, 8380, 61.8),
    ],
)
def test_llama_3_8b_of_torchtitan(devices: int, compiled: bool, float8: bool, rate: float, gibibytes: float) -> None:
    """Tokens a second of a GPU and GiB, two windows a rank, selective recomputation (tables 1 and 3). The plan is
    faster by 15 to 27 %, outside of the tenth, on a data sheet that these cards do not reach. It needs 4 to 12 % more
    memory on 8 and 12 to 17 % on 128: parameters are gathered in float32 here and in bfloat16 there.
    """
    setup = TrainingSetup(
        llama("8b"), MeshSizes(dp_shard=devices), 8192, 2, checkpointing="selective", compiled=compiled, float8=float8
    )
    made = make_plan(setup, GRAND_TETON)
    assert 1.14 <= made.tokens_per_second / rate <= 1.28
    assert 1.03 <= made.memory.total / 2**30 / gibibytes <= 1.18


@pytest.mark.parametrize(
    ("size", "setup", "rate"),
    [
        ("70b", {"sizes": MeshSizes(dp_shard=32, tp=8), "rows": 16}, 829),
        ("405b", {"sizes": MeshSizes(pp=8, dp_shard=8, tp=8), "rows": 32, "microbatches_per_batch": 32}, 100),
        ("405b", {"sizes": MeshSizes(pp=8, dp_shard=8, tp=8), "rows": 32, "microbatches_per_batch": 32,
                  "schedule": "interleaved_1f1b", "stages_per_rank": 2}, 128),
    ],
    ids=["70B", "405B 1F1B", "405B interleaved"],
)  # fmt: skip
def test_tensor_parallel_rows_of_torchtitan_are_bounds(size: str, setup: dict[str, Any], rate: float) -> None:
    """Tables 4 and 5 are compiled and in 8 bits, the last two with messages hidden by asynchronous tensor parallelism;
    tensor parallelism goes with none of that here. The same layouts in eager bfloat16 are slower: 516, 94 and 104.
    """
    made = make_plan(TrainingSetup(llama(size), sequence_length=8192, checkpointing="full", **setup), GRAND_TETON)
    assert 0.6 * rate <= made.tokens_per_second < rate


def test_mixture_of_the_size_configurations() -> None:
    for name in ("8b", "70b", "405b", "1t"):
        data = yaml.safe_load((ROOT / f"configs/pretrain/{name}.yaml").read_text())["data"]["init_args"]
        weights = {source: found["weight"] for source, found in data["sources"].items()}
        assert weights == {"web": 60, "code": 15, "books": 8, "curated": 7, "academic": 5, "wikipedia": 5}
