"""Where searches of the laboratory leave their results: an S3 server on its network."""

import json
import logging
import re
from collections import Counter, defaultdict
from typing import Any

import boto3
from hosts import GATEWAY, Laboratory
from moto.server import ThreadedMotoServer

PORT, BUCKET, REGION = 5000, "results", "us-west-2"
STORAGE = f"s3://{BUCKET}/rlprune?scheme=http&region={REGION}&endpoint_override={GATEWAY}:{PORT}"
_CREDENTIALS = "[default]\naws_access_key_id = testing\naws_secret_access_key = testing\n"
_CHECKPOINT = re.compile(r"/tune/(attempt-\d+)/(t\d+)/checkpoint_(\d+)/")


class Bucket:
    """The results of the searches, each version of each file."""

    def __init__(self, laboratory: Laboratory) -> None:
        credentials = laboratory.home / ".aws" / "credentials"  # what a role is on AWS
        credentials.parent.mkdir()
        credentials.write_text(_CREDENTIALS)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
        ThreadedMotoServer(ip_address=GATEWAY, port=PORT, verbose=False).start()
        self._client = boto3.client(
            "s3",
            endpoint_url=f"http://{GATEWAY}:{PORT}",
            region_name=REGION,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        location = {"LocationConstraint": REGION}
        self._client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=location)
        versioning = {"Status": "Enabled"}
        self._client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration=versioning)

    def read(self, name: str) -> str:
        """The newest version of a file below the storage path."""
        body = self._client.get_object(Bucket=BUCKET, Key=f"rlprune/{name}")["Body"]
        return str(body.read().decode())

    def rows(self, run: str) -> list[dict[str, Any]]:
        """The rows of ``trials.jsonl``."""
        return [json.loads(line) for line in self.read(f"{run}/trials.jsonl").splitlines()]

    def checkpoints(self, run: str) -> dict[str, Counter[str]]:
        """How many checkpoints each trial has ever saved, by attempt: trial -> attempt -> number."""
        found = set()
        pages = self._client.get_paginator("list_object_versions")
        for page in pages.paginate(Bucket=BUCKET, Prefix=f"rlprune/{run}/tune/"):
            names = (version["Key"] for version in page.get("Versions", []))
            found |= {match.groups() for name in names if (match := _CHECKPOINT.search(name))}
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for attempt, trial, _ in found:
            counts[trial][attempt] += 1
        return dict(counts)
