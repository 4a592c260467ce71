"""Every exporter on every plan that must be exported: its files pass the checks, and a wrong word in them does not."""

import json
from functools import cache

import pytest
from accepted import CHECKS, judged
from exported import CASES

from planner.export import Export, exporter_names


@cache
def results() -> dict[tuple[str, str], tuple[Export | str, list[str]]]:
    return {(case, target): (made, faults) for case, target, made, _, faults in judged()}


def test_every_exporter_that_applies_makes_files_that_are_accepted() -> None:
    assert set(exporter_names()) == set(CHECKS)
    assert all(not faults for _, faults in results().values())
    applies = {
        case: {target for at, target in results() if at == case and isinstance(results()[at, target][0], Export)}
        for case in CASES
    }
    assert applies.pop("v3-cm384") == {"vllm-ascend", "sglang", "eplb", "lws"}
    assert all(found == set(CHECKS) - {"vllm-ascend"} for found in applies.values())
    assert all(made.files for made, _ in results().values() if isinstance(made, Export))


@pytest.mark.parametrize(
    ("case", "target", "old", "new"),
    [("v3-h800", "vllm", "--max-num-seqs", "--max-num-sequences"),
     ("v3-h800", "vllm", "max-num-seqs:", "max-num-sequences:"),
     ("v3-h800", "sglang", "--attn-dp-size", "--attn-dp-sizes"), ("v3-h800", "sglang", "--tp-size 16", "--tp-size sixteen"),
     ("v3-h800", "trtllm", "tensor_parallel_size:", "tensor_paralel_size:"),
     ("v3-h800", "trtllm", "num_instances:", "instances:"),
     ("v3-h800", "trtllm", "--config", "--configuration"), ("v3-h800", "trtllm", '"auto"', '"fp7"'),
     ("v3-cm384", "vllm-ascend", "MooncakeConnectorV1", "MooncakeConnectorV9"),
     ("v3-h800", "lws", "size:", "sizee:"), ("v3-h800", "kserve", "parallelism:", "paralelism:"),
     ("v3-h800", "dynamo", "replicas: ", "replica: ")],
)  # fmt: skip
def test_a_wrong_word_in_an_export_is_caught(case: str, target: str, old: str, new: str) -> None:
    made, _ = results()[case, target]
    assert isinstance(made, Export)
    files = {file.name: file.content.replace(old.encode(), new.encode()) for file in made.files}
    assert any(file.content != files[file.name] for file in made.files)
    assert CHECKS[target](target, files)[1]


def test_a_wrong_expert_in_a_map_is_caught() -> None:
    made, _ = results()["v3-h800", "eplb"]
    assert isinstance(made, Export)
    files = {file.name: file.content for file in made.files}
    data = json.loads(files["decode-experts.json"])
    data["phy2log"][0][0] = 7
    assert CHECKS["eplb"]("eplb", {**files, "decode-experts.json": json.dumps(data).encode()})[1]
