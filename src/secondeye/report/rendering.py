"""Rendering of the Jinja2 templates in report/templates."""

from collections.abc import Callable, Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined


def render_template(
    name: str,  # a file in report/templates; .html.j2 is escaped automatically
    *,
    tests: Mapping[str, Callable[[object], bool]],
    filters: Mapping[str, Callable[..., object]],
    **context: object,
) -> str:
    """Render a template with these tests, filters and variables."""
    environment = Environment(
        loader=PackageLoader("secondeye.report"),
        autoescape=name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.tests.update(tests)
    environment.filters.update(filters)
    return environment.get_template(name).render(context)
