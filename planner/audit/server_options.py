"""Options of ``vllm serve`` beside those of the engine, which the snapshot of the engine's parser does not have.

Of vLLM 0.33.0 (published sdist, Apache-2.0): names of the fields of BaseFrontendArgs and FrontendArgs and of the options that
make_arg_parser adds (vllm/entrypoints/common/cli_args.py). None has a meaning for a plan but ``--headless`` and ``--config``.
SGLang reads ``--config`` before its parser does (srt/server_args_config_parser.py).
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from planner.export.options import EngineOptions, Option, load_options

_SWITCHES = """
allow-credentials cohere-is-reasoning-model disable-fastapi-docs disable-uvicorn-access-log enable-auto-tool-choice
enable-flash-late-interaction enable-force-include-usage enable-log-deltas enable-log-outputs enable-offline-docs
enable-per-request-metrics enable-prompt-tokens-details enable-request-id-headers enable-scale-out enable-server-load-tracking
enable-ssl-refresh enable-tokenizer-info-endpoint exclude-tools-when-tool-choice-none grpc headless log-error-stack
return-tokens-as-token-ids tokens-only trust-request-chat-template trust-request-mm-kwargs
"""
_VALUES = """
anthropic-disabled-thinking-effort api-server-count chat-template chat-template-content-format cohere-format config
data-parallel-supervisor-port default-chat-template-kwargs disable-access-log-for-endpoints dp-supervisor-probe-failure-threshold
dp-supervisor-probe-interval-s dp-supervisor-probe-timeout-s fingerprint-mode fingerprint-value grpc-port h11-max-header-count
h11-max-incomplete-event-size host max-log-len port reasoning-effort-map response-role root-path sse-keep-alive-interval
ssl-ca-certs ssl-cert-reqs ssl-certfile ssl-ciphers ssl-keyfile tool-call-parser tool-parser-plugin tool-server tool-strict-level
uds uvicorn-log-level
"""
_MANY = "allowed-headers allowed-methods allowed-origins api-key lora-modules middleware"
_SHORT = {"api-server-count": "asc"}


@cache
def served_options(engine: str) -> EngineOptions:
    """All options of the program that serves."""
    own = load_options(engine)
    if engine != "vllm":
        missing = () if own.find("config") is not None else (Option(("config",), "str"),)
        return replace(own, options=(*own.options, *missing))
    known = {name for option in own.options for name in option.names}
    found = [Option((name, _negated(name)), "switch") for name in _SWITCHES.split()]
    found += [Option((*([_SHORT[name]] if name in _SHORT else []), name), "str") for name in _VALUES.split()]
    found += [Option((name,), "str", many=True) for name in _MANY.split()]
    return replace(own, options=(*own.options, *(option for option in found if not known.intersection(option.names))))


def _negated(name: str) -> str:
    return f"disable-{name.removeprefix('enable-')}" if name.startswith("enable-") else f"no-{name}"
