"""The inbox page: the caught mails as a person sees them, and their counts as JSON.

A mail is shown in a sandboxed frame under a policy that loads nothing and runs nothing: what a template or a
user's name smuggles into a mail must not work here either.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from local_stack.mail_content import header_text, parse, part, part_text
from local_stack.mail_store import Mail, MailStore, Search

PAGE_SIZE = 50
VIEWS = {"html": "HTML", "text": "Text", "headers": "Headers", "source": "Source"}

_HERE = Path(__file__).parent
_PAGE_POLICY = "default-src 'none'; style-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'"
_MAIL_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"

_pages = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_router = APIRouter()


def inbox_app(
    store: MailStore, lifespan: Callable[[FastAPI], AbstractAsyncContextManager[Any]] | None = None
) -> FastAPI:
    """Make the web application over a store. `lifespan` runs beside it, such as the SMTP server."""
    app = FastAPI(title="Inbox", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.store = store
    app.include_router(_router)
    return app


@_router.get("/")
def show_list(
    request: Request,
    q: str = "",
    campaign: str = "",
    alerts: bool = False,
    page: Annotated[int, Query(ge=1)] = 1,
) -> HTMLResponse:
    """Show the mails that a search finds, newest first."""
    store = _store(request)
    search = Search(q, campaign, alerts)
    found = store.count(search)
    pages = max(1, -(-found // PAGE_SIZE))
    page = min(page, pages)
    mails = store.mails(search, limit=PAGE_SIZE, offset=(page - 1) * PAGE_SIZE)
    return _page(
        "inbox.html",
        search=search,
        mails=mails,
        found=found,
        page=page,
        pages=pages,
        summary=_summary(store),
    )


@_router.get("/messages/{number}")
def show_mail(request: Request, number: int, view: str = "html") -> HTMLResponse:
    """Show one mail: rendered, as text, its headers, or its source."""
    store = _store(request)
    mail, content = _known(store, number)
    message = parse(content)
    text = part(message, "text/plain")
    views = {name: label for name, label in VIEWS.items() if name != "html" or part(message, "text/html")}
    return _page(
        "message.html",
        mail=mail,
        sender=header_text(message, "From"),
        recipient=header_text(message, "To"),
        view=view if view in views else next(iter(views)),
        views=views,
        text=part_text(text) if text is not None else "",
        headers=[(name, header_text(message, name)) for name in dict.fromkeys(message.keys())],
        source=content.decode("utf-8", errors="replace"),
        newer=store.mail(number + 1) is not None,
        older=store.mail(number - 1) is not None,
    )


@_router.get("/messages/{number}/html")
def show_html(request: Request, number: int) -> HTMLResponse:
    """Show a mail's HTML part alone, for the frame."""
    _, content = _known(_store(request), number)
    found = part(parse(content), "text/html")
    if found is None:
        raise HTTPException(404, f"Mail {number} has no HTML part.")
    return HTMLResponse(part_text(found), headers={"Content-Security-Policy": _MAIL_POLICY})


@_router.get("/messages/{number}/source")
def download_source(request: Request, number: int) -> Response:
    """Download a mail as it came over the wire."""
    _, content = _known(_store(request), number)
    disposition = f'attachment; filename="mail-{number}.eml"'
    return Response(content, media_type="message/rfc822", headers={"Content-Disposition": disposition})


@_router.get("/api/messages")
def give_counts(request: Request, campaign: str = "") -> dict[str, object]:
    """Give the counts, and the copies of every campaign and user (of one campaign where named)."""
    store = _store(request)
    copies = [
        {"campaign": name, "user_id": user_id, "copies": copies}
        for (name, user_id), copies in sorted(store.copies().items())
        if campaign in ("", name)
    ]
    return {**_summary(store), "copies": copies}


@_router.get("/static/inbox.css")
def give_stylesheet() -> FileResponse:
    """Give the page's stylesheet."""
    return FileResponse(_HERE / "static" / "inbox.css", media_type="text/css")


def _store(request: Request) -> MailStore:
    store: MailStore = request.app.state.store
    return store


def _known(store: MailStore, number: int) -> tuple[Mail, bytes]:
    mail, content = store.mail(number), store.content(number)
    if mail is None or content is None:
        raise HTTPException(404, f"There is no mail {number} in this inbox.")
    return mail, content


def _summary(store: MailStore) -> dict[str, Any]:
    copies = store.copies()
    return {
        "messages": store.count(),
        "alerts": store.count(Search(alerts_only=True)),
        "users": len({user_id for _, user_id in copies}),
        "max_copies": max(copies.values(), default=0),
        "campaigns": store.campaigns(),
    }


def _page(template: str, **values: object) -> HTMLResponse:
    text = _pages.get_template(template).render(values)
    return HTMLResponse(text, headers={"Content-Security-Policy": _PAGE_POLICY, "Cache-Control": "no-store"})
