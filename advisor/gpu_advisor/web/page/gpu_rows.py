"""The rows of the GPU list as HTML, each rendered once per view."""

from __future__ import annotations

from collections.abc import Iterator

from jinja2 import Environment
from markupsafe import Markup

from gpu_advisor.web.page.gpu_list import GpuList, GpuPage


class RowRenderer:
    """Caches the rows of the latest list, by the path to the root that their links have."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._list: GpuList | None = None
        self._cache: dict[tuple[str, int], Markup] = {}

    def rows(self, gpus: GpuList, page: GpuPage, root: str) -> Markup:
        """The rows of a page, with its groups' headings between them."""
        if self._list is not gpus:
            self._list, self._cache = gpus, {}
        return Markup("").join(self._parts(gpus, page, root, self._cache))

    def _parts(self, gpus: GpuList, page: GpuPage, root: str, cache: dict[tuple[str, int], Markup]) -> Iterator[Markup]:
        macros = self._environment.get_template("gpu_rows.html").module
        for number in page.rows:
            if number in page.groups:
                yield macros.group_row(page.groups[number])  # type: ignore[attr-defined]
            key = root, number
            if key not in cache:
                cache[key] = macros.gpu_row(gpus.rows[number], root)  # type: ignore[attr-defined]
            yield cache[key]
