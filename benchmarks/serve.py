"""How `panda serve` holds up: many prompts, many clients, every answer checked, bad requests among the good ones.

    python benchmarks/serve.py --seconds 600 --bad 5000 --out serve-results

does all of it and writes serve.json and serve.md:

- a closed loop (every client asks again when it has its answer), which finds the most rows a second, and an open one
  (requests come at random times, whether or not others are answered), whose latencies count from the moment when a
  request was due: a server that stalls is charged for all who would have asked meanwhile. Each takes half of the time;
- kill -9 and a restart on the same port while all clients ask: they may be refused, and never be told something wrong;
- beside it, behind the same clients: one process a task; LitServe before the same engine, if `--litserve FOLDER` names
  where `pip install --target FOLDER litserve` put it; and one PEFT model that switches adapters, without any HTTP.

The clients run on the same machine, and take from it what they take.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from serving_bank import Request, make_bank, make_requests, peft_rate
from serving_load import Ports, Seen, bad_requests, closed_loop, open_loop
from serving_servers import Server, litserve, one_a_task, panda

from promptpanda.backbone import Backbone
from promptpanda.bank.folder import TrainedPrompt
from promptpanda.models import EMBEDDED, locate
from promptpanda.quiet import quiet_libraries

_OPEN_LOAD = 0.6  # of the closed loop's requests a second
_WARM_UP = 5.0  # seconds that are not counted


@dataclass(frozen=True)
class Setting:
    """What all parts of the benchmark share."""

    folder: Path
    model: Path
    trained: list[TrainedPrompt]
    requests: list[Request]
    given: argparse.Namespace

    def loops(self, ports: Ports, requests: list[Request], seconds: float) -> list[dict[str, Any]]:
        """A closed and an open loop, each for half of the time, after some seconds that do not count."""
        clients = self.given.clients
        closed_loop(ports, requests, clients, min(_WARM_UP, seconds / 4))
        seen, took = closed_loop(ports, requests, clients, seconds / 2)
        rate = _OPEN_LOAD * len(seen.latencies) / took
        found = [_line(f"closed loop, {clients} clients", seen, took)]
        if rate > 0:
            opened, took = open_loop(ports, requests, clients, seconds / 2, rate)
            found.append(_line(f"open loop, {rate:.0f} requests/s", opened, took))
        return found


def _line(name: str, seen: Seen, seconds: float) -> dict[str, Any]:
    others = {status: count for status, count in seen.statuses.items() if status != "200"}
    return {
        "what": name,
        "rows_a_second": seen.rows / seconds,
        "p50_ms": seen.quantile(0.5),
        "p99_ms": seen.quantile(0.99),
        "answered": seen.statuses["200"],
        "wrong": seen.wrong,
        "other": others,
    }


def under_load(setting: Setting, server: Server) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Both loops, with strangers among the clients; the lines, and how the bad requests were answered."""
    given = setting.given
    bad: list[Counter[str]] = []
    strangers = threading.Thread(target=lambda: bad.append(bad_requests(server.port, given.bad, given.seconds)))
    strangers.start()
    lines = setting.loops(lambda _: server.port, setting.requests, given.seconds)
    strangers.join()
    return lines, dict(bad[0])


def killed_under_load(setting: Setting, server: Server) -> dict[str, Any]:
    """kill -9 after a third of the time, a restart at once."""
    seconds = min(60.0, setting.given.seconds / 2) + 10.0
    back: list[float] = []

    def kill() -> None:
        time.sleep(seconds / 3)
        began = time.perf_counter()
        server.kill()
        server.start()
        back.append(time.perf_counter() - began)

    killer = threading.Thread(target=kill)
    killer.start()
    seen, took = closed_loop(lambda _: server.port, setting.requests, setting.given.clients, seconds)
    killer.join()
    again, _ = closed_loop(lambda _: server.port, setting.requests, setting.given.clients, 5.0)
    line = _line("kill -9 and restart under load", seen, took)
    return line | {"back_after_seconds": back[0], "then": _line("then", again, 5.0)}


def processes_alone(setting: Setting) -> tuple[list[dict[str, Any]], float]:
    """One process a task, for some of the tasks; the lines, and MB of one process."""
    given = setting.given
    few = setting.trained[: given.alone]
    ids = {one.card.id for one in few}
    requests = [one for one in setting.requests if one.prompt in ids]
    with one_a_task(setting.folder, few, setting.model, given.threads) as servers:
        lines = setting.loops(lambda request: servers[request.prompt].port, requests, given.beside)
        memory = float(np.mean([max(server.memory) for server in servers.values()]))
    for line in lines:
        line["what"] = f"one process a task, {len(few)} of them, {line['what']}"
    return lines, memory


def behind_litserve(setting: Setting) -> list[dict[str, Any]]:
    given = setting.given
    server = litserve(given.litserve, setting.folder / "bank", setting.model, given.threads)
    try:
        lines = setting.loops(lambda _: server.port, setting.requests, given.beside)
    finally:
        server.kill()
    for line in lines:
        line["what"] = f"LitServe, {line['what']}"
    return lines


