"""Exact parameter counts of the catalogue's main models, pinned, and plans of every architecture kind, verified in full."""

import pytest

from planner import load_model, plan, verify

# id, total without draft module, active without the input embedding, active with it: integers that the configuration gives
COUNTS = [
    ("deepseek-v2", 235_741_434_880, 20_851_512_320, 21_375_800_320),
    ("deepseek-v3", 671_026_419_200, 36_625_618_432, 37_552_297_472),
    ("deepseek-v3.2", 671_877_944_064, 37_477_143_296, 38_403_822_336),
    ("deepseek-v4-pro", 1_572_997_201_763, 48_852_402_019, 49_779_081_059),
    ("deepseek-v4-flash", 284_332_240_471, 13_270_101_591, 13_799_632_471),
    ("deepseek-v4.1-flash", 748_494_766_709, 16_130_670_709, 16_792_596_597),
    ("glm-5", 743_911_218_432, 40_833_146_112, 41_784_728_832),
    ("glm-5.2", 743_377_019_904, 40_298_947_584, 41_250_530_304),
    ("kimi-k2", 1_026_408_232_448, 31_687_095_808, 32_861_500_928),
    ("mixtral-8x7b", 46_702_792_704, 12_748_853_248, 12_879_925_248),
    ("qwen3-235b-a22b", 235_093_634_560, 21_568_433_664, 22_190_763_520),
    ("gpt-oss-120b", 116_829_156_672, 5_132_849_472, 5_711_982_912),
    ("minimax-m2", 228_689_764_864, 10_415_956_480, 11_030_553_088),
    ("qwen3.5-397b-a17b", 396_346_350_336, 16_331_922_176, 17_349_040_896),
    ("llama-3.1-8b", 8_030_261_248, 7_504_924_672, 8_030_261_248),
    ("llama-3.1-70b", 70_553_706_496, 69_503_033_344, 70_553_706_496),
    ("llama-3.1-405b", 405_853_388_800, 403_752_042_496, 405_853_388_800),
    ("kimi-k3", 2_779_484_476_000, 104_189_612_640, 105_364_017_760),
    ("minimax-m3", 426_174_572_928, 24_733_280_640, 25_962_473_856),
]


@pytest.mark.parametrize(("name", "total", "active", "with_embedding"), COUNTS, ids=[row[0] for row in COUNTS])
def test_parameter_counts(name, total, active, with_embedding):
    found = load_model(name).parameters()
    assert (found["total"], found["active"], found["active_with_embedding"]) == (total, active, with_embedding)


@pytest.mark.parametrize(
    ("name", "hardware"),
    [
        ("deepseek-v4-pro", "gb200-nvl72"),
        ("deepseek-v4.1-flash", "gb200-nvl72"),
        ("glm-5", "cloudmatrix384"),
        ("qwen3.5-397b-a17b", "h100-node:2"),
        ("gpt-oss-120b", "h100-node"),
        ("kimi-k2", "cloudmatrix384"),
    ],
)
def test_every_architecture_kind_plans_and_verifies(name, hardware):
    found = plan(name, hardware)
    assert found.certificate.proved
    assert verify(found, full=True) == ([], [])


def test_the_workloads_acceptance_stands_before_the_models():
    """Two tokens accepted of two drafts doubles and more what a step yields: 1 + a1 + a1 a2."""
    from planner.api import resolve
    from planner.plans import build_context
    from planner.workload import load_workload

    workload = load_workload("interactive").model_copy(update={"acceptance": (0.5, 0.5)})
    assert build_context(resolve("deepseek-v3", "h800-node:2", workload=workload, mtp=2)).pools["mixed"].accept == 1.75
    assert build_context(resolve("deepseek-v3", "h800-node:2", mtp=1)).pools["mixed"].accept == pytest.approx(1.875)


def test_acceptance_figures_are_the_published_ones():
    """DeepSeek-V3 Technical Report 5.4.3: 85 to 90 % of second tokens; without a publication an assumption of grade D."""
    published = load_model("deepseek-v3").speculation.acceptance[0]
    assert (published.low, published.value, published.high, published.grade) == (0.85, 0.875, 0.90, "B")
    assumed = load_model("qwen3.5-397b-a17b").speculation.acceptance[0]
    assert (assumed.low, assumed.value, assumed.high, assumed.grade) == (0.5, 0.8, 0.9, "D")


def test_attention_of_grouped_queries_is_split_over_its_heads():
    """64 query heads: at tp 8 a rank computes an eighth of the attention, though 8 KV heads bound the cache's split."""
    block = load_model("llama-3.1-70b").block("attention")
    assert [term.tensor_axis for term in block.flops] == [64]
    assert [cache.tensor_axis for cache in block.caches] == [8]


def test_recurrent_state_persists_by_checkpoint():
    """A recurrent state cannot be cut at a prefix, so it is kept as checkpoints (facts of gated delta rules and KDA)."""
    for name in ("kimi-k3", "qwen3.5-397b-a17b", "nemotron-3-nano-30b-a3b"):
        states = [cache for block in load_model(name).blocks for cache in block.caches if cache.role == "state"]
        assert states and {cache.persist for cache in states} == {"checkpoint"}
