"""What Prometheus would find at a process's port."""

import urllib.request
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Scraped:
    """Samples by their name and labels; `kinds` has every metric, also those without a sample yet."""

    kinds: dict[str, str] = field(default_factory=dict)
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = field(default_factory=dict)

    def value(self, name: str, **labels: str) -> float:
        return self.samples[name, frozenset(labels.items())]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of all samples that have these labels."""
        wanted = frozenset(labels.items())
        return sum(v for (found, have), v in self.samples.items() if found == name and wanted <= have)

    def labels(self, name: str) -> set[str]:
        """Return the names of the labels that any sample of the metric has, but for the buckets' own."""
        suffixes = ("", "_bucket", "_sum", "_count")
        named = {name + suffix for suffix in suffixes}
        return {label for (found, have), _ in self.samples.items() if found in named for label, _ in have} - {
            "le"
        }


def scrape(address: str) -> Scraped:
    """Return what is exported at HOST:PORT."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        text = response.read().decode()
    found = Scraped()
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found.kinds[name] = family.type
        for sample in family.samples:
            found.samples[sample.name, frozenset(sample.labels.items())] = sample.value
    return found
