"""The status page: read-only, rendered here, and no word of a vendor in it that is not escaped."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from twm_pipeline import links
from twm_pipeline.status.board import Board
from twm_pipeline.status.charts import Chart, draw_hours
from twm_pipeline.status.guard import Guard, require_password
from twm_pipeline.status.metrics import CONTENT_TYPE, expose
from twm_pipeline.status.plots import PLOTS
from twm_pipeline.status.words import size, span

if TYPE_CHECKING:
    from starlette.requests import Request

    from twm_pipeline.records import Json
    from twm_pipeline.settings import Settings

STATIC_DIR = Path(__file__).parent / "static"
REFRESH_SECONDS = 5


def build_page(settings: Settings) -> Starlette:
    """Return the ASGI application.

    Raises:
        ConfigError: If it would listen beyond this machine without a password.
    """
    require_password(settings)
    page = Page(settings)
    return Starlette(
        routes=[
            Route("/", page.whole),
            Route("/fragment", page.fragment),
            Route("/metrics", page.metrics),
            Route("/plots/{name}.png", page.plot),
            Route("/favicon.ico", lambda _: RedirectResponse("/static/favicon.svg")),
            Mount("/static", StaticFiles(directory=STATIC_DIR)),
        ],
        middleware=[Middleware(Guard, password=settings.status_password)],
        lifespan=page.lifespan,
    )


class Page:
    """The page's addresses.

    Args:
        settings: Of the deployment.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.board = Board(settings)
        self.zone = ZoneInfo(settings.timezone)
        self.templates = Environment(
            loader=PackageLoader("twm_pipeline.status"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters |= {
            "span": span,
            "size": size,
            "when": self._when,
            "commands": mark_commands,
            "number": "{:,}".format,
        }
        self.templates.globals |= {
            "links": links,
            "settings": settings,
            "chart": self._chart,
            "plots": PLOTS,
            "version": _version_of(STATIC_DIR),
            "refresh_seconds": REFRESH_SECONDS,
        }

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Give the connections back in the end."""
        yield
        self.board.close()

    def whole(self, _: Request) -> Response:
        """Return the page."""
        return self._render("page.html")

    def fragment(self, _: Request) -> Response:
        """Return what changes in the page."""
        return self._render("fragment.html")

    def metrics(self, _: Request) -> Response:
        """Return the figures for Prometheus."""
        return Response(expose(self.board.figures()), media_type=CONTENT_TYPE)

    def plot(self, request: Request) -> Response:
        """Return a picture of an insight."""
        name = request.path_params["name"]
        png = self.board.plot(name) if name in PLOTS else None
        return Response(png, media_type="image/png") if png else Response(status_code=404)

    def _render(self, name: str) -> Response:
        figures = self.board.figures()
        return HTMLResponse(
            self.templates.get_template(name).render(figures=figures, now=figures["taken_at"])
        )

    def _chart(self, source: Json, now: datetime) -> Chart:
        return draw_hours(source["hours"], now=now, zone=self.zone)

    def _when(self, moment: datetime | None) -> str:
        """Return an instant as people of this zone read it: today's by the clock, others with their day."""
        if moment is None:
            return "never"
        here, today = moment.astimezone(self.zone), datetime.now(self.zone).date()
        return here.strftime("%H:%M:%S" if here.date() == today else "%d.%m.%Y %H:%M")


def mark_commands(words: str) -> Markup:
    """Return *words*, escaped, with what stands between backticks as code."""
    parts = words.split("`")
    marked = [Markup("<code>{}</code>").format(part) for part in parts[1::2]]
    parts[1::2] = marked
    return Markup().join(parts)


def _version_of(folder: Path) -> str:
    """Return a digest of the static files: a new one makes browsers fetch them anew."""
    digest: Any = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        digest.update(file.read_bytes())
    return str(digest.hexdigest()[:12])
