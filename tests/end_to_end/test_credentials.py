"""Credentials are used, and appear in nothing that a run leaves: real services, random secrets, and
every byte looked at.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tasks.store import Store
from tests.end_to_end.conftest import Command
from tests.tasks.test_store_s3 import BUCKET, _moto, _Proxy, _serving, server

__all__ = ["server"]  # pytest finds fixtures by their names here

boto3 = pytest.importorskip("boto3")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("services")]

STUDY = """
name: quiet
datasets: [uniform]
formulations: [edm]
seeds: 1
training: {steps: 20, batch: 16, width: 8, depth: 1, data: 50}
samplers: [heun, "boom:Boom"]
steps: [2]
samples: 40
metrics: [w1]
keep: {samples: true}
"""
BOOM = """
from dataclasses import dataclass
from diffusion.samplers import Sampler

@dataclass(frozen=True)
class Boom(Sampler):
    def step(self, denoiser, x, now, then, noise):
        raise ArithmeticError("no, not this one")
"""
REFUSAL = (
    "<?xml version='1.0' encoding='UTF-8'?><Error><Code>SignatureDoesNotMatch</Code><Message>The signature is another"
    "</Message><AWSAccessKeyId>KEY</AWSAccessKeyId></Error>"
)
AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


class Guarded(_Proxy):
    """Notes whose key a request has, and says of every one that it is wrong once so many commits were
    made; as S3 does, it repeats the key.
    """

    keys: set[str]
    commits_left: float

    def pass_on(self) -> None:
        found = re.search(r"Credential=(\w+)/", self.headers.get("Authorization", ""))
        self.keys.add(found.group(1) if found else "none")
        if self.command == "PUT" and "/refs/branch.main/" in self.path:
            type(self).commits_left -= 1
        if self.commits_left >= 0:
            super().pass_on()
            return
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = REFUSAL.replace("KEY", next(iter(self.keys))).encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on  # noqa: N815 - as the base class finds them


@pytest.mark.parametrize("server", [_moto], indirect=True, ids=["moto"])
def test_credentials_appear_in_nothing_that_a_run_leaves(
    server: str,
    tmp_path: Path,
    prefect_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run whose points are answered and fail, with AWS credentials in a file alone, which both
    libraries that ask have to find; then one with them in the environment, whose commit is refused.
    """
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    aws = {name: f"{name[-3:]}{secrets.token_hex(12)}" for name in AWS}
    prefect, ray = f"admin:{secrets.token_hex(12)}", secrets.token_hex(32)
    hidden = {**aws, "PREFECT_API_AUTH_STRING": prefect.partition(":")[2], "RAY_AUTH_TOKEN": ray}
    hidden["as a header has it"] = base64.b64encode(prefect.encode()).decode()
    owner = boto3.client("s3", endpoint_url=server, region_name="us-east-1", **_for_boto(aws))
    owner.create_bucket(Bucket=BUCKET)
    file = tmp_path_factory.mktemp("aws") / "credentials"
    file.write_text("[nightly]\n" + "".join(f"{name.lower()} = {value}\n" for name, value in aws.items()))
    (tmp_path / "boom.py").write_text(BOOM)
    (tmp_path / "quiet.yaml").write_text(STUDY)

    diffatlas, keys = Command(tmp_path, prefect_url), set[str]()
    own = {"DIFFATLAS_HOME": str(tmp_path / "home"), "PREFECT_API_AUTH_STRING": prefect, "RAY_AUTH_TOKEN": ray}
    own |= {"AWS_REGION": "us-east-1", "PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(tmp_path)])}
    by_file = {"AWS_PROFILE": "nightly", "AWS_SHARED_CREDENTIALS_FILE": str(file)}
    said = {}
    for name, code, commits, found in (("one", 1, float("inf"), by_file), ("two", 3, 2, aws)):
        handler = type("Handler", (Guarded,), {"target": server, "keys": keys, "commits_left": commits})
        with _serving(handler) as address:
            arguments = ["run", "quiet.yaml", "--store", f"s3://{BUCKET}/{name}"]
            variables: Any = {"AWS_ENDPOINT_URL_S3": address, **own, **found}
            ended = diffatlas(*arguments, code=code, **variables)
        said[name] = ended.stdout + ended.stderr
    assert "sampling failed: ArithmeticError" in said["one"]
    assert "its server refused that: look at the credentials" in said["two"].replace("\n", " ")
    assert keys == {aws["AWS_ACCESS_KEY_ID"]}

    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server)
    for name, value in (own | aws).items():
        monkeypatch.setenv(name, value)
    left = {f"{name} said": text.encode() for name, text in said.items()}
    left |= {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    database = {str(path): path.read_bytes() for path in tmp_path_factory.getbasetemp().glob("home*/prefect/*/*")}
    assert any(b"quiet.yaml" in held for held in database.values()), "the server's database is not among these"
    for entry in owner.list_objects_v2(Bucket=BUCKET)["Contents"]:
        left[entry["Key"]] = owner.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()
    for name in said:
        left |= dict(unpacked(f"s3://{BUCKET}/{name}"))
    assert any(b"ArithmeticError" in held for place, held in left.items() if place.startswith("s3:"))
    for what, secret in hidden.items():
        places = [place for place, held in (left | database).items() if secret.encode() in held]
        assert places == [], f"{what} is in {places}"


def _for_boto(aws: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in aws.items()}


def unpacked(uri: str) -> Iterator[tuple[str, bytes]]:
    """What lies compressed in a store: every array and attribute, and what each snapshot says."""
    store = Store.open(uri)
    yield f"{uri} history", json.dumps(store.history(), default=str).encode()
    group: Any = store.group()
    yield f"{uri} attributes", json.dumps(dict(group.attrs)).encode()
    for name, found in group.members(max_depth=None):
        yield f"{uri} {name} attributes", json.dumps(dict(found.attrs), default=str).encode()
        if hasattr(found, "shape"):
            values = found[...]
            text = values.dtype.kind in "OTU"
            yield f"{uri} {name}", "\n".join(map(str, values.ravel())).encode() if text else values.tobytes()
