"""A reverse proxy that shows a server of this machine below a prefix, as nginx would."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reverse_proxy(port: int, prefix: str, target: str) -> Iterator[str]:
    """Serve ``target`` on 127.0.0.1:``port`` below ``prefix`` ("/voice"), and nothing beside it; yields the address."""
    import httpx
    import uvicorn
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.requests import Request
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    client = httpx.AsyncClient(base_url=target, timeout=None)

    async def forward(request: Request) -> StreamingResponse:
        url = httpx.URL(path="/" + request.path_params["path"], query=request.url.query.encode())
        headers = [(name, value) for name, value in request.headers.raw if name != b"host"]
        headers.append((b"x-forwarded-host", request.headers["host"].encode()))
        asked = client.build_request(request.method, url, headers=headers, content=request.stream())
        answer = await client.send(asked, stream=True)
        kept = {
            name: value for name, value in answer.headers.items() if name not in ("transfer-encoding", "connection")
        }
        return StreamingResponse(answer.aiter_raw(), answer.status_code, kept, background=BackgroundTask(answer.aclose))

    methods = ["GET", "HEAD", "POST", "DELETE"]
    app = Starlette(routes=[Route(f"{prefix}/{{path:path}}", forward, methods=methods)])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
    try:
        yield f"http://127.0.0.1:{port}{prefix}/"
    finally:
        server.should_exit = server.force_exit = True  # the page's open streams would keep it
        thread.join()
