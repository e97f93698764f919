"""The page of all calls, made from the OpenAPI description: one file without scripts, and nothing from another host."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jinja2

PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code { font-size: .95em; }
table { border-collapse: collapse; width: 100%; }
td { border-top: 1px solid #8886; padding: .2rem .8rem .2rem 0; vertical-align: top; }
summary { padding: .3rem 0; cursor: pointer; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>As data: <a href="openapi.json">openapi.json</a>. Examples and statuses: <code>docs/gateway.md</code>.</p>
{% for tag, calls in groups %}
<h2>{{ tag }}</h2>
{% for call in calls %}
<details>
<summary><code>{{ call.method }} {{ call.path }}</code> {{ call.summary }}</summary>
{% if call.description %}<p>{{ call.description }}</p>{% endif %}
<table>
{% for name, where, text in call.parameters %}
<tr><td><code>{{ name }}</code></td><td>{{ where }}</td><td>{{ text }}</td></tr>
{% endfor %}
{% for status, text in call.responses %}
<tr><td>{{ status }}</td><td></td><td>{{ text }}</td></tr>
{% endfor %}
</table>
</details>
{% endfor %}
{% endfor %}
</body>
</html>
"""


@dataclass(frozen=True)
class Call:
    """One call. parameters: name, where it stands, what it means; bodies are named by their media type."""

    tag: str
    method: str
    path: str
    summary: str
    description: str
    parameters: tuple[tuple[str, str, str], ...]
    responses: tuple[tuple[str, str], ...]


def docs_page(schema: dict[str, Any]) -> str:
    """The page of an OpenAPI description."""
    groups: dict[str, list[Call]] = {}
    for call in _calls(schema):
        groups.setdefault(call.tag, []).append(call)
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(_PAGE)
    return template.render(title=schema["info"]["title"], groups=sorted(groups.items()))


def _calls(schema: dict[str, Any]) -> Iterator[Call]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            parameters = [
                (each["name"], each["in"], each.get("description", "")) for each in operation.get("parameters", ())
            ]
            bodies = [(kind, "body", "") for kind in operation.get("requestBody", {}).get("content", {})]
            yield Call(
                operation.get("tags", ["other"])[0],
                method.upper(),
                path,
                operation.get("summary", ""),
                operation.get("description", ""),
                (*parameters, *bodies),
                tuple((str(status), each["description"]) for status, each in operation["responses"].items()),
            )
