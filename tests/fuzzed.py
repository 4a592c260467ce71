"""The service under what schemathesis makes of its description: right requests, wrong ones, and headers of any kind."""

from __future__ import annotations

from typing import Any


def fuzz(app: Any, examples: int, paths: tuple[str, ...] = (), seed: int = 1) -> int:
    """How many requests were sent; ``AssertionError`` or schemathesis' failures where one breaks the service or its description
    is not true."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis.errors import Unsatisfiable
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    checks = [not_a_server_error, response_schema_conformance, status_code_conformance]
    phases = (Phase.generate,)
    sent = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in schemathesis.GenerationMode if not paths or operation.path in paths else ():

            @seeded(seed)
            @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=phases)
            @given(case=operation.as_strategy(generation_mode=mode))
            def holds(case: Any) -> None:
                nonlocal sent
                sent += 1
                case.call_and_validate(checks=checks)

            try:
                holds()
            except Unsatisfiable:  # nothing about such an operation can be wrong
                continue
    return sent
