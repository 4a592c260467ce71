"""The tensors of DeepSeek's expert parallelism load balancer (github.com/deepseek-ai/EPLB): phy2log, log2phy and logcnt.

As JSON for people and programs, and as ``.npz`` for numpy; ``layers`` gives the model layer of each row.
"""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np

from planner.export.deployment import EngineDeployment
from planner.export.expert_map import Integers, expert_slots, logical_to_physical
from planner.export.header import header_lines
from planner.export.schema import Export, ExportFile, NotCarried, Values


class EplbExporter:
    """``PHASE-experts.json`` and ``.npz`` for every pool with expert parallelism."""

    engine = "EPLB"

    def applies(self, deployment: EngineDeployment) -> str | None:
        """Needs a pool that spreads experts over ranks."""
        if any(expert_slots(deployment, pool) is not None for pool in deployment.pools):
            return None
        return "no pool spreads experts over several ranks"

    def export(self, deployment: EngineDeployment, values: Values, command: str) -> Export:
        """The files."""
        files, lost, notes = [], [], []
        for pool in deployment.pools:
            slots = expert_slots(deployment, pool)
            if slots is None:
                notes.append(f"{pool.phase} pool: every rank has all experts; no map is needed")
                continue
            if not slots.chosen:
                notes.append(f"{pool.phase} pool: the workload uses all experts alike; the map is the linear one")
            places, counts = logical_to_physical(slots.physical_to_logical, slots.experts)
            tensors = {
                "layers": np.array(slots.layers, dtype=np.int64),
                "phy2log": slots.physical_to_logical,
                "log2phy": places,
                "logcnt": counts,
            }
            head = {
                "header": list(header_lines(deployment, command)),
                "ranks": slots.ranks,
                "slots_per_rank": slots.slots_per_rank,
            }
            data = {**head, **{name: tensor.tolist() for name, tensor in tensors.items()}}
            files.append(ExportFile(f"{pool.phase}-experts.json", (json.dumps(data, separators=(",", ":")) + "\n").encode()))
            files.append(ExportFile(f"{pool.phase}-experts.npz", npz(tensors, "\n".join(head))))
            if pool.experts is not None and pool.experts.split is not None:
                why = "EPLB's tensors have no shares: copies of an expert serve alike"
                lost.append(NotCarried(f"{pool.phase} pool: uneven shares of the copies of an expert", why, "equal shares"))
            if pool.experts is not None and pool.experts.below:
                why = "EPLB's tensors name ranks, not memories"
                lost.append(NotCarried(f"{pool.phase} pool: which experts lie below device memory", why))
        return Export("eplb", tuple(files), tuple(lost), (), tuple(notes))


def npz(tensors: dict[str, Integers], comment: str) -> bytes:
    """An archive that ``numpy.load`` reads, the same bytes every time (no time stamps); ``comment`` is the archive's."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = comment.encode()[:60_000]
        for name, tensor in tensors.items():
            part = io.BytesIO()
            np.lib.format.write_array(part, tensor, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), part.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


EXPORTER = EplbExporter()
