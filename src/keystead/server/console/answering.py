"""Answers of the console: pages with headers that keep scripts and frames of others out, refusals as pages."""

from __future__ import annotations

import base64
import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from keystead import __version__
from keystead.errors import KMSError, UnauthenticatedError
from keystead.server.actors import on_behalf_of
from keystead.server.body import BodyTooLargeError
from keystead.server.console.pages import Deed, Done, File, Page, Preview, Shown
from keystead.server.console.rendering import render
from keystead.server.console.visits import (
    NoSessionError,
    Visit,
    cookie_name,
    fields_of,
    forget,
    keep,
    require_form,
    sign_in_for,
    visit_of,
)
from keystead.server.error_page import PATH
from keystead.server.errors import INTERNAL, Answer, answer_headers, answer_of
from keystead.server.requests import told_of

log = logging.getLogger("keystead.server")

Answering = Callable[[Request], Awaitable[Response]]
PROTECTED: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
PRIVATE: Final = {**PROTECTED, "Cache-Control": "no-store"}
_TOLD: Final = "keystead-told"
_TOLD_S: Final = 60
_TYPED: Final = "typed"
APPROVALS: Final = "/console/approvals"
_WAITS: Final = "Nothing is done yet: it waits for somebody else's approval."


class Room:
    """Answers pages and deeds.

    Args:
        pages: those that the navigation is made of.
    """

    def __init__(self, pages: list[Page]) -> None:
        self._navigation = [page for page in pages if page.title is not None]

    def page(self, page: Page) -> Answering:
        """Return what answers a page."""

        async def shown(visit: Visit) -> Response:
            return self.shown(visit, await page.show(visit))

        return self._answering(page, shown)

    def preview(self, deed: Deed) -> Answering:
        """Return what shows what a deed will do."""

        async def shown(visit: Visit) -> Response:
            return await self._preview(visit, deed, await deed.preview(visit))

        return self._answering(deed, shown)

    def deed(self, deed: Deed) -> Answering:
        """Return what does it, and shows the preview again with the reason where it is refused."""

        async def done(visit: Visit) -> Response:
            require_form(visit)
            preview = await deed.preview(visit)
            if preview.typed is not None and visit.fields.get(_TYPED, "").strip() != preview.typed.strip():
                told = f"type {preview.typed} to confirm; this was another text"
                return await self._preview(visit, deed, preview, refused=told, status=400)
            try:
                outcome = await deed.do(visit)
            except KMSError as exc:
                answer = _answer(exc)
                if answer.approval_id is not None:
                    return _moved(visit, Done(f"{APPROVALS}/{answer.approval_id}", _WAITS))
                return await self._preview(
                    visit, deed, preview, refused=answer.message, status=answer.status, error=answer.error
                )
            return _moved(visit, outcome) if isinstance(outcome, Done) else self.shown(visit, outcome)

        return self._answering(deed, done)

    def shown(self, visit: Visit, page: Shown | File) -> Response:
        """Return a page with what is around it on every one, or a file as it is."""
        if isinstance(page, File):
            named = {"Content-Disposition": f'attachment; filename="{page.name}"'}
            return Response(page.content, 200, {**PRIVATE, **named}, "application/octet-stream")
        told = _told(visit)
        values = {**self._around(visit), "told": told, **page.values}
        response = HTMLResponse(render(page.template, **values), page.status, PRIVATE)
        if told is not None:
            forget(visit.request, response, _TOLD)
        return response

    async def _preview(
        self,
        visit: Visit,
        deed: Deed,
        preview: Preview,
        *,
        refused: str | None = None,
        status: int = 200,
        error: str | None = None,
    ) -> Response:
        values = {
            "preview": preview,
            "refused": refused,
            "error": error,
            "sent": visit.fields or visit.request.query_params,
            "takes_two": deed.takes_two and await visit.manager.require_session().consent.holds(),
        }
        return self.shown(visit, Shown("deed.html", values, status))

    def _around(self, visit: Visit) -> dict[str, Any]:
        path = visit.request.url.path
        pages = [page for page in self._navigation if _is_allowed(visit, page)]
        below = [page for page in pages if _is_below(path, page.path)]
        shown = max(below, key=lambda page: len(page.path), default=None)
        here = None if shown is None else _group(shown)
        groups: dict[str, Page] = {}
        for page in pages:
            groups.setdefault(_group(page), page)
        return {
            "visit": visit,
            "navigation": [(group, page.path, group == here) for group, page in groups.items()],
            "beside": [(page.title, page.path, page is shown) for page in pages if _group(page) == here],
            "now": visit.service.now(),
            "version": __version__,
            "errors_page": PATH,
        }

    def _answering(self, what: Page | Deed, answer: Callable[[Visit], Awaitable[Response]]) -> Answering:
        async def answered(request: Request) -> Response:
            told_of(request.scope).operation = f"console {request.method} {what.path}"
            visit: Visit | None = None
            try:
                visit = await visit_of(request)
                if request.method == "POST":
                    visit = visit.sending(await fields_of(request, visit.service.settings.server.max_body))
                _require_allowed(visit, what)
                with on_behalf_of(visit.by):
                    return await answer(visit)
            except (NoSessionError, UnauthenticatedError):
                if "hx-request" in request.headers:
                    # A part of a page that is open: the whole of it is asked for again, and leads to the sign-in.
                    return Response(None, 200, {**PRIVATE, "HX-Refresh": "true"})
                response = RedirectResponse(sign_in_for(request), 303, PRIVATE)
                forget(request, response, cookie_name(request))
                return response
            except Exception as exc:
                return self.refusal(request, exc, visit)

        return answered

    def outside(self, path: str, answer: Answering) -> Answering:
        """Return what answers somebody who need not have signed in."""

        async def answered(request: Request) -> Response:
            told_of(request.scope).operation = f"console {request.method} {path}"
            try:
                return await answer(request)
            except Exception as exc:
                return self.refusal(request, exc, None)

        return answered

    def refusal(self, request: Request, error: Exception, visit: Visit | None) -> Response:
        """Return the page of what is wrong."""
        answer = _answer(error)
        if answer.status >= 500:
            log.error("a page failed", exc_info=error)
        values = {"answer": answer}
        if visit is not None:
            response = self.shown(visit, Shown("refused.html", values, answer.status))
        else:
            text = render("refused_outside.html", **values, errors_page=PATH)
            response = HTMLResponse(text, answer.status, PRIVATE)
        response.headers.update({name: each for name, each in answer_headers(answer).items() if name == "Retry-After"})
        return response


