"""Benchmark of this project: a site started as a user starts it, and the work done with it."""

import json
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests
from playwright._impl._api_structures import SetCookieParam

from tests.bench import load
from tests.bench.memory import pss_of_tree
from tests.site import Site, wait_until

PASSWORD = "a bench is for sitting"
MODELS = "/accounts/local/models/"
ROW = {"data": [[5.1, 3.5, 1.4, 0.2]]}
SEED = """
    import time
    from deployments.mirror.refresh import request_refresh
    from deployments.models import HostingAccount, RegisteredModel
    from mms.models import Account, Model
    there = Account.objects.get(name="local")
    have = Model.objects.filter(account=there, name__startswith="churn-").count()
    for start in range(have, {count}, 1000):
        Model.objects.bulk_create(
            Model(account=there, name=f"churn-{{n % 500}}", version=n // 500 + 1, tags=["bench", f"t{{n % 7}}"],
                  url=f"https://models.example/churn-{{n}}.pkl", description="Customer churn")
            for n in range(start, min(start + 1000, {count}))
        )
    account = HostingAccount.objects.get(name="local")
    request_refresh(account)
    until = time.time() + 240
    here = RegisteredModel.objects.filter(account=account, vanished_at=None, name__startswith="churn-")
    while (found := here.count()) < {count}:
        assert time.time() < until, f"only {{found}} models arrived in the mirror"
        time.sleep(0.5)
"""


