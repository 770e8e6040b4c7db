"""The record of what claims asked for, and the end of a claim that asks too much."""

import datetime
import os
import uuid

import boto3

import notices
import things

dynamodb = boto3.client("dynamodb")


def record(claim, event, allowed, why):
    """Records a request by a claim, and returns whether the claim may still be used."""
    now = datetime.datetime.now(datetime.timezone.utc)
    expires = {"N": str(int(now.timestamp()) + 90 * 24 * 3600)}
    what = {
        "at": now.isoformat(timespec="milliseconds"), "thing": event["parameters"].get("ThingName", ""), "clientId": event.get("clientId", ""),
        "certificate": event["certificateId"], "allowed": str(allowed).lower(), "why": why,
    }
    item = {name: {"S": text} for name, text in what.items() if text}
    item.update(claim={"S": claim}, at={"S": what["at"] + " " + uuid.uuid4().hex}, expires=expires)
    dynamodb.put_item(TableName=os.environ["CLAIMS"], Item=item)
    counts = dynamodb.update_item(
        TableName=os.environ["CLAIMS"],
        Key={"claim": {"S": claim}, "at": {"S": now.strftime("hour %Y-%m-%dT%H")}},
        UpdateExpression="ADD provisioned :a, refused :r SET expires = :e",
        ExpressionAttributeValues={":a": {"N": str(int(allowed))}, ":r": {"N": str(int(not allowed))}, ":e": expires},
        ReturnValues="ALL_NEW",
    )["Attributes"]
    provisioned, refused = int(counts["provisioned"]["N"]), int(counts["refused"]["N"])
    if provisioned <= int(os.environ["CLAIM_LIMIT"]) and refused <= int(os.environ["CLAIM_REFUSALS"]):
        return True
    locks = os.environ["CLAIM_LOCK"] == "true"
    if locks:
        things.deactivate(claim)
    # Once an hour: the counts are another one at each request.
    first = provisioned == int(os.environ["CLAIM_LIMIT"]) + 1 if allowed else refused == int(os.environ["CLAIM_REFUSALS"]) + 1
    if first:
        notices.send(
            "keyvet: a claim asks too much" + (" and was set INACTIVE" if locks else ""),
            claimCertificateId=claim, inactive=locks, provisionedThisHour=provisioned, refusedThisHour=refused, last=what,
        )
    return not locks