def _answer(error: Exception) -> Answer:
    if isinstance(error, BodyTooLargeError):
        return Answer("TOO_LARGE", 413, str(error))
    return answer_of(error, to_administrator=True) if isinstance(error, KMSError) else INTERNAL


def _is_allowed(visit: Visit, page: Page) -> bool:
    is_of_engine = page.transit is None or visit.may_transit(page.transit)
    return visit.may(page.scope, is_of_store=page.is_of_store) and is_of_engine


def _require_allowed(visit: Visit, what: Page | Deed) -> None:
    if what.scope is not None:
        visit.by.require(what.scope)
    if what.transit is not None:
        visit.require_transit(what.transit)
    if what.is_of_store:
        visit.by.require_all_tenants()


def _group(page: Page) -> str:
    return page.group or page.title or page.path


def _is_below(path: str, page: str) -> bool:
    return path == page or (page != "/" and path.startswith(f"{page}/"))


def _moved(visit: Visit, done: Done) -> Response:
    """Return the answer to a form: another page, which says once what was done."""
    response = RedirectResponse(done.then, 303, PRIVATE)
    text = base64.urlsafe_b64encode(done.told.encode()).decode()
    keep(visit.request, response, _TOLD, f"{_code(visit, text)}.{text}", _TOLD_S)
    return response


def _told(visit: Visit) -> str | None:
    """Return what the visitor is told this once; only this session can have written it."""
    code, _, text = visit.request.cookies.get(_TOLD, "").partition(".")
    if not hmac.compare_digest(code.encode(), _code(visit, text).encode()):
        return None
    return base64.urlsafe_b64decode(text).decode()


def _code(visit: Visit, text: str) -> str:
    return hmac.digest(visit.form.encode(), text.encode(), "sha256").hex()
