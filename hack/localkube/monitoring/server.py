"""A real Prometheus on loopback: scrapes operators that run as processes, and evaluates the alerts."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
import yaml

from localkube.files import write
from localkube.plane.controlplane import free_ports
from localkube.plane.processes import Process, start, wait_until

from . import rules

READY_SECONDS, ANSWER_SECONDS = 60.0, 10.0
RULES, CONFIG, TARGETS = "alerts.yaml", "prometheus.yaml", "targets.json"


class PrometheusServer:
    """One Prometheus in a folder of its own. It finds its targets in a file, so operators may come and go."""

    def __init__(self, folder: Path, *, interval: str = "5s", hold: str | None = None) -> None:
        """``interval``: how often it scrapes and evaluates; ``hold``: instead of how long each alert waits."""
        self.folder = folder.absolute()
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self._interval, self._hold = interval, hold
        self._targets: dict[str, int] = {}
        self.process: Process | None = None

    def start(self, program: Path, *, leashed: bool = True) -> Process:
        """Start it and wait until it is ready. LocalKubeError with its last lines if it does not come so far."""
        self.folder.mkdir(parents=True, exist_ok=True)
        groups = rules.groups()
        for rule in (rule for group in groups["groups"] for rule in group["rules"]):
            rule["for"] = self._hold or rule["for"]
            rule["annotations"]["runbook_url"] = rule["annotations"]["runbook_url"].replace(rules.RUNBOOKS, "docs/alerts.md")
        write(self.folder / RULES, yaml.safe_dump(groups))
        job = {
            "job_name": "whatsapp-operator",
            "honor_labels": True,  # namespace and name are those of WhatsAppClusters
            "file_sd_configs": [{"files": [str(self.folder / TARGETS)], "refresh_interval": "1s"}],
        }
        every = {"scrape_interval": self._interval, "scrape_timeout": self._interval, "evaluation_interval": self._interval}
        write(self.folder / CONFIG, yaml.safe_dump({"global": every, "rule_files": [str(self.folder / RULES)], "scrape_configs": [job]}))
        self._write_targets()
        options = (f"--config.file={self.folder / CONFIG}", f"--storage.tsdb.path={self.folder / 'data'}")
        argv: list[str | Path] = [program, *options, f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"]
        log = self.folder / "prometheus.log"
        self.process = start("prometheus", argv, folder=self.folder, log=log, leashed=leashed)
        wait_until(self._is_ready, [self.process], "to be ready", time.monotonic() + READY_SECONDS)
        return self.process

    def scrape(self, name: str, port: int) -> None:
        """Scrape one more operator, which serves its metrics on this port of loopback."""
        self._targets[name] = port
        self._write_targets()

    def _write_targets(self) -> None:
        labels = {"namespace": "whatsapp-operator-system"}
        groups = [{"targets": [f"127.0.0.1:{port}"], "labels": {**labels, "pod": name}} for name, port in sorted(self._targets.items())]
        write(self.folder / TARGETS, json.dumps(groups))

    def ask(self, path: str, **query: str) -> httpx.Response:
        """Return its answer to a GET. httpx.HTTPError if there is none, or if it is an error."""
        return httpx.get(f"{self.url}{path}", params=query, timeout=ANSWER_SECONDS, trust_env=False).raise_for_status()

    def _is_ready(self) -> bool:
        try:
            self.ask("/-/ready")
        except httpx.HTTPError:
            return False
        return True
