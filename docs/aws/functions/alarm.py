"""The alarm on claims: AWS IoT's own count of what was refused and registered, which does not need the hook."""

import collections
import datetime
import os

import boto3

import notices
import things

cloudwatch = boto3.client("cloudwatch")
dynamodb = boto3.client("dynamodb")
METRICS = {"refused": "RegisterThingFailed", "provisioned": "ApproximateNumberOfThingsRegistered"}
LIMITS = {"refused": int(os.environ["CLAIM_REFUSALS"]), "provisioned": int(os.environ["CLAIM_LIMIT"])}


def listed(metric):
    """Returns the dimensions that the metric has had lately, of claims."""
    found, more = [], {}
    while True:
        page = cloudwatch.list_metrics(Namespace="AWS/IoT", MetricName=metric, Dimensions=[{"Name": "ClaimCertificateId"}], RecentlyActive="PT3H", **more)
        found += [m["Dimensions"] for m in page["Metrics"]]
        if not page.get("NextToken"):
            return found
        more = {"NextToken": page["NextToken"]}


def counted(now):
    """Returns how often, in the last hour, certificates were refused and provisioned with, by their ids."""
    totals = collections.defaultdict(lambda: {"refused": 0, "provisioned": 0})
    for what, metric in METRICS.items():
        shapes = collections.Counter()  # the same may be counted by template, too
        for dimensions in listed(metric):
            points = cloudwatch.get_metric_statistics(
                Namespace="AWS/IoT", MetricName=metric, Dimensions=dimensions, StartTime=now - datetime.timedelta(hours=1), EndTime=now, Period=300, Statistics=["Sum"],
            )["Datapoints"]
            claim = next(d["Value"] for d in dimensions if d["Name"] == "ClaimCertificateId")
            shapes[claim, tuple(sorted(d["Name"] for d in dimensions))] += round(sum(p["Sum"] for p in points))
        for (claim, _), n in shapes.items():
            totals[claim][what] = max(totals[claim][what], n)
    return totals


def handler(event, _context):
    """event is that of a CloudWatch alarm (CloudWatch User Guide, "Lambda alarm actions")."""
    now = datetime.datetime.now(datetime.timezone.utc)
    alarm = event["alarmData"]["alarmName"]
    ended = []
    for claim, counts in counted(now).items():
        if all(counts[what] <= limit for what, limit in LIMITS.items()):
            continue
        found = things.certificate(claim)
        # A device asks for its next certificate under its own: that is no claim.
        locks = os.environ["CLAIM_LOCK"] == "true" and found["status"] == "ACTIVE" and not things.things(found["certificateArn"])
        if locks:
            things.deactivate(claim)
        what = {"alarm": alarm, "inactive": str(locks).lower(), **{name: str(n) for name, n in counts.items()}}
        at = now.isoformat(timespec="milliseconds")
        item = {"claim": claim, "at": at + " " + alarm, **what}
        expires = {"N": str(int(now.timestamp()) + 90 * 24 * 3600)}
        dynamodb.put_item(TableName=os.environ["CLAIMS"], Item={**{name: {"S": text} for name, text in item.items()}, "expires": expires})
        ended.append({"certificateId": claim, "at": at, **what})
    notices.send(
        "keyvet: many certificates are asked for, or refused" + ("" if ended else ", by no claim alone"),
        alarm=alarm, reason=event["alarmData"].get("state", {}).get("reason", ""), claims=ended,
    )
    return [e["certificateId"] for e in ended if e["inactive"] == "true"]