def tell(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def measured(setting: Setting, measure: Any) -> dict[str, Any]:
    """All of it, as data."""
    given = setting.given
    tell("offline, one mixed pass")
    passes = [measure()]
    tell("panda serve under load")
    server = panda(setting.folder / "bank", setting.model, given.threads)
    lines, bad = under_load(setting, server)
    steady = list(server.memory)
    tell("panda serve killed under load")
    killed = killed_under_load(setting, server)
    code = server.stop()
    passes.append(measure())
    tell("one process a task, and others beside it")
    beside, alone_memory = processes_alone(setting) if given.alone else ([], None)
    if given.litserve is not None:
        beside += behind_litserve(setting)
    tell("one PEFT model that switches adapters")
    peft = peft_rate(setting.trained, setting.model, setting.requests, min(20.0, given.seconds / 2))
    tenth = max(1, len(steady) // 10)
    return {
        "settings": {name: str(value) for name, value in vars(given).items()},
        "torch": torch.__version__,
        "offline_rows_a_second": passes,
        "panda_serve": lines,
        "bad_requests": bad,
        "killed": killed,
        "exit_code_after_sigterm": code,
        "memory_mb": [float(np.mean(steady[at : at + tenth])) for at in range(0, len(steady), tenth)],
        "beside": beside,
        "memory_mb_of_one_process_a_task": alone_memory,
        "peft_rows_a_second": peft,
    }


def markdown(found: dict[str, Any]) -> str:
    """The table, and what does not go into it."""
    passes = found["offline_rows_a_second"]
    offline = float(np.mean(passes))
    rows = [
        ["", "rows/s", "of offline", "p50 ms", "p99 ms", "answered", "wrong", "other"],
        ["---"] * 8,
        [
            f"offline, one mixed pass ({passes[0]:.0f} before, {passes[1]:.0f} after)",
            f"{offline:.0f}",
            "100 %",
            *[""] * 5,
        ],
    ]
    for line in [*found["panda_serve"], found["killed"], *found["beside"]]:
        rate = line["rows_a_second"]
        cells = [f"{rate:.0f}", f"{rate / offline:.0%}", f"{line['p50_ms']:.0f}", f"{line['p99_ms']:.0f}"]
        other = ", ".join(f"{count} x {status}" for status, count in line["other"].items()).replace("x 0", "x refused")
        rows.append([line["what"], *cells, str(line["answered"]), str(line["wrong"]), other or "none"])
    peft = found["peft_rows_a_second"]
    rows.append(["PEFT, adapter switched a request, no HTTP", f"{peft:.0f}", f"{peft / offline:.0%}", *[""] * 5])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    killed, settings = found["killed"], found["settings"]
    alone = found["memory_mb_of_one_process_a_task"]
    said = [
        f"Memory of the server in MB, over time: {', '.join(f'{part:.0f}' for part in found['memory_mb'])}.",
        ""
        if alone is None
        else f"One process a task: {alone:.0f} MB each, {settings['prompts']} would take "
        f"{alone * int(settings['prompts']) / 1000:.1f} GB.",
        f"Bad requests: {found['bad_requests']}. Exit code after SIGTERM: {found['exit_code_after_sigterm']}.",
        f"After kill -9 it answered again in {killed['back_after_seconds']:.1f} s; of the answers then "
        f"{killed['then']['wrong']} of {killed['then']['answered']} were wrong.",
        f"{settings['prompts']} prompts of three kinds, {settings['clients']} clients, {settings['seconds']} s, "
        f"{settings['threads']} threads, torch {found['torch']}.",
    ]
    return "\n\n".join([table, *filter(None, said)]) + "\n"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=EMBEDDED, help="name or folder of the model")
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0, help="of both loads of panda serve together")
    parser.add_argument("--beside", type=float, help="the same of each other server; by default a quarter of it")
    parser.add_argument("--requests", type=int, default=600, help="different ones, whose right answers are computed")
    parser.add_argument("--most-rows", type=int, default=8, help="a request has 1 to so many rows")
    parser.add_argument("--bad", type=int, default=200, help="bad requests among the good ones")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--alone", type=int, default=6, help="so many tasks with a process each; 0: leave it out")
    parser.add_argument("--litserve", type=Path, help="folder that LitServe was installed in")
    parser.add_argument("--out", type=Path, default=Path("serve-results"), help="folder of serve.json and serve.md")
    given = parser.parse_args()
    given.beside = given.beside or given.seconds / 4
    return given


def main() -> None:
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end too
    given.out.mkdir(parents=True, exist_ok=True)
    tell("making the bank, and what is right")
    quiet_libraries()
    torch.set_num_threads(given.threads)
    model = Path(locate(given.model))
    with TemporaryDirectory() as name:
        backbone = Backbone.load(str(model))
        trained = make_bank(Path(name), backbone, given.prompts)
        requests, measure = make_requests(trained, backbone, given.requests, given.most_rows)
        found = measured(Setting(Path(name), model, trained, requests, given), measure)
    (given.out / "serve.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    page = markdown(found)
    (given.out / "serve.md").write_text(page, encoding="utf-8")
    print(page, end="")


if __name__ == "__main__":
    main()
