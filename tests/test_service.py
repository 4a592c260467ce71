"""The service: answers as the command line's, no file read, limits that hold, workers that come and go, a page of its own."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
import small
from served import JSON, Here, Service, served

from planner import Workload, load_hardware, plan
from planner.plans.inputs import Asked
from planner.service.app import create_app
from planner.service.metrics import Metrics
from planner.service.page import page
from planner.service.pool import Pool, Refused, _Worker
from planner.service.requests import PlanRequest
from planner.service.settings import Settings
from planner.service.work import Answer, Job, answer

SMALL = {"model": "llama-3.1-8b", "hardware": "h100-node", "pins": ["tp=1", "pp=1"]}
Ask = Callable[..., httpx.Response]


def asking(settings: Settings | None = None) -> Ask:
    """Requests to the application in this process."""
    app = create_app(settings or Settings(), Here())

    def ask(method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8321") as client:
                content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
                headers = {**(JSON if body is not None else {}), **more.pop("headers", {})}
                return await client.request(method, path, content=content, headers=headers, **more)

        return asyncio.run(once())

    return ask


@pytest.fixture(scope="module")
def ask() -> Ask:
    return asking()


@pytest.fixture(scope="module")
def planned(ask: Ask) -> bytes:
    """The answer to a small request."""
    response = ask("POST", "/plan", SMALL)
    assert response.status_code == 200, response.text
    return response.content


# --- the same as the command line -----------------------------------------------------------------------------------


def test_answers_are_those_of_the_command_line(ask: Ask, planned: bytes, run: Any, tmp_path: Any) -> None:
    code, out, _ = run("plan", "llama-3.1-8b", "h100-node", "--pin", "tp=1", "--pin", "pp=1", "--format", "json", "--quiet")
    assert (code, out.encode()) == (0, planned)
    (tmp_path / "plan.json").write_bytes(planned)
    code, out, _ = run("verify", tmp_path / "plan.json", "--format", "json")
    response = ask("POST", "/verify", planned)
    assert (code, response.status_code, out) == (0, 200, response.text) and response.json()["ok"]
    torn = planned.replace(b'"tp": 1,', b'"tp": 2,', 1)
    (tmp_path / "torn.json").write_bytes(torn)
    code, out, _ = run("verify", tmp_path / "torn.json", "--format", "json")
    response = ask("POST", "/verify", torn)
    assert (code, response.status_code, out) == (4, 200, response.text) and not response.json()["ok"]


def test_options_mean_what_they_mean_on_the_command_line(ask: Ask, run: Any) -> None:
    words = (
        "plan llama-3.1-8b h100-node --pin tp=1 --pin pp=1 --isl 512 --osl 64 --ttft 900ms --objective throughput --kv-dtype fp8"
    )
    words += " --price-basis rent_od --runtime sglang --spare 1 --format json --quiet"
    same = {"isl": 512, "osl": 64, "ttft_s": 0.9, "objective": "throughput", "kv_dtype": ["fp8"], "price_basis": "rent_od"}
    response = ask("POST", "/plan", {**SMALL, **same, "runtime": "sglang", "spare": 1, "hardware": "h100-node:2"})
    code, out, _ = run(*words.replace("h100-node", "h100-node:2").split())
    assert (code, response.status_code, out) == (0, 200, response.text)


def test_a_comparison_is_that_of_the_command_line(ask: Ask, run: Any) -> None:
    body = {"models": ["llama-3.1-8b"], "hardware": ["h100-node", "no-such"], "pins": ["tp=1", "pp=1"]}
    assert ask("POST", "/compare", body).status_code == 422
    response = ask("POST", "/compare", body | {"hardware": ["h100-node@sglang"]})
    words = "compare llama-3.1-8b h100-node@sglang --pin tp=1 --pin pp=1 --format json --quiet"
    code, out, _ = run(*words.split())
    assert (code, response.status_code, out) == (0, 200, response.text)


def test_what_cannot_be_is_said_as_on_the_command_line(ask: Ask, run: Any) -> None:
    response = ask("POST", "/plan", {**SMALL, "tpot_s": 1e-4})
    code, out, _ = run(
        "plan", "llama-3.1-8b", "h100-node", "--pin", "tp=1", "--pin", "pp=1", "--tpot", "0.1ms", "--format", "json"
    )
    assert (code, response.status_code, out) == (3, 409, response.text)
    assert response.json()["infeasible"] is True


def test_objects_in_place_of_names_give_the_same_plan(ask: Ask, planned: bytes) -> None:
    """Everything that a plan embeds can be sent back."""
    inputs = json.loads(planned)["inputs"]
    body = {**SMALL, "model": inputs["model"], "hardware": inputs["hardware"]["mixed"]}
    body |= {name: inputs[name] for name in ("workload", "runtime", "prices")}
    assert ask("POST", "/plan", body).content == planned


def test_a_config_of_hugging_face_is_a_model(ask: Ask) -> None:
    config = {
        "model_type": "llama", "hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 1024, "vocab_size": 1024, "max_position_embeddings": 8192, "torch_dtype": "bfloat16",
    }  # fmt: skip
    found = ask("POST", "/plan", {**SMALL, "model": config, "isl": 512, "osl": 64})
    assert found.status_code == 200 and found.json()["inputs"]["model"]["blocks"], found.text


# --- no file is read ------------------------------------------------------------------------------------------------

PATHS = [
    "/etc/passwd",
    "../secret.toml",
    "secret.toml",
    "secret.json",
    "./secret",
    "~/secret",
    "C:\\secret.toml",
    "secret.TOML:2",
]
_opened: list[str] = []
_looking = [False]


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _looking[0]:
        _opened.append(str(arguments[0]))


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """What is opened while a test runs; the hook stays, since none can be taken away."""
    if not hasattr(sys, "_planner_noting"):
        sys.addaudithook(_note)
        sys._planner_noting = True  # type: ignore[attr-defined]
    _opened.clear()
    _looking[0] = True
    yield _opened
    _looking[0] = False


@pytest.mark.parametrize("field", ["model", "hardware", "workload", "runtime", "prices", "site"])
def test_names_that_look_like_paths_are_refused_unread(
    field: str, ask: Ask, opened: list[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("secret", "secret.toml", "secret.json"):
        (tmp_path / name).write_text("{}")
    monkeypatch.chdir(tmp_path)
    opened.clear()
    for path in [*PATHS, "secret"]:
        response = ask("POST", "/plan", {**SMALL, field: path})
        assert response.status_code == 422, (path, response.text)
        assert set(response.json()) == {"error", "message"}
    assert not [path for path in opened if "secret" in path or "passwd" in path]


def test_names_inside_a_plan_are_not_read_either(
    planned: bytes, ask: Ask, opened: list[str], tmp_path: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (str(tmp_path / "secret.json"), "secret.toml", "secret"):
        (tmp_path / path).write_text("{}")
        data = json.loads(planned)
        data["inputs"]["model"]["id"] = path
        data["inputs"]["prices"]["site"] = path[:64]
        data["inputs"]["hardware"]["mixed"]["system"]["id"] = "secret.toml"
        opened.clear()
        assert ask("POST", "/verify", data).status_code in (200, 422)
        assert ask("POST", "/report", data).status_code in (200, 422)
        assert not [path for path in opened if "secret" in path]


# --- what is refused, and how ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 422, "is not JSON"),
        (b"{", 422, "is not JSON"),
        (b"\xff\xfe", 422, "is not UTF-8"),
        (b"[" * 100_000, 422, "nested too deeply"),
        (b'{"model": NaN}', 422, "NaN is not a JSON number"),
        (b'{"model": "a", "model": "b"}', 422, "repeated"),
        (b"[]", 422, "request"),
        (b"{}", 422, "is missing"),
        ({**SMALL, "colour": 1}, 422, "colour: unknown key"),
        ({**SMALL, "model": "llama-3.1-8"}, 422, "did you mean llama-3.1-8b"),
        ({**SMALL, "model": 7}, 422, "model: expected a name"),
        ({**SMALL, "model": {"model_type": "llama"}}, 422, "request: model"),
        ({**SMALL, "model": {"id": "x"}}, 422, "request: model"),
        ({**SMALL, "hardware": {"system": {}}}, 422, "request: hardware"),
        ({**SMALL, "hardware": {}}, 422, "neither a system nor two pools"),
        ({**SMALL, "workload": [SMALL]}, 422, "request: workload"),
        ({**SMALL, "objective": "beauty"}, 422, "objective"),
        ({**SMALL, "tpot_s": -1}, 422, "tpot_s"),
        ({**SMALL, "constraints": [{"name": "a", "sort": "pin", "rule": "tp=1"}]}, 422, "constraints"),
        ({**SMALL, "high_ttft_s": 1.0}, 422, "high_ttft_s"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_is_wrong_is_said_in_a_line(body: Any, status: int, words: str, ask: Ask) -> None:
    response = ask("POST", "/plan", body)
    assert response.status_code == status, response.text
    found = response.json()
    assert words in found["message"] and "\n" not in found["message"] and len(found["message"]) < 5000


def test_out_of_time_the_best_plan_so_far_is_the_answer(ask: Ask) -> None:
    found = ask("POST", "/plan", {"model": "llama-3.1-8b", "hardware": "h100-node", "time_limit_s": 1e-9})
    assert found.status_code in (200, 504), found.text
    if found.status_code == 200:
        assert found.json()["certificate"]["stopped"] == "time limit" and not found.json()["certificate"]["proved"]
    else:
        assert "time_limit_s" in found.json()["message"]


def test_what_is_no_request_of_the_service(ask: Ask, planned: bytes) -> None:
    assert ask("POST", "/plan", b"model=x", headers={"Content-Type": "application/x-www-form-urlencoded"}).status_code == 415
    wrong = ask("POST", "/verify?full=perhaps", planned)
    assert wrong.status_code == 422 and wrong.json()["message"].startswith("query.full: ")
    assert ask("GET", "/nothing").status_code == 404 and ask("DELETE", "/plan").status_code == 405
    assert ask("GET", "/health", headers={"Host": "evil.example"}).status_code == 403
    assert ask("POST", "/plan", SMALL, headers={"Origin": "http://evil.example"}).status_code == 403
    assert ask("GET", "/health", headers={"Host": "127.0.0.1:8321", "Origin": "http://127.0.0.1:8321"}).status_code == 200
    large = asking(Settings(max_body_bytes=1024))("POST", "/plan", b" " * 1025)
    assert (large.status_code, large.json()["error"]) == (413, "too_large")


def test_open_to_others_it_goes_by_any_name() -> None:
    ask = asking(Settings(host="0.0.0.0"))
    assert ask("GET", "/health", headers={"Host": "planner.example"}).status_code == 200


def test_too_little_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **more: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("planner.api.plan", full)
    assert asking()("POST", "/plan", SMALL).status_code == 507


# --- description, report, page, metrics -----------------------------------------------------------------------------


def test_the_description_is_true(ask: Ask, planned: bytes) -> None:
    import jsonschema

    found = ask("GET", "/openapi.json").json()
    assert set(found["paths"]) == {"/plan", "/compare", "/verify", "/report", "/catalogue", "/health", "/metrics"}
    shown = found["components"]["schemas"]["PlanRequest"]["properties"]
    assert {"model", "hardware", "isl", "pins", "time_limit_s"} <= set(shown) and not {"high_ttft_s", "constraints"} & set(shown)

    def valid(name: str, value: Any) -> None:
        jsonschema.validate(value, {"$ref": f"#/components/schemas/{name}", "components": found["components"]})

    valid("Plan", json.loads(planned))
    valid("PlanRequest", SMALL)
    valid("Verification", ask("POST", "/verify", planned).json())
    valid("Problem", ask("POST", "/plan", {}).json())
    with pytest.raises(jsonschema.ValidationError):
        valid("PlanRequest", {**SMALL, "model": "../x"})
    for path, method, body in (("/report", "post", planned), ("/metrics", "get", None), ("/catalogue", "get", None)):
        sent = ask(method, path, body).headers["content-type"].partition(";")[0]
        assert list(found["paths"][path][method]["responses"]["200"]["content"]) == [sent]


def test_a_report_of_a_plan(ask: Ask, planned: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.parse import urlencode

    response = ask("POST", "/report", planned)
    assert response.headers["content-type"].startswith("text/html") and response.text.startswith("<!DOCTYPE html>")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert ask("POST", "/report", urlencode({"plan": planned.decode()}).encode(), headers=form).content == response.content
    assert ask("POST", "/report", b"{}").status_code == 422
    assert ask("POST", "/report", b"plan=", headers=form).status_code == 422
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert ask("POST", "/report", planned).status_code == 501


def test_the_page_reaches_nothing_but_the_service(ask: Ask) -> None:
    import re

    response = ask("GET", "/")
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "connect-src 'self'" in policy
    text, _ = page()
    assert response.text == text and not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert {row["id"] for row in ask("GET", "/catalogue").json()["models"]} >= {"llama-3.1-8b", "deepseek-v3"}


def test_metrics_are_prometheus_text() -> None:
    import re

    ask = asking()
    for path in ("/health", "/health", "/nothing"):
        ask("GET", path)
    text = ask("GET", "/metrics").text
    assert 'planner_requests_total{path="/health",status="200"} 2' in text
    assert 'planner_requests_total{path="other",status="404"} 1' in text
    assert 'planner_request_seconds_bucket{path="/health",le="+Inf"} 2' in text
    line = re.compile(r'(# (HELP|TYPE) planner_\w+ .+|planner_\w+(\{(\w+="[^"\n]*",?)+\})? [-+0-9.e]+)')
    assert [one for one in text.splitlines() if not line.fullmatch(one)] == []


def test_requests_of_the_model_are_those_of_plan() -> None:
    """No option of plans is forgotten, none is named in another way."""
    asked = PlanRequest.model_validate(SMALL).asked()
    elsewhere = {"model", "hardware", "stop", "reporter", "options"}
    not_asked = {"calibration", "previous", "max_move_bytes"}  # files, and what goes with another plan
    assert set(asked) == {*inspect.signature(plan).parameters, *Asked.__annotations__} - elsewhere - not_asked
    found = plan(
        small.llama(), load_hardware("h100-node"), **{**asked, "workload": Workload.model_validate(small.workload().model_dump())}
    )
    assert found.certificate.proved


def test_a_fault_of_planner_is_a_fault_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker, not ``answer``, turns what should not be into an answer."""
    monkeypatch.setattr("planner.api.plan", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        answer(Job("plan", json.dumps(SMALL).encode()), small_stop(), 10.0)


def test_a_fault_that_nobody_caught_is_counted_as_one() -> None:
    class Torn(Here):
        async def run(self, job: Job, limit_s: float) -> Answer:
            raise ZeroDivisionError

    async def lives() -> str:
        transport = httpx.ASGITransport(create_app(labour=Torn()), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8321") as client:
            assert (await client.post("/plan", json=SMALL)).status_code == 500
            return (await client.get("/metrics")).text

    assert 'planner_requests_total{path="/plan",status="500"} 1' in asyncio.run(lives())


def test_a_fault_of_the_report_is_not_put_down_to_the_plan(planned: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise KeyError("nothing")

    monkeypatch.setattr("planner.report.plan_report", broken)
    with pytest.raises(KeyError):
        answer(Job("report", planned), small_stop(), 10.0)
    torn = planned.replace(b'"tp": 1,', b'"tp": 2,', 1)
    assert answer(Job("report", torn), small_stop(), 10.0).status == 422


def small_stop() -> Any:
    from planner.search import Stop

    return Stop()


# --- fuzzing --------------------------------------------------------------------------------------------------------


def test_nothing_that_is_sent_breaks_it() -> None:
    """A few of what ``.ci/serve_fuzz`` tries by the thousand."""
    pytest.importorskip("schemathesis")
    from fuzzed import fuzz

    assert fuzz(create_app(Settings(host="0.0.0.0", time_limit_s=2.0), Here()), 4, ("/plan", "/compare")) > 8


# --- workers --------------------------------------------------------------------------------------------------------


def test_workers_that_die_or_hang_are_replaced() -> None:
    settings = Settings(workers=1, queue=1, time_limit_s=60.0, grace_s=0.1)
    metrics = Metrics()

    async def lives() -> list[int]:
        pool = Pool(settings, metrics)
        await pool.start()
        try:
            first = await pool.run(Job("catalogue"), 60.0)
            (worker,) = pool._all
            os.kill(worker.process.pid, signal.SIGKILL)
            await asyncio.sleep(0.2)
            assert (await pool.run(Job("catalogue"), 60.0)) == first
            (worker,) = pool._all
            os.kill(worker.process.pid, signal.SIGSTOP)
            with pytest.raises(Refused) as late:
                await pool.run(Job("catalogue"), 0.2)
            assert late.value.status == 504
            await asyncio.sleep(0.1)
            return [worker.process.pid]
        finally:
            await pool.close()

    (last,) = asyncio.run(lives())
    assert metrics.replaced == {"time": 1, "died": 1}
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)


def test_waiting_for_a_second_worker_is_part_of_the_time() -> None:
    """The worker that was free had ended, and no other comes."""

    async def lives() -> float:
        pool = Pool(Settings(workers=1, queue=1), Metrics())
        dead = await _Worker.start(0)
        await dead.kill()
        begun = asyncio.get_running_loop().time()
        asyncio.get_running_loop().call_later(0.9, pool._release, dead)
        pool._replace = nobody  # type: ignore[method-assign]
        with pytest.raises(Refused) as late:
            await pool.run(Job("catalogue"), 1.0)
        assert late.value.status == 429
        return asyncio.get_running_loop().time() - begun

    async def nobody(worker: _Worker, why: str) -> None: ...

    assert asyncio.run(lives()) < 1.7  # 1.9 s if it had all its time again


# --- a whole service ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    limits = {"head_s": 1.0, "body_s": 1.0, "reading_s": 1.0, "connections": 12, "max_body_bytes": 2**20, "shutdown_s": 3.0}
    with served(Settings(workers=1, queue=1, **limits)) as started:  # type: ignore[arg-type]
        yield started


def raw(service: Service, data: bytes, receive: int = 0) -> socket.socket:
    """A connection on which that was sent; ``receive``: bytes that the system takes in for it unread."""
    found = socket.socket()
    if receive:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    found.settimeout(15)
    found.connect((service.host, service.port))
    found.sendall(data)
    return found


def rest(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    parts = []
    with closing(connection):
        try:
            while part := connection.recv(65536):
                parts.append(part)
        except ConnectionError:
            pass
    return b"".join(parts)


def head(service: Service, path: str, length: int) -> bytes:
    lines = f"POST {path} HTTP/1.1\r\nHost: {service.host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    return lines.encode()


def test_a_service_answers_as_its_parts_do(service: Service, planned: bytes) -> None:
    response = httpx.post(service.address + "/plan", json=SMALL, timeout=30)
    assert (response.status_code, response.content) == (200, planned)


def test_who_is_slow_or_rude_is_shown_out(service: Service) -> None:
    begun = time.monotonic()
    slow = [raw(service, f"GET / HTTP/1.1\r\nHost: {service.host}\r\nX: ".encode()), raw(service, b"")]
    late = raw(service, head(service, "/plan", 100) + b"{")
    greedy = raw(service, f"GET /openapi.json HTTP/1.1\r\nHost: {service.host}\r\n\r\n".encode() * 200, receive=4096)
    assert rest(raw(service, b"\x16\x03\x01\r\n\r\n")).startswith(b"HTTP/1.1 400")
    assert b" 413 " in rest(raw(service, head(service, "/plan", 2**20 + 1) + b" " * (2**20 + 1))).splitlines()[0]
    assert b" 413 " in rest(raw(service, head(service, "/plan", 10**12))).splitlines()[0]
    assert b" 408 " in rest(late).splitlines()[0]
    assert [rest(one) for one in slow] == [b"", b""]
    assert service.health()["status"] == "ok"
    time.sleep(max(0.0, 4.5 - (time.monotonic() - begun)))
    with closing(greedy), pytest.raises(OSError):  # nothing of it was read, so in the end it is cut off
        for _ in range(100):
            greedy.sendall(b"x" * 65536)
            time.sleep(0.01)
    assert time.monotonic() - begun < 12


def test_of_too_many_connections_the_idlest_goes(service: Service) -> None:
    many = [raw(service, b"GET / HT") for _ in range(15)]
    assert service.health()["status"] == "ok"
    assert rest(many[0]) == b""
    for one in many:
        one.close()


def test_a_full_queue_says_when_to_come_again_and_who_goes_away_is_forgotten(service: Service) -> None:
    (worker,) = service.workers()
    os.kill(worker, signal.SIGSTOP)
    body = json.dumps(SMALL).encode()
    waiting = []
    for state in ({"workers_busy": 1, "queue_length": 0}, {"workers_busy": 1, "queue_length": 1}):
        waiting.append(raw(service, head(service, "/plan", len(body)) + body))
        service.until(lambda now, state=state: state.items() <= now.items())
    begun = time.monotonic()
    full = httpx.post(service.address + "/plan", json=SMALL, timeout=30)
    assert time.monotonic() - begun < 1.0
    assert full.status_code == 429 and 1 <= int(full.headers["retry-after"]) <= 60
    assert "come again" in full.json()["message"]
    waiting[1].close()  # who waits and goes leaves its place to others
    service.until(lambda now: now["queue_length"] == 0)
    waiting[0].close()  # whose worker does not hear that: it is replaced
    service.until(lambda now: now["workers_busy"] == 0 and now["workers_ready"] == 1)
    assert service.workers() != [worker]
    text = service.get("/metrics").text
    assert "planner_cancelled_total 1" in text and 'planner_workers_replaced_total{reason="cancelled"} 1' in text
    assert 'planner_requests_total{path="/plan",status="429"} 1' in text


def test_asked_to_end_it_finishes_what_it_plans(service: Service, planned: bytes) -> None:
    """Last, since the service is gone after it."""
    body = json.dumps(SMALL).encode()
    (worker,) = service.workers()
    os.kill(worker, signal.SIGSTOP)
    asked = raw(service, head(service, "/plan", len(body)) + body)
    queued = raw(service, head(service, "/plan", len(body)) + body)
    service.until(lambda now: now["queue_length"] == 1)
    service.process.send_signal(signal.SIGTERM)
    assert b" 503 " in rest(queued).splitlines()[0]
    os.kill(worker, signal.SIGCONT)
    assert rest(asked).endswith(planned)
    assert service.process.wait(20) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_the_command_refuses_what_it_cannot_do(run: Any) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        code, _, err = run("serve", "--port", taken.getsockname()[1])
    assert code == 2 and "cannot listen" in err and "--port" in err
    assert run("serve", "--host", "no.such.host.example.invalid")[0] == 2
    assert run("serve", "--workers", "0")[0] == 2
    code, out, _ = run("serve", "--help")
    assert code == 0 and "/openapi.json" in out
