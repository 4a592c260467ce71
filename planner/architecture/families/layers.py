"""Models whose layers are not all alike: one run of blocks for each kind of layer, in order of first appearance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

from planner.architecture.blocks import Block, Edge, Identity, Model, Router, Speculation
from planner.architecture.families.common import FamilyConfig, chain, embedding_block, head_block


OF_THE_WHOLE = ("tie_word_embeddings", "quantization_config", "dtype", "torch_dtype")


def text_config(data: Any) -> Any:
    """A ``before`` validator for models with a ``text_config``: its fields, and what the whole configuration says beside it."""
    if isinstance(data, dict) and isinstance(data.get("text_config"), dict):
        return {**{key: data[key] for key in OF_THE_WHOLE if key in data}, **data["text_config"]}
    return data


class Place(TypedDict):
    """Where the blocks of a kind of layer stand: the fields of ``Block`` that say so."""

    first_layer: int
    layers: int
    at: tuple[int, ...]
    draft: bool


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


def exchange(blocks: Sequence[Block], hidden: int, wide: str) -> list[Edge]:
    """Per token and chosen expert: the state out (FP8 where experts are FP8) and the expert's output back."""
    edges = []
    for before, block, after in zip(blocks, blocks[1:], blocks[2:], strict=False):
        routed = next((group for group in block.weights if group.access == "routed"), None)
        if routed:
            width = routed.tensors[0].shape[-1]
            out = "fp8" if routed.tensors[0].format.startswith("fp8") else wide
            edges += [
                Edge(source=before.id, target=block.id, kind="dispatch", elements_per_token=width, dtype=out),
                Edge(source=block.id, target=after.id, kind="combine", elements_per_token=width, dtype=wide),
            ]
    return edges
