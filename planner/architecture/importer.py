"""Names to models: the catalogue, Hugging Face config.json files, and the hub (extra ``hub``)."""

from __future__ import annotations

import os
import re
from pathlib import Path

from planner.architecture.blocks import Identity, Model
from planner.architecture.catalogue import find_model, list_models
from planner.architecture.families import GROUP, family, family_names
from planner.documents import parse_json, read_text
from planner.errors import InputError, PlannerError, nearest
from planner.plugins import BUILTIN

MAX_CONFIG_BYTES = 2**20
QUANTIZATION_FILE = "hf_quant_config.json"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def load_model(name: str | os.PathLike[str]) -> Model:
    """A model by catalogue id or alias, path of a config.json or of its folder, or hub id ``org/name``.

    A name of the catalogue wins over a file or folder of that name; write ``./name`` for the latter.
    Raises ``InputError`` where there is none, with the nearest names, or where its family or format is not known.
    """
    if isinstance(name, str):
        entry = find_model(name)
        if entry is not None:
            return entry.load()
    text = os.fspath(name)
    path = _existing(text)
    if path is not None:
        return read_config(path)
    if not isinstance(name, str) or text.endswith(".json") or text.startswith((".", "/", "~")):
        raise InputError("no such file or folder", where=repr(text[:200]), mend="check the path")
    if HUB_ID.fullmatch(text):
        return _from_hub(text)
    known = [known for entry in list_models() for known in (entry.id, *entry.aliases)]
    raise InputError(f"no model {text[:64]!r} in the catalogue, nor such a file", mend=nearest(text[:64], known))


def read_config(path: Path, id: str = "") -> Model:
    """The model of a Hugging Face config.json, or of the folder that holds one."""
    file = path / "config.json" if path.is_dir() else path
    config = parse_json(read_text(file, max_bytes=MAX_CONFIG_BYTES), str(file))
    beside = file.parent / QUANTIZATION_FILE
    if isinstance(config, dict) and not config.get("quantization_config") and file.name == "config.json" and beside.is_file():
        config["quantization_config"] = _quantization_beside(beside)
    return model_from_config(config, str(file), id or (file.resolve().parent.name if file.name == "config.json" else file.stem))


def _quantization_beside(file: Path) -> dict[str, object]:
    """What NVIDIA Model Optimizer wrote beside a config.json that says nothing of it, in the words of a later config.json."""
    data = parse_json(read_text(file, max_bytes=MAX_CONFIG_BYTES), str(file))
    found = data.get("quantization") if isinstance(data, dict) else None
    if not isinstance(found, dict):
        raise InputError("quantization: is missing or no table", where=str(file), mend="name a model as its maker published it")
    return {"quant_method": "modelopt", "quant_algo": found.get("quant_algo"), "ignore": found.get("exclude_modules")}


def model_from_config(config: object, where: str, id: str) -> Model:
    """The model of a parsed Hugging Face config.json; ``where`` names the file in messages."""
    if not isinstance(config, dict):
        raise InputError("holds no JSON object", where=where, mend="name a Hugging Face config.json")
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise InputError("model_type: is missing or no text", where=where, mend="name a Hugging Face config.json")
    if kind not in family_names():
        raise InputError(f"model_type: {kind[:64]!r} is not known", where=where, mend=nearest(kind[:64], list(family_names())))
    identity = Identity(id=slug(id), name=slug(id), source="imported config.json")
    try:
        return family(kind).read(config, identity, where)
    except PlannerError:
        raise
    except Exception as error:
        if kind in BUILTIN[GROUP]:
            raise
        reason = f"{type(error).__name__}: {error}"[:200]
        raise InputError(
            f"the plugin for model_type {kind!r} failed ({reason})", where=where, mend="mend or uninstall it"
        ) from None


def slug(text: str) -> str:
    """Kebab-case of a name: lower-case letters, digits and dots, anything else a dash."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:96] or "model"


def _existing(text: str) -> Path | None:
    try:
        path = Path(text).expanduser()
        return path if text and path.exists() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _from_hub(name: str) -> Model:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError:
        raise InputError(
            f"no model, file or folder {name!r}, and reading it from the hub needs an extra",
            mend="install planner with its extra hub (pip install '.[hub]' in the checkout)",
        ) from None
    try:
        file = hf_hub_download(name, "config.json")
    except Exception as error:  # the client raises its own, its transport's and the file system's errors
        raise InputError(
            f"config.json cannot be had from the hub ({type(error).__name__})", where=name, mend="check the id"
        ) from None
    try:  # beside config.json, where an exporter keeps the quantisation apart; without it the weights would be read as BF16
        hf_hub_download(name, QUANTIZATION_FILE)
    except EntryNotFoundError as error:
        if isinstance(error, LocalEntryNotFoundError):  # not reached, which is not the same as not there
            raise InputError(
                f"whether it has a {QUANTIZATION_FILE} cannot be known offline",
                where=name,
                mend="go online once, or use a folder",
            ) from None
    except Exception as error:
        raise InputError(
            f"{QUANTIZATION_FILE} cannot be had from the hub ({type(error).__name__})",
            where=name,
            mend="try again, or use a folder",
        ) from None
    return read_config(Path(file), id=name.rpartition("/")[2])
