"""python -m train serve: a page in the browser that classifies the images that are dropped on it.

The page is one file, serve.html, and fetches nothing from elsewhere. Images stay in memory and are forgotten.
"""

import base64
import html
import io
import json
import os
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxcnn.cli import needed
from jaxcnn.data.files import FileError, StoredFile
from jaxcnn.data.image import to_square
from jaxcnn.data.readers.table import find_reader
from jaxcnn.errors import UserError
from jaxcnn.inference.card import card_text
from jaxcnn.inference.classifier import Classifier, load
from jaxcnn.inference.image_files import ImageFile
from jaxcnn.inference.overlay import draw_overlay
from jaxcnn.inference.saliency import check_has_maps, explain
from jaxcnn.inference.trained import Members, compile_with_weights
from jaxcnn.inference.unlike import judge
from jaxcnn.program_cache import keep_programs
from jaxcnn.runs.folder import Run, open_ensemble

MOST_BYTES, MOST_SLICES = 64_000_000, 64
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Nothing from elsewhere, whatever a name or a card holds.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src 'self'"

Answer = Callable[[str, bytes], list[dict[str, Any]]]


def serve(
    folders: Annotated[tuple[Path, ...], tyro.conf.Positional, needed("RUN [RUN ...]")],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
) -> None:
    """Serve a page on this computer that classifies images and shows the evidence. Not a medical device.

    Nothing is stored and nothing is fetched from elsewhere. Ctrl-C ends it.

    Args:
        folders: Run folder, folder of a converted classifier, or folder of a sweep over seeds. Several are one
            classifier, whose probabilities are the mean of theirs.
        host: Address to listen on; with another than that of this computer alone, everybody who reaches it can use the
            page, without a password.
        port: Port to listen on; 0 takes one that is free.
    """
    if not 0 <= port < 2**16:
        raise UserError(f"--port {port}: must be 0 to 65535")
    try:
        import uvicorn
    except ImportError as error:
        raise _not_installed() from error
    keep_programs()
    app = build_app(folders, host)
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise UserError(f"--host {host} --port {port}: {reason}; choose another port, or an own address") from error
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{listening.getsockname()[1]}  (Ctrl-C ends it)", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


def build_app(folders: Sequence[Path], host: str = "127.0.0.1") -> Any:
    """The ASGI application for runs as one classifier: GET / is the page, POST /classify?name=NAME takes a file.

    Raises:
        UserError: there is no classifier, or a package is missing.
    """
    try:
        from starlette.applications import Starlette
        from starlette.concurrency import run_in_threadpool
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.requests import ClientDisconnect, Request
        from starlette.responses import HTMLResponse, JSONResponse, Response
        from starlette.routing import Route
    except ImportError as error:
        raise _not_installed() from error
    answer, text = build_answer(load(folders)), page(open_ensemble(folders))

    def show(_: Request) -> Response:
        return HTMLResponse(text, headers={"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"})

    async def look(request: Request) -> Response:
        content = bytearray()
        try:
            async for chunk in request.stream():
                content += chunk
                if len(content) > MOST_BYTES:
                    return JSONResponse({"error": f"is larger than {MOST_BYTES // 10**6} MB"}, status_code=413)
            name = request.query_params.get("name", "image")
            return JSONResponse({"images": await run_in_threadpool(answer, name, bytes(content))})
        except ClientDisconnect:  # The page was closed during the upload, and nobody waits for an answer.
            return Response(status_code=400)
        except ValueError as error:  # FileError and UserError are such, too.
            return JSONResponse({"error": " ".join(str(error).split())}, status_code=400)

    # A page from elsewhere that takes this computer's address for its own gets no answer.
    trusted = [Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])]
    routes = [Route("/", show), Route("/classify", look, methods=["POST"])]
    return Starlette(routes=routes, middleware=trusted if host in _LOOPBACK else [])


def build_answer(classifier: Classifier) -> Answer:
    """What gives, for the name and the bytes of a file, what there is to say about each image in it.

    The program is compiled here, for one image at a time, so that the first answer doesn't wait for that. What is given
    raises a ValueError whose message continues a sentence that begins with the file's name.

    Raises:
        UserError: a member has no maps of the evidence.
    """
    check_has_maps(classifier.members)
    size = classifier.members[0].image_shape[0]  # The images of every data set are squares.

    def look(members: Members, image: jax.Array) -> Any:
        probabilities, unlike = judge(members, image)
        return probabilities, unlike, *explain(members, image, jnp.argmax(probabilities, axis=1))

    compiled = compile_with_weights(look, classifier.members)

    def answer(name: str, content: bytes) -> list[dict[str, Any]]:
        stored = StoredFile(PurePosixPath(name), len(content), lambda count: content[:count])
        slices = ImageFile(Path(name), stored, find_reader(stored)).read().slices
        if len(slices) > MOST_SLICES:
            raise FileError(f"holds {len(slices)} slices, more than {MOST_SLICES}; use python -m train predict")
        return [
            _describe(f"{name}#{cut.part}" if cut.part else name, *judge_one(to_square(cut.pixels, size)[np.newaxis]))
            for cut in slices
        ]

    def judge_one(square: np.ndarray) -> tuple[list[tuple[str, float]], np.ndarray, np.ndarray, float | None]:
        probabilities, unlike, seen, saliency = jax.device_get(compiled(square))
        order = np.argsort(-probabilities[0], kind="stable")
        ranked = [(classifier.classes[place], float(probabilities[0, place])) for place in order]
        return ranked, seen[0], saliency[0], None if unlike is None else float(unlike[0])

    judge_one(np.zeros((1, size, size, 1), np.uint8))
    return answer


def _describe(
    name: str, ranked: Sequence[tuple[str, float]], seen: np.ndarray, saliency: np.ndarray, unlike: float | None
) -> dict[str, Any]:
    if not np.isfinite([probability for _, probability in ranked]).all():
        raise FileError("has no probabilities, since numbers become infinite or NaN in the network; use another run")
    written = io.BytesIO()
    draw_overlay(seen, saliency).save(written, "PNG")
    picture = f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
    return {"name": name, "probabilities": ranked, "unlike": unlike, "picture": picture}


def page(runs: Sequence[Run]) -> str:
    """The page, with the model's card."""
    from markdown_it import MarkdownIt

    try:
        card = card_text(runs)
    except UserError as error:
        card = f"There is no card: {error}."
    rendered = MarkdownIt("commonmark", {"html": False}).enable("table").render(card)
    limits = json.dumps({"bytes": MOST_BYTES})
    content = {"title": html.escape(", ".join(run.name for run in runs)), "card": rendered, "limits": limits}
    text = Path(__file__).with_name("serve.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{ (\w+) \}\}", lambda place: content[place[1]], text)


def _not_installed() -> UserError:
    return UserError(
        "serve: needs starlette, uvicorn and markdown-it-py, which are not all installed:"
        " pip install -c constraints.txt -e '.[serve]'"
    )
