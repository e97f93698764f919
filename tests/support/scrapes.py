"""What a scraper reads from a gateway."""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from tests.support.gateway import InProcessGateway


@dataclass(frozen=True)
class Scrape:
    """The samples of one scrape. kinds: of metrics by name."""

    samples: dict[str, list[tuple[dict[str, str], float]]]
    kinds: dict[str, str]

    def value(self, name: str, **labels: str) -> float:
        """The one sample with these labels."""
        [found] = [value for given, value in self.samples[name] if labels.items() <= given.items()]
        return found

    def counters(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Every sample that Prometheus takes for a counter."""
        for name, samples in self.samples.items():
            if name.endswith(("_total", "_bucket", "_count", "_sum")):
                for labels, value in samples:
                    yield (name, *map(str, sorted(labels.items()))), value


def scrape(gateway: InProcessGateway, **headers: str) -> Scrape:
    """Read `/metrics` as Prometheus does."""
    answer = gateway.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    kinds = {}
    for family in text_string_to_metric_families(answer.text):
        kinds[family.name] = family.type
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return Scrape(samples, kinds)
