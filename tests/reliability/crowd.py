"""The demo page under a crowd: many visitors at once, some of whom send rubbish, or leave in the middle.

    cd tests && python -m reliability.crowd --users 50 --minutes 10

Every request must be answered, or refused in words; the server's memory must not grow without bound.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
from helpers.web_browser import free_port

from wavedistill.assets import bundled_checkpoints, web_path
from wavedistill.text import markdown_table

EXAMPLES = sorted((web_path() / "examples").glob("*.flac"))
LIMIT_BYTES = 20_000_000
PATIENCE = 600.0
"""Seconds after which a request counts as lost."""
PAUSE = (0.5, 5.0)
"""Seconds between two requests of a visitor."""
ALONE = httpx.Limits(max_keepalive_connections=0)
"""A connection for each request. The server closes one that was idle for 5 s; what is sent at that moment is lost, and
sent again by a browser but not by httpx."""
PARTS = 5
"""Of the time, after each of which the server's memory is told: it grows while models are loaded and buffers filled."""
LOST = "lost"


class Visitor(threading.Thread):
    """Asks one thing after another until the time is over.

    Args:
        address: of the page.
        student: the model to ask for.
        number: seeds what is asked.
        endings: counts (what was asked, how it ended).
        lost: notes of what was neither answered nor refused in words.
        end: monotonic time.
    """

    def __init__(self, address: str, student: str, number: int, endings: Counter, lost: list[str], end: float) -> None:
        super().__init__(daemon=True)
        self.student = student
        self.chance = random.Random(number)
        self.endings = endings
        self.lost = lost
        self.end = end
        self.http = httpx.Client(base_url=address, timeout=PATIENCE, limits=ALONE)

    def run(self) -> None:
        asks = [self.speak] * 8 + [self.look, self.send_rubbish, self.send_too_much, self.leave, self.try_a_path]
        while time.monotonic() < self.end:
            ask = self.chance.choice(asks)
            try:
                ending = ask()
            except Exception as error:  # whatever it is, the visitor got no answer
                ending = LOST
                self.lost.append(f"{ask.__name__}: {type(error).__name__} {error}")
            self.endings[ask.__name__.replace("_", " "), ending] += 1
            time.sleep(self.chance.uniform(*PAUSE))

    def look(self) -> str:
        """Open the page."""
        return "answered" if self.http.get("").status_code == 200 else LOST

    def speak(self) -> str:
        """Upload a recording and let the student speak; what comes back must be this visitor's."""
        path = self._upload("speech.flac", self.chance.choice(EXAMPLES).read_bytes())
        return self._ask(path)

    def send_rubbish(self) -> str:
        """Upload what is no recording."""
        whole = self.chance.choice(EXAMPLES).read_bytes()
        content = self.chance.choice([b"", b"no audio", whole[: len(whole) // 2], self.chance.randbytes(5000)])
        name = self.chance.choice(["a.wav", "../../a.mp3", "ü.flac", "a\nb.ogg"])
        return self._ask(self._upload(name, content))

    def send_too_much(self) -> str:
        """Upload more than is taken."""
        answer = self.http.post("gradio_api/upload", files={"files": ("large.wav", bytes(LIMIT_BYTES + 1_000_000))})
        return "refused" if answer.status_code == 413 and answer.text else LOST

    def leave(self) -> str:
        """Ask, and leave before the answer is there."""
        event = self._begin(self._upload("speech.flac", EXAMPLES[0].read_bytes()))
        if event is None:
            return "refused"
        with self.http.stream("GET", f"gradio_api/call/synthesize/{event}") as stream:
            next(stream.iter_raw(), None)
        return "left"

    def try_a_path(self) -> str:
        """Ask for a file of the machine."""
        path = self.chance.choice(["/etc/passwd", "/proc/self/environ", str(web_path() / "app.py")])
        if self.http.get(f"gradio_api/file={path}").status_code == 200:
            return "READ"
        return self._ask(path)

    def _upload(self, name: str, content: bytes) -> str:
        answer = self.http.post("gradio_api/upload", files={"files": (name, content)})
        answer.raise_for_status()
        return answer.json()[0]

    def _begin(self, path: str) -> str | None:
        """The number of the computation; None where it is refused in words."""
        data = [
            {"path": path, "meta": {"_type": "gradio.FileData"}},
            self.student,
            self.chance.randrange(99),
            1.0,
            None,
        ]
        answer = self.http.post("gradio_api/call/synthesize", json={"data": data})
        if answer.status_code == 200:
            return answer.json()["event_id"]
        if not answer.json()["detail"]:
            raise RuntimeError(f"refused without words: {answer.status_code}")
        return None

    def _ask(self, path: str) -> str:
        event = self._begin(path)
        if event is None:
            return "refused"
        told = ""
        with self.http.stream("GET", f"gradio_api/call/synthesize/{event}") as stream:
            for line in stream.iter_lines():
                if line.startswith("event:"):
                    told = line.removeprefix("event:").strip()
                if line.startswith("data:") and told in ("complete", "error"):
                    answer = json.loads(line.removeprefix("data:"))
                    words = answer.get("error") if isinstance(answer, dict) else answer
                    if told == "error" and not words:
                        raise RuntimeError(f"an error without words: {line}")
                    return "answered" if told == "complete" else "refused"
        raise RuntimeError(f"the stream ended after {told!r}")


def resident(pid: int) -> float:
    """Megabytes that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def serve(port: int, student: str) -> subprocess.Popen:
    """The demo in a process of its own; returns once the page answers."""
    command = [sys.executable, "-m", "wavedistill", "demo", "--port", str(port), "--checkpoint", student]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while server.poll() is None:
        try:
            httpx.get(f"http://127.0.0.1:{port}/", timeout=5.0)
            return server
        except httpx.TransportError:
            time.sleep(0.2)
    raise RuntimeError("the demo did not start")


def crowd(users: int, seconds: float, student: str) -> tuple[Counter, list[str], list[float]]:
    """How the requests ended, what was lost, and the server's memory, every second, in megabytes."""
    port = free_port()
    server = serve(port, student)
    endings: Counter = Counter()
    lost: list[str] = []
    memory = []
    try:
        end = time.monotonic() + seconds
        visitors = [
            Visitor(f"http://127.0.0.1:{port}/", student, number, endings, lost, end) for number in range(users)
        ]
        for visitor in visitors:
            visitor.start()
        while any(visitor.is_alive() for visitor in visitors):
            memory.append(resident(server.pid))
            time.sleep(1.0)
    finally:
        server.terminate()
        server.wait()
    return endings, lost, memory


def report(endings: Counter, memory: list[float]) -> str:
    """A table of the endings, and a line on memory."""
    asked = sorted({what for what, _ in endings})
    ways = ["answered", "refused", "left", LOST, "READ"]
    rows = [[what, *(endings[what, way] for way in ways)] for what in asked]
    told = " -> ".join(f"{memory[len(memory) * part // PARTS - 1]:.0f}" for part in range(1, PARTS + 1))
    return (
        markdown_table(["asked", "answered", "refused in words", "left", "lost", "read a file of the machine"], rows)
        + f"\n\n{endings.total()} requests; memory after each of {PARTS} equal parts of the time: {told} MB, "
        f"{max(memory):.0f} MB at most"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=50, metavar="N")
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M")
    parser.add_argument("--student", default="speech-student", metavar="NAME", help=", ".join(bundled_checkpoints()))
    args = parser.parse_args()
    endings, lost, memory = crowd(args.users, 60 * args.minutes, args.student)
    print(report(endings, memory))
    for what in lost[:20]:
        print(what, file=sys.stderr)
    return int(bool(lost) or any(way == "READ" for _, way in endings))


if __name__ == "__main__":
    sys.exit(main())