class Bench:
    """Running site with an administrator, a signed-in browser session and a token for the MMS API."""

    def __init__(self, site: Site) -> None:
        self.site = site
        site.manage("create_user", "bench", "--role", "admin", "--password-stdin", stdin=f"{PASSWORD}\n")
        self.api = requests.Session()
        self.api.headers["Authorization"] = f"Bearer {site.manage('create_token', '--account', 'local')}"
        self.api_url = f"{site.url}/api/subscriptions/local/resourceGroups/local/hostingAccounts/local"
        self.pages = requests.Session()
        self.post("/sign-in/", username="bench", password=PASSWORD)

    def post(self, path: str, **fields: str) -> requests.Response:
        """Submit the form on the page at `path`. Raise HTTPError if it fails, with status 422 if it was refused."""
        page = self.pages.get(self.site.url + path)
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token, f"{path} shows no form ({page.status_code})"
        answer = self.pages.post(
            page.url, data=fields | {"csrfmiddlewaretoken": token[1]}, headers={"Referer": page.url}
        )
        answer.raise_for_status()
        return answer

    def cookies(self) -> list[SetCookieParam]:
        """Return the session's cookies in Playwright's format."""
        return [
            {"name": cookie.name, "value": str(cookie.value), "url": self.site.url} for cookie in self.pages.cookies
        ]

    def shell(self, code: str) -> str:
        """Run code in the site's Django. Return its output."""
        return self.site.manage("shell", "-v", "0", "-c", textwrap.dedent(code))

    def shell_in_background(self, code: str) -> subprocess.Popen[str]:
        """Run code in the site's Django without waiting. Read its output from the process's stdout."""
        command = [sys.executable, "manage.py", "shell", "-v", "0", "-c", textwrap.dedent(code)]
        return subprocess.Popen(
            command, cwd=Path(__file__).parents[2], env=self.site.environment, stdout=subprocess.PIPE, text=True
        )

    @property
    def tree(self) -> int:
        """The memory in bytes (PSS) of every process of the site."""
        assert self.site.process
        return pss_of_tree(self.site.process.pid)

    def program_memory(self, name: str) -> int:
        """Return the memory in bytes (PSS) of a supervised program, such as `site:web`, and of its children."""
        return pss_of_tree(self.site.program(name).pid)

    def program_cpu(self, name: str) -> float:
        """Return the seconds of CPU that a supervised program and its running children have used."""
        root = self.site.program(name)
        return sum(sum(process.cpu_times()[:2]) for process in [root, *root.children(recursive=True)])

    def wait_for_health(self) -> None:
        """Wait until /healthz reports that every part works."""
        wait_until(self.site.works, 120, "a healthy site")

    def restart(self, **environment: str) -> None:
        """Stop the site, then start it with these additional settings."""
        self.site.stop(signal.SIGTERM)
        self.site.environment |= environment
        self.site.start()

    # --- services ---------------------------------------------------------------------------------------------------

    def services(self) -> dict[str, dict[str, Any]]:
        """Return the account's services at the MMS by name."""
        return {service["name"]: service for service in self.api.get(f"{self.api_url}/services").json()}

    def key(self, service_id: str) -> str:
        return str(self.api.get(f"{self.api_url}/services/{service_id}/keys").json()["primaryKey"])

    def address(self, service_id: str) -> str:
        """Return the address of the service's scoring program."""
        return str(json.loads((self.site.data / "mms" / "routes" / f"{service_id}.json").read_text())["address"])

    def delete(self, service_id: str) -> None:
        self.api.delete(f"{self.api_url}/services/{service_id}").raise_for_status()

    def service(self) -> str:
        """Return the id of a service. Build and deploy the demo if there is none."""
        if not self.services():
            self.wait_for_health()
            self.site.manage("demo")
        return str(next(iter(self.services().values()))["id"])

    def score_directly(self, service_id: str, *, clients: int, seconds: float) -> load.Result:
        url = f"{self.address(service_id)}:/score"
        message = load.encode("POST", url, json.dumps(ROW).encode())
        return load.run(url, lambda _: message, clients=clients, seconds=seconds)

    def score_through_gateway(self, service_id: str, *, clients: int, seconds: float) -> load.Result:
        url = f"{self.site.gateway_url}/scoring/{service_id}/score"
        message = self.scoring_request(service_id)
        return load.run(url, lambda _: message, clients=clients, seconds=seconds)

    def scoring_request(self, service_id: str) -> bytes:
        """Return the bytes of a scoring request for the gateway."""
        url = f"{self.site.gateway_url}/scoring/{service_id}/score"
        headers = {"Authorization": f"Bearer {self.key(service_id)}"}
        return load.encode("POST", url, json.dumps(ROW).encode(), headers)

    def register_models(self, *, clients: int, seconds: float) -> load.Result:
        """Register models with new names over the API."""
        url = f"{self.api_url}/models?api-version=2017-06-01-privatepreview"
        headers = {"Authorization": str(self.api.headers["Authorization"])}
        stamp = format(time.time_ns(), "x")

        def make(number: int) -> bytes:
            body = {"name": f"m-{stamp}-{number}", "url": "http://127.0.0.1/model.pkl"}
            return load.encode("POST", url, json.dumps(body).encode(), headers)

        return load.run(url, make, clients=clients, seconds=seconds)

    # --- lists ------------------------------------------------------------------------------------------------------

    def seed_models(self, count: int) -> None:
        """Have `count` models at the MMS and wait until the mirror has them."""
        self.shell(SEED.format(count=count))

    def list_models(self, *, clients: int, seconds: float) -> load.Result:
        """List all models through the API, without entity tags."""
        url = f"{self.api_url}/models?api-version=2017-06-01-privatepreview"
        message = load.encode("GET", url, headers={"Authorization": str(self.api.headers["Authorization"])})
        return load.run(url, lambda _: message, clients=clients, seconds=seconds)

    def read_pages(self, *, clients: int, seconds: float, queries: Sequence[str] = ("",)) -> load.Result:
        """Read the list of models, with one query string after another."""
        messages = [
            load.encode("GET", self.site.url + MODELS + query, headers=self.page_headers()) for query in queries
        ]
        make = messages.__getitem__
        return load.run(self.site.url, lambda n: make(n % len(messages)), clients=clients, seconds=seconds)

    def page_headers(self) -> dict[str, str]:
        """Return the headers of a browser that is signed in."""
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.pages.cookies)
        return {"Cookie": cookies, "Accept-Encoding": "gzip"}

    # --- deploy -----------------------------------------------------------------------------------------------------

    def deploy_and_score(self, name: str, image: str, cluster: str) -> float:
        """Return the seconds from submitting the deploy form to the first successful score of the new service."""
        path = "/accounts/local/services/new/"
        page = self.pages.get(self.site.url + path, params={"image": image})
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token, page.text
        fields = {"csrfmiddlewaretoken": token[1], "name": name, "image": image, "cluster": cluster}
        started = time.perf_counter()
        self.pages.post(page.url, data=fields, headers={"Referer": page.url}).raise_for_status()
        service = wait_until(lambda: self.services().get(name), 30, f"service {name} at the MMS", every=0.02)
        headers = {"Authorization": f"Bearer {self.key(service['id'])}"}

        def scored() -> bool:
            return requests.post(service["scoringUri"], json=ROW, headers=headers, timeout=30).ok

        wait_until(scored, 60, f"a successful score of {name}", every=0.01)
        return time.perf_counter() - started
