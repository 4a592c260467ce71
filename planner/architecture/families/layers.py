"""Models whose layers are not all alike: one run of blocks for each kind of layer, in order of first appearance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

from planner.architecture.blocks import Block, Edge, Identity, Model, Router, Speculation
from planner.architecture.families.common import FamilyConfig, chain, embedding_block, embedding_group, head_block, vector
from planner.architecture.families.grouped import Place as Place
from planner.architecture.families.grouped import matrix
from planner.architecture.parts import WeightGroup
from planner.quantities import Figure

OF_THE_WHOLE = ("tie_word_embeddings", "quantization_config", "dtype", "torch_dtype")


def text_config(data: Any) -> Any:
    """The fields of ``text_config``, where a configuration has one, and what the whole configuration says beside it."""
    if isinstance(data, dict) and isinstance(data.get("text_config"), dict):
        return {**{key: data[key] for key in OF_THE_WHOLE if key in data}, **data["text_config"]}
    return data


def places(kinds: Sequence[str]) -> dict[str, Place]:
    """The layers of each kind; ``at`` is empty where they adjoin."""
    found: dict[str, list[int]] = {}
    for number, kind in enumerate(kinds):
        found.setdefault(kind, []).append(number)
    return {kind: place(numbers) for kind, numbers in found.items()}


def place(numbers: Sequence[int], *, draft: bool = False) -> Place:
    """The place of the layers ``numbers``, which rise."""
    adjoin = numbers[-1] - numbers[0] == len(numbers) - 1
    return {"first_layer": numbers[0], "layers": len(numbers), "at": () if adjoin else tuple(numbers), "draft": draft}


def stacked(kinds: Sequence[str], build: Callable[[str, str, Place], list[Block]]) -> list[Block]:
    """The blocks of all layers: ``build`` makes those of a kind from the kind, the prefix of their ids and their place.

    The prefix is empty where there is only one kind.
    """
    found = places(kinds)
    return [block for kind, spot in found.items() for block in build(kind, f"{kind}." if len(found) > 1 else "", spot)]


def model_of(
    config: FamilyConfig,
    identity: Identity,
    family: str,
    body: list[Block],
    *,
    router: Router | None = None,
    draft: Sequence[Block] = (),
    speculation: Speculation | None = None,
    embedding: Block | None = None,
    head: Block | None = None,
) -> Model:
    """Embedding, ``body``, head and ``draft`` as a model, with the edges between them."""
    hidden, wide = config.hidden_size, config.wide
    blocks = [embedding or embedding_block(config), *body, head or head_block(config)]
    edges = chain(blocks, hidden, wide) + exchange(blocks, hidden, wide)
    if draft:
        edges += [
            Edge(source=source.id, target=draft[0].id, kind="draft", elements_per_token=hidden, dtype=wide)
            for source in (blocks[0], body[-1])
        ]
        edges += chain(list(draft), hidden, wide) + exchange(draft, hidden, wide)
    return Model(
        **identity.model_dump(),
        family=family,
        hidden_size=hidden,
        vocabulary=config.vocab_size,
        layers=config.num_hidden_layers,
        max_context=config.max_position_embeddings,
        router=router,
        speculation=speculation,
        blocks=(*blocks, *draft),
        edges=tuple(edges),
    )


def exchange(blocks: Sequence[Block], hidden: int, wide: str, sent: str = "") -> list[Edge]:
    """Per token and chosen expert: the state out (as ``sent``, else FP8 where experts are FP8) and the expert's output back."""
    edges = []
    for before, block, after in zip(blocks, blocks[1:], blocks[2:], strict=False):
        routed = next((group for group in block.weights if group.access == "routed"), None)
        if routed:
            width = routed.tensors[0].shape[-1]
            out = sent or ("fp8" if routed.tensors[0].format.startswith("fp8") else wide)
            edges += [
                Edge(source=before.id, target=block.id, kind="dispatch", elements_per_token=width, dtype=out),
                Edge(source=block.id, target=after.id, kind="combine", elements_per_token=width, dtype=wide),
            ]
    return edges


def draft_input(config: FamilyConfig) -> Block:
    """What a multi-token-prediction module starts with: norms of and projection from [embedding, hidden state]."""
    hidden, wide = config.hidden_size, config.wide
    projection = (vector("enorm", hidden, wide), vector("hnorm", hidden, wide), matrix("eh_proj", hidden, 2 * hidden, wide))
    table = "head/lm_head" if config.tie_word_embeddings else "embedding/table"
    return Block(
        id="draft.input",
        kind="draft",
        first_layer=config.num_hidden_layers,
        layers=1,
        draft=True,
        weights=(WeightGroup(name="projection", tensors=projection), embedding_group(config, shares=table)),
    )


def draft_head(config: FamilyConfig) -> Block:
    """The norm before the output head, which the draft module shares."""
    return head_block(config, "draft.head", draft=True, shares="head/lm_head")


def unpublished_speculation() -> Speculation:
    """One draft token of a module whose acceptance nobody published."""
    return Speculation(
        depth=1,
        acceptance=(
            Figure(
                value=0.8,
                low=0.5,
                high=0.9,
                source="assumed after DeepSeek-V3 Technical Report (arXiv:2412.19437) section 5.4.3",
                as_of=date(2024, 12, 27),
                grade="D",
                note="no acceptance of this model's draft module is published; DeepSeek-V3's is 0.85 to 0.90",
            ),
        ),
    )
